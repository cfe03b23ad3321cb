//! Packets that belong to a connection without having its ports in their place: fragments, and ICMP
//! errors. Where the connection is the stack's, they go there, as what the parser took them for.

use crate::{
    binding::Target,
    connection::State,
    decide::{Decision, PackedDecision, target_of},
    fragments::Kind,
    packet::Packet,
    parse::Parsed,
    reason::{Reason, Stage},
    rows, steering,
    table::{self, Probe},
    tables::{Kernel, Tables},
};

/// What [`owner_of_row`] says where there is no row, or one of another configuration: the bindings
/// have to be asked.
pub const NO_ROW: u32 = u32::MAX;

/// Decides about a frame that arrived on the interface in a slot, and that the parser did not take for
/// `reason`; the decision is [open](PackedDecision::OPEN) where it is the stack's.
#[inline(always)]
pub fn decide<P, T>(
    packet: &P,
    tables: &T,
    slot: u32,
    parsed: &mut Parsed,
    reason: Reason,
) -> PackedDecision
where
    P: Packet + ?Sized,
    T: Kernel,
{
    let (binding, stage, reason) = match reason {
        Reason::Fragment => (
            owner_of_fragment(packet, tables, slot, parsed),
            Stage::Binding,
            Reason::Fragment,
        ),
        Reason::OtherProtocol if tables.read_icmp(packet, slot, parsed) => (
            tables.owner_of_row(parsed, slot),
            Stage::Connection,
            Reason::IcmpError,
        ),
        _ => (0, Stage::Parse, reason),
    };
    if binding == 0 || binding == NO_ROW {
        return PackedDecision(PackedDecision::OPEN);
    }
    let (target, _) = target_of(tables, binding as u16);
    let decision = Decision::by(target, stage, reason)
        .of_binding(binding as u16)
        .pack();
    let Some(interface) = tables.interface(slot) else {
        return PackedDecision(PackedDecision::OPEN);
    };
    match target {
        Target::Xsk => tables.to_socket(interface.ifindex, parsed.frame_len, decision),
        Target::Cpu if steering::reaches_cpus(interface) => tables.to_cpu(&parsed.key, decision),
        Target::Cpu => steering::stays(decision),
        _ => decision,
    }
}

/// The binding of the packet that a fragment is of; 0 where it is the stack's.
#[inline(always)]
fn owner_of_fragment<P, T>(packet: &P, tables: &T, slot: u32, parsed: &mut Parsed) -> u32
where
    P: Packet + ?Sized,
    T: Kernel,
{
    match tables.read_fragment(packet, slot, parsed) {
        Kind::First => {
            let mut binding = tables.owner_of_row(parsed, slot);
            if binding == NO_ROW {
                binding = u32::from(tables.binding_of_fragment(parsed, slot));
            }
            tables.remember_fragments(parsed, binding as u16);
            binding
        }
        Kind::Later => u32::from(tables.recall_fragments(parsed)),
        Kind::Portless => {
            tables.remember_fragments(parsed, 0);
            0
        }
        Kind::Other => 0,
    }
}

/// The binding of a four-tuple's row, if its packets are handed on; 0 where the row is the stack's.
#[inline(always)]
pub fn owner_of_row<T: Tables + ?Sized>(tables: &T, parsed: &Parsed, slot: u32) -> u32 {
    let (Some(_), Some(config)) = (tables.interface(slot), tables.config()) else {
        return 0;
    };
    let probe = Probe::new(&parsed.key, tables, tables.homes());
    let now = config.clock.at_ticks(tables.ticks());
    let found = match rows::find(tables, &probe, &parsed.key, config, now) {
        Ok(found) => found,
        Err(expired) => {
            if let Some(expired) = expired {
                table::remove(tables, &expired);
            }
            return NO_ROW;
        }
    };
    if matches!(found.head.state(), State::Reserved) {
        // It only holds the local port.
        return NO_ROW;
    }
    match rows::steered_owner(tables, &found) {
        Some(binding) => u32::from(binding),
        None if table::epoch(tables, found.line) == config.epoch => 0,
        None => NO_ROW,
    }
}
