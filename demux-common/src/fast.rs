//! The shortest way of a packet: of a connection that is under way, and stays as it is.
//!
//! Whatever is not plain — another state, another epoch, a carry of a counter, a writer that was
//! faster — takes the long way, which starts from the beginning.

use crate::{
    config::Interface,
    connection::{State, since},
    decide::{Decision, PackedDecision},
    parse::Parsed,
    protocol::Protocol,
    reason::{Reason, Stage, Verdict},
    table::{self, Flags, Head, Line, Probe},
    tables::Tables,
    tcp::{self, Side},
    wire::ethernet::Station,
};

/// Decides about a packet that arrived, if it is one that changes nothing but counters, the time
/// and what the remote has said.
#[inline(always)]
pub fn arrives<T: Tables + ?Sized>(
    tables: &T,
    parsed: &Parsed,
    slot: u32,
    interface: &Interface,
) -> Option<PackedDecision> {
    if parsed.station != Station::new(interface.station) {
        return None;
    }
    let head = passes::<{ Line::RX }, T>(tables, parsed, Side::Remote, 1, parsed.frame_len)?;
    let bytes = u64::from(parsed.frame_len);
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

/// Applies a packet that leaves, as [`arrives`] does one that arrives; returns whether it did.
#[inline(always)]
pub fn leaves<T: Tables + ?Sized>(tables: &T, parsed: &Parsed, packets: u32, bytes: u32) -> bool {
    passes::<{ Line::TX }, T>(tables, parsed, Side::Local, packets, bytes).is_some()
}

/// The heads of rows that a plain packet does not change: established, or assured, and confirmed.
const STEADY_MASK: u64 = 0xff << 8 | ((Flags::CONFIRMED | Flags::UDP) as u64) << 16;
const STEADY_TCP: u64 = (State::Established as u64) << 8 | (Flags::CONFIRMED as u64) << 16;
const STEADY_UDP: u64 =
    (State::Assured as u64) << 8 | ((Flags::CONFIRMED | Flags::UDP) as u64) << 16;

/// Applies a packet that `side` sent to its row, if that is steady; `None` where it is not.
#[inline(always)]
fn passes<const AT: usize, T: Tables + ?Sized>(
    tables: &T,
    parsed: &Parsed,
    side: Side,
    packets: u32,
    bytes: u32,
) -> Option<Head> {
    let is_tcp = matches!(parsed.key.protocol, Protocol::Tcp);
    if is_tcp && !tcp::is_plain(parsed.segment.flags) {
        return None;
    }
    let config = tables.config()?;
    let probe = Probe::new(&parsed.key, tables, tables.homes());
    let found = table::find(tables, &probe, &parsed.key)?;
    let (head, line) = (found.head, found.line);
    let now = config.clock.at_ticks(tables.ticks());
    let last_seen = table::last_seen(tables, line);
    let lifetime = if is_tcp {
        config.lifetimes[State::Established as usize]
    } else {
        config.lifetimes[State::Assured as usize]
    };
    if head.0 & STEADY_MASK != if is_tcp { STEADY_TCP } else { STEADY_UDP }
        || table::epoch(tables, line) != config.epoch
        || since(last_seen, now) >= lifetime
    {
        return None;
    }
    if is_tcp {
        let remote = table::half::<{ Line::REMOTE }, T>(tables, line);
        let local = table::half::<{ Line::LOCAL }, T>(tables, line);
        let seen = crate::rows::seen(parsed, tcp::Kind::Ack);
        let marks = tcp::Marks(head.flags().0 & Flags::MARKS);
        let done = match side {
            Side::Remote => {
                let next = tcp::advance(remote, local, marks, side, &seen)?;
                table::put_half::<{ Line::REMOTE }, T>(tables, line, remote.word(), next.word())
            }
            Side::Local => {
                let next = tcp::advance(local, remote, marks, side, &seen)?;
                table::put_half::<{ Line::LOCAL }, T>(tables, line, local.word(), next.word())
            }
        };
        if !done {
            return None;
        }
    }
    if !table::count_simple::<AT, T>(tables, line, head.generation(), packets, bytes) {
        return None;
    }
    if last_seen != now {
        table::touch(tables, line, now);
    }
    Some(head)
}
