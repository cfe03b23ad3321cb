//! A packet that leaves: it is seen, and never held up.

use crate::{
    binding::Target,
    config::Track,
    decide::{PackedDecision, binding_of, interface_of, is_own, kind_of, target_of},
    follow::{self, Aftermath, Followed},
    packet::Packet,
    parse::{Parsed, parse_into},
    rows,
    table::{self, Probe},
    tables::Tables,
    tcp::{Side, Visibility},
};

/// How a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Departure {
    /// Segments that the device or the kernel will cut it into; 0 and 1 both mean that it is sent
    /// as it is.
    pub segments: u32,
    /// The interface by which it leaves.
    pub ifindex: u32,
    /// Not 0 where it came in by some interface before: then it is forwarded.
    pub is_forwarded: u32,
    /// Not 0 where no hook has seen it, and the owner of its connection says that it has left.
    pub is_reported: u32,
}

/// Enters a packet that leaves into the connection table.
#[inline(always)]
pub fn observe<P, T>(packet: &P, departure: &Departure, tables: &T)
where
    P: Packet + ?Sized,
    T: Tables,
{
    if interface_of(tables, departure.ifindex).is_none() {
        return;
    }
    let mut parsed = Parsed::EMPTY;
    if parse_into(packet, &mut parsed).is_err() {
        return;
    }
    parsed.turn();
    enter(tables, &parsed, departure);
}

/// The same, of a packet that was parsed and turned round.
#[inline(always)]
pub fn enter<T: Tables>(tables: &T, parsed: &Parsed, departure: &Departure) {
    let Some((slot, _)) = interface_of(tables, departure.ifindex) else {
        return;
    };
    tables.trace_departing(parsed, departure);
    let (packets, bytes) = departure.size(parsed);
    if tables.leaves(parsed, packets, bytes) {
        return;
    }
    let followed = tables.follow_departing(parsed, departure);
    if followed.leaves_something() {
        tables.settle(parsed, followed);
    }
    if !followed.is_open() {
        return;
    }
    if let Some(binding) = tables.admit_departing(parsed, departure, slot) {
        let left = tables.track_departing(parsed, departure, slot, binding);
        if left.leaves_something() {
            tables.settle(parsed, left);
        }
    }
}

impl Departure {
    /// How many frames go out, and their bytes: each has all headers of the packet.
    #[inline(always)]
    fn size(&self, parsed: &Parsed) -> (u32, u32) {
        if self.segments <= 1 {
            return (1, parsed.frame_len);
        }
        let more = (self.segments - 1).wrapping_mul(parsed.headers_len);
        (self.segments, parsed.frame_len.wrapping_add(more))
    }
}

/// Applies a packet that leaves to the row of its connection. Where there is none the answer is
/// [open](PackedDecision::OPEN); it decides nothing.
#[inline(always)]
pub fn follow<T: Tables + ?Sized>(
    tables: &T,
    parsed: &Parsed,
    departure: &Departure,
) -> PackedDecision {
    const NO_ROW: PackedDecision = PackedDecision(PackedDecision::OPEN);
    let Some(config) = tables.config() else {
        return PackedDecision(0);
    };
    let probe = Probe::new(&parsed.key, tables, tables.homes());
    let now = config.clock.at_ticks(tables.ticks());
    let found = match rows::find(tables, &probe, &parsed.key, config, now) {
        Ok(found) => found,
        Err(expired) => return NO_ROW.leaving(Aftermath::of_absent(&expired)),
    };
    let (packets, bytes) = departure.size(parsed);
    let packet = follow::Arrival {
        parsed,
        kind: kind_of(parsed),
        visibility: Visibility::Both,
        packets,
        bytes,
        // Not used: only arriving packets change what a row is bound to.
        epoch: table::epoch(tables, found.line),
        binding: found.head.binding(),
        now,
    };
    match follow::follow(tables, &found, Side::Local, &packet) {
        Followed::Yes(left) | Followed::NeedsSocket(left) => PackedDecision(0).leaving(left),
        Followed::Gone(left) => NO_ROW.leaving(left),
    }
}

/// The binding of the local endpoint of a packet that leaves; `None` where the packet is to make no
/// row.
#[inline(always)]
pub fn admit<T: Tables + ?Sized>(
    tables: &T,
    parsed: &Parsed,
    departure: &Departure,
    slot: u32,
) -> Option<u16> {
    let (Some(interface), Some(config)) = (tables.interface(slot), tables.config()) else {
        return None;
    };
    let (key, family) = (&parsed.key, parsed.family);
    if departure.is_forwarded != 0
        || !parsed.may_be_tracked()
        || !is_own(tables, &key.local_address, family, config)
    {
        return None;
    }
    let binding = binding_of(tables, key, family, interface, 0);
    let (target, untracked) = target_of(tables, binding);
    // What the kernel sends from an endpoint of AF_XDP sockets is not of their connections.
    let is_sender = match target {
        Target::Xsk => departure.is_reported != 0,
        target => target.is_kernel() && departure.is_reported == 0,
    };
    let is_left_out =
        untracked || !is_sender || binding == 0 && matches!(config.track, Track::Bound);
    if is_left_out { None } else { Some(binding) }
}

/// Enters a row for a packet that leaves. The answer is as that of [`crate::decide::track`].
#[inline(always)]
pub fn track<T: Tables + ?Sized>(
    tables: &T,
    parsed: &Parsed,
    departure: &Departure,
    slot: u32,
    binding: u16,
) -> PackedDecision {
    const NOTHING: PackedDecision = PackedDecision(0);
    let Some(config) = tables.config() else {
        return NOTHING;
    };
    let kind = kind_of(parsed);
    let Some(mut new) = rows::opened(parsed, kind, Side::Local, Visibility::Both) else {
        return NOTHING;
    };
    let (packets, bytes) = departure.size(parsed);
    new.tx_packets = packets;
    new.tx_bytes = bytes;
    new.now = config.clock.at_ticks(tables.ticks());
    new.epoch = config.epoch;
    new.binding = binding;
    let probe = Probe::new(&parsed.key, tables, tables.homes());
    let left = rows::enter(tables, &probe, &parsed.key, &new, config, slot, Side::Local);
    NOTHING.leaving(left)
}
