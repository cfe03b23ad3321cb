//! The shortest way of a packet: of a connection that is under way, and stays as it is.
//!
//! Whatever is not plain — an option in the IP header, another state, another epoch, a carry of a
//! counter, a writer that was faster — takes the long way, which starts from the beginning.

use network_types::eth::EtherType;

use crate::{
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
    tables::Tables,
    tcp::{self, Side},
    wire::ethernet::Station,
};

/// Decides about a frame that arrived, if it is a TCP segment without anything unusual that changes
/// nothing but counters, the time and what the remote has said.
#[inline(always)]
pub fn arrives<P, T>(packet: &P, ifindex: u32, tables: &T) -> Option<PackedDecision>
where
    P: Packet + ?Sized,
    T: Tables,
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
        (steady(tables, &found, &segment, config)?, segment.bytes)
    } else if ether_type == EtherType::Ipv6 as u16 {
        let (addresses, segment) = plain::ipv6(packet)?;
        let probe = Probe::v6(&addresses, segment.ports, tables, tables.homes());
        let found = table::find_v6(tables, &probe, &addresses)?;
        (steady(tables, &found, &segment, config)?, segment.bytes)
    } else {
        return None;
    };
    let bytes = u64::from(bytes);
    tables.count(slot, Verdict::Pass, Reason::Connection, bytes);
    let binding = head.binding();
    if binding != 0 {
        tables.count_binding(binding, bytes);
    }
    Some(
        Decision::pass(Stage::Connection, Reason::Connection)
            .of_binding(binding)
            .pack(),
    )
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
