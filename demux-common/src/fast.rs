//! The shortest way of a packet: of a connection that is under way, and stays as it is.
//! Its owner is the stack or an AF_XDP socket.
//!
//! Whatever is not plain — an option in the IP header, another state, another epoch, a carry of a
//! counter, a writer that was faster — takes the long way, which starts from the beginning.

use network_types::eth::EtherType;

use crate::{
    binding::Target,
    config::Config,
    connection::{State, since},
    decide::{Decision, PackedDecision, interface_of},
    packet::Packet,
    parse::Parsed,
    plain::{self, Segment},
    protocol::Protocol,
    reason::{Reason, Stage, Verdict},
    rows,
    table::{self, Flags, Found, Head, Line, Memory, Probe},
    tables::{Kernel, Tables},
    tcp::{self, Side},
    wire::ethernet::Station,
};

/// Decides about a frame that arrived, if it is a TCP segment without anything unusual that changes
/// nothing but counters, the time and what the remote has said.
#[inline(always)]
pub fn arrives<P, T>(packet: &P, ifindex: u32, tables: &T) -> Option<PackedDecision>
where
    P: Packet + ?Sized,
    T: Kernel,
{
    let (slot, interface) = interface_of(tables, ifindex)?;
    let (station, ether_type) = plain::ethernet(packet)?;
    if station != Station::new(interface.station) {
        return None;
    }
    let config = tables.config()?;
    let (head, bytes) = if ether_type == EtherType::Ipv4 as u16 {
        let (addresses, segment) = plain::ipv4(packet)?;
        let probe = Probe::v4(addresses, segment.ports, tables, tables.homes());
        let found = table::find_v4(tables, &probe)?;
        may_be_steady(tables, &found)?;
        (steady(tables, &found, &segment, config)?, segment.bytes)
    } else if ether_type == EtherType::Ipv6 as u16 {
        let (addresses, segment) = plain::ipv6(packet)?;
        let probe = Probe::v6(&addresses, segment.ports, tables, tables.homes());
        let found = table::find_v6(tables, &probe, &addresses)?;
        may_be_steady(tables, &found)?;
        (steady(tables, &found, &segment, config)?, segment.bytes)
    } else {
        return None;
    };
    let binding = head.binding();
    let mut decision = Decision::pass(Stage::Connection, Reason::Connection)
        .of_binding(binding)
        .pack();
    if binding == 0 {
        tables.count(slot, Verdict::Pass, Reason::Connection, u64::from(bytes));
        return Some(decision);
    }
    if is_steered(tables, binding) {
        decision = tables.to_socket(ifindex, bytes, decision.to(Target::Xsk));
    }
    tables.count_packed(slot, decision, u64::from(bytes));
    tables.count_binding(binding, u64::from(bytes));
    Some(decision)
}

/// Leaves the connections of other CPUs to the long way, before anything is counted: what goes there
/// may need its checksum, and a place found by its four-tuple.
#[inline(always)]
fn may_be_steady<T: Tables>(tables: &T, found: &Found<<T as Memory>::Line>) -> Option<()> {
    let index = found.head.binding();
    if index != 0 && matches!(tables.binding(index)?.target, Target::Cpu) {
        return None;
    }
    Some(())
}

/// Whether a binding, which is not one of CPUs, goes to AF_XDP sockets.
#[inline(always)]
fn is_steered<T: Tables>(tables: &T, index: u16) -> bool {
    tables
        .binding(index)
        .is_some_and(|binding| binding.target.is_steered())
}

/// Applies a segment that arrived to its row, if that is steady.
#[inline(always)]
fn steady<T: Tables>(
    tables: &T,
    found: &Found<<T as Memory>::Line>,
    segment: &Segment,
    config: &Config,
) -> Option<Head> {
    passes::<{ Line::RX }, { Line::REMOTE }, { Line::LOCAL }, T>(
        tables,
        found,
        &segment.seen,
        Side::Remote,
        (1, segment.bytes),
        config,
    )
}

/// Applies a packet that leaves, as [`arrives`] does one that arrives; returns whether it did.
#[inline(always)]
pub fn leaves<T: Tables + ?Sized>(tables: &T, parsed: &Parsed, packets: u32, bytes: u32) -> bool {
    let is_plain =
        matches!(parsed.key.protocol, Protocol::Tcp) && tcp::is_plain(parsed.segment.flags);
    let Some(config) = tables.config() else {
        return false;
    };
    if !is_plain {
        return false;
    }
    let probe = Probe::new(&parsed.key, tables, tables.homes());
    let Some(found) = table::find(tables, &probe, &parsed.key) else {
        return false;
    };
    passes::<{ Line::TX }, { Line::LOCAL }, { Line::REMOTE }, T>(
        tables,
        &found,
        &rows::seen(parsed, tcp::Kind::Ack),
        Side::Local,
        (packets, bytes),
        config,
    )
    .is_some()
}

/// The heads of rows that a plain segment does not change: established and confirmed.
const STEADY_MASK: u64 = 0xff << 8 | (Flags::CONFIRMED as u64) << 16;
const STEADY: u64 = (State::Established as u64) << 8 | (Flags::CONFIRMED as u64) << 16;

/// Applies a plain segment that `side` sent to its row, if that is steady; `None` where it is not.
/// `TALLY`, `SENDER` and `RECEIVER` are the words of the line for that side.
#[inline(always)]
fn passes<const TALLY: usize, const SENDER: usize, const RECEIVER: usize, T: Tables + ?Sized>(
    tables: &T,
    found: &Found<<T as Memory>::Line>,
    seen: &tcp::Seen,
    side: Side,
    (packets, bytes): (u32, u32),
    config: &Config,
) -> Option<Head> {
    let (head, line) = (found.head, found.line);
    let now = config.clock.at_ticks(tables.ticks());
    let last_seen = table::last_seen(tables, line);
    if head.0 & STEADY_MASK != STEADY
        || table::epoch(tables, line) != config.epoch
        || since(last_seen, now) >= config.lifetimes[State::Established as usize]
    {
        return None;
    }
    let sender = table::half::<SENDER, T>(tables, line);
    let receiver = table::half::<RECEIVER, T>(tables, line);
    let marks = tcp::Marks(head.flags().0 & Flags::MARKS);
    let next = tcp::advance(sender, receiver, marks, side, seen)?;
    // Read before anything is written: its generation vouches for both halves.
    let counted = table::simple_count::<TALLY, T>(tables, line, head.generation(), packets, bytes)?;
    if !table::put_half::<SENDER, T>(tables, line, sender.word(), next.word())
        || !table::put_count::<TALLY, T>(tables, line, counted)
    {
        return None;
    }
    if last_seen != now {
        table::touch(tables, line, now);
    }
    Some(head)
}
