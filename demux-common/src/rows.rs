//! Rows of the connection table as both directions make, find and end them.

use crate::{
    config::Config,
    connection::State,
    connection::{ConnectionKey, since},
    follow::Aftermath,
    parse::Parsed,
    protocol::Protocol,
    table::{self, Flags, Found, Inserted, Line, Memory, New, Probe, Recorded},
    tables::{TableEvent, Tables},
    tcp::{self, Half, Kind, Side, Visibility},
    udp,
};

/// The row of a four-tuple. One that has expired is absent: it is the error, to be removed on the way.
#[inline(always)]
pub(crate) fn find<T: Tables + ?Sized>(
    tables: &T,
    probe: &Probe,
    key: &ConnectionKey,
    config: &Config,
    now: u32,
) -> Result<Found<<T as Memory>::Line>, Option<Found<<T as Memory>::Line>>> {
    let Some(found) = table::find(tables, probe, key) else {
        return Err(None);
    };
    let idle = since(table::last_seen(tables, found.line), now);
    if idle < config.lifetimes[found.head.state() as usize & (State::SLOTS - 1)] {
        Ok(found)
    } else {
        Err(Some(found))
    }
}

/// Ends a row.
#[inline(always)]
pub(crate) fn end<T: Tables + ?Sized>(tables: &T, found: &Found<<T as Memory>::Line>) {
    // A row that has changed meanwhile is looked at again by the next packet.
    if table::remove(tables, found) {
        tables.count_event(TableEvent::Ended);
    }
}

/// The binding of a row whose packets are handed on by XDP_REDIRECT; `None` where the stack has them.
#[inline(always)]
pub(crate) fn steered_owner<T: Tables + ?Sized>(
    tables: &T,
    found: &Found<<T as Memory>::Line>,
) -> Option<u16> {
    let index = found.head.binding();
    if index == 0 {
        return None;
    }
    let binding = tables.binding(index)?;
    let is_own = binding.is_of(table::epoch(tables, found.line));
    (is_own && binding.target.is_steered()).then_some(index)
}

/// The row that a packet makes which was sent by `side`, without its times, counts and binding;
/// `None` where it makes none.
#[inline(always)]
pub(crate) fn opened(
    parsed: &Parsed,
    kind: Option<Kind>,
    side: Side,
    visibility: Visibility,
) -> Option<New> {
    let mut new = New {
        now: 0,
        epoch: 0,
        remote: Half::UNKNOWN,
        local: Half::UNKNOWN,
        rx_packets: 0,
        rx_bytes: 0,
        tx_packets: 0,
        tx_bytes: 0,
        binding: 0,
        state: State::Unreplied,
        flags: Flags(0),
    };
    let marks = match parsed.key.protocol {
        Protocol::Udp => {
            let row = udp::opens(side);
            new.state = row.state;
            row.marks
        }
        Protocol::Tcp => {
            let row = tcp::opens(side, &seen(parsed, kind?), visibility)?;
            new.state = row.state;
            new.remote = row.remote;
            new.local = row.local;
            row.marks.0
        }
    };
    let direction = if opened_here(parsed, kind, side) {
        Flags::OUT
    } else {
        0
    };
    // Of this host's segments, only a connection's are such.
    let is_consent = matches!((side, kind), (Side::Local, Some(Kind::Ack | Kind::Fin)));
    let confirmed = if is_consent { Flags::CONFIRMED } else { 0 };
    new.flags = Flags(marks & Flags::MARKS | direction | confirmed);
    Some(new)
}

/// What the state machine needs to know of a segment.
#[inline(always)]
pub(crate) fn seen(parsed: &Parsed, kind: Kind) -> tcp::Seen {
    tcp::Seen {
        kind,
        sequence: parsed.segment.sequence,
        acknowledgement: parsed.segment.acknowledgement,
        has_ack: parsed.segment.flags.has(tcp::Flags::ACK),
        length: parsed.segment.length,
    }
}

/// Whether this host opened the connection. A handshake tells, and so does the first datagram; in
/// the middle of a stream the lower port is taken for the server's.
#[inline(always)]
fn opened_here(parsed: &Parsed, kind: Option<Kind>, side: Side) -> bool {
    match (kind, side) {
        (Some(Kind::Syn) | None, Side::Local) | (Some(Kind::SynAck), Side::Remote) => true,
        (Some(Kind::Syn) | None, Side::Remote) | (Some(Kind::SynAck), Side::Local) => false,
        _ => parsed.key.local_port > parsed.key.remote_port,
    }
}

/// Enters a row, and counts what became of it. Returns what is left to be done: to tell of it.
#[inline(always)]
pub(crate) fn enter<T: Tables + ?Sized>(
    tables: &T,
    probe: &Probe,
    key: &ConnectionKey,
    new: &New,
    config: &Config,
    slot: u32,
    side: Side,
) -> Aftermath {
    let event = match table::insert_telling(tables, probe, key, new, &config.lifetimes) {
        Inserted::Entered(_) => TableEvent::Entered,
        Inserted::OverExpired(_) => {
            tables.count_event(TableEvent::OverExpired);
            TableEvent::Entered
        }
        Inserted::OverUnconfirmed(_) => {
            tables.count_event(TableEvent::OverUnconfirmed);
            TableEvent::Entered
        }
        Inserted::Present(found) => {
            let counted = match side {
                Side::Remote => {
                    table::count::<{ Line::RX }, T>(tables, &found, new.rx_packets, new.rx_bytes)
                }
                Side::Local => {
                    table::count::<{ Line::TX }, T>(tables, &found, new.tx_packets, new.tx_bytes)
                }
            };
            if counted == Recorded::Yes {
                return Aftermath::NONE;
            }
            TableEvent::Untracked
        }
        Inserted::Full => TableEvent::Untracked,
    };
    tables.count_event(event);
    if event == TableEvent::Untracked {
        tables.count_untracked(slot, u64::from(new.rx_bytes + new.tx_bytes));
        Aftermath::UNTRACKED
    } else {
        Aftermath::NEW
    }
}
