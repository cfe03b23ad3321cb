//! A packet of a connection that has a row: what it changes there.

use crate::{
    connection::State,
    event::Happening,
    parse::Parsed,
    protocol::Protocol,
    rows,
    table::{self, Flags, Found, Head, Line, Memory, Probe, Recorded},
    tables::Tables,
    tcp::{self, Half, Kind, Marks, Side, Step, Tracked, Visibility},
    udp,
};

/// How often a change is computed anew because somebody else changed the row meanwhile.
const ATTEMPTS: u32 = 4;

/// What is known of a packet that belongs to a row.
pub(crate) struct Arrival<'a> {
    pub(crate) parsed: &'a Parsed,
    /// What a TCP segment asks for; `None` for UDP, and for flags that no sane sender sends.
    pub(crate) kind: Option<Kind>,
    pub(crate) visibility: Visibility,
    /// Segments that the packet will be cut into; 1 for most.
    pub(crate) packets: u32,
    /// Bytes of their frames.
    pub(crate) bytes: u32,
    pub(crate) epoch: u32,
    pub(crate) binding: u16,
    pub(crate) now: u32,
}

/// What became of the packet.
pub(crate) enum Followed {
    /// It was applied and counted.
    Yes(Aftermath),
    /// It was counted; the row is unconfirmed, and only the kernel knows whether this host has
    /// consented.
    NeedsSocket(Aftermath),
    /// There is no such row any more, once its end is settled.
    Gone(Aftermath),
}

/// What is left to be done about a row, as bits of a [`crate::decide::PackedDecision`]: it ends, or its
/// state has changed, which is told to whoever listens.
///
/// A step of its own does it ([`settle`]), because the kernel program has no stack left for it here. The
/// generation and the state of a row that ends are handed on, so that none is ended but the one that was
/// looked at; of the generation only four bits.
#[derive(Clone, Copy)]
pub(crate) struct Aftermath(pub(crate) u64);

impl Aftermath {
    pub(crate) const NONE: Self = Self(0);
    /// A row was made.
    pub(crate) const NEW: Self = Self(1 << 53);
    /// The row ends.
    const ENDS: u64 = 1 << 54;
    /// There was no room for a row.
    pub(crate) const UNTRACKED: Self = Self(1 << 55);
    /// With [`Aftermath::ENDS`]: because it has expired, which is not counted.
    const EXPIRES: u64 = Self::NEW.0;
    /// Where the row goes on, in which bits its state differs from the one before; where it ends, its state.
    const STATE: u32 = 56;
    /// Bits of the generation of a row that ends.
    const GENERATION: u32 = 60;
    /// All of them.
    pub(crate) const BITS: u64 = 0x7ff << 53;

    /// The row with this head ends.
    #[inline(always)]
    pub(crate) const fn ends(head: Head) -> Self {
        Self(
            Self::ENDS
                | (head.state() as u64) << Self::STATE
                | (head.generation() as u64 & 0xf) << Self::GENERATION,
        )
    }

    /// What is left of a row that was not found, or found expired.
    #[inline(always)]
    pub(crate) const fn of_absent<L>(expired: &Option<Found<L>>) -> Self {
        match expired {
            Some(found) => Self::expires(found.head),
            None => Self::NONE,
        }
    }

    /// The row with this head has expired.
    #[inline(always)]
    const fn expires(head: Head) -> Self {
        Self(Self::ends(head).0 | Self::EXPIRES)
    }

    /// The row had one head and has another one now. No branch, of which the verifier would follow both
    /// ways.
    #[inline(always)]
    const fn of_change(before: Head, after: Head) -> Self {
        Self(((before.0 ^ after.0) >> 8 & 0xf) << Self::STATE)
    }
}

/// Does what is left to be done about the row of a packet.
#[inline(always)]
pub fn settle<T: Tables + ?Sized>(tables: &T, parsed: &Parsed, left: u64) {
    if left & Aftermath::UNTRACKED.0 != 0 {
        tables.tell_untracked(&parsed.key);
        return;
    }
    let probe = Probe::new(&parsed.key, tables, tables.homes());
    let Some(found) = table::find(tables, &probe, &parsed.key) else {
        return;
    };
    if left & Aftermath::ENDS != 0 {
        let is_expired = left & Aftermath::EXPIRES != 0;
        let this = Aftermath::ends(found.head).0 | left & Aftermath::EXPIRES;
        if this != left & Aftermath::BITS {
            return;
        }
        if is_expired {
            table::remove(tables, &found);
        } else {
            rows::end(tables, &found);
        }
    } else if left & Aftermath::NEW.0 != 0 {
        tables.tell(Happening::New, found.index, found.head, found.head.state());
    } else {
        let difference = (left >> Aftermath::STATE & 0xf) as u8;
        let before = State::from_number(found.head.state() as u8 ^ difference);
        tables.tell(Happening::State, found.index, found.head, before);
    }
}

/// What a packet makes of a row.
enum Outcome {
    Goes(Change),
    /// Nothing is proved, and the row is not refreshed.
    Stays,
    Ends,
    Anew,
}

/// What a row is after a packet.
#[repr(C, align(8))]
struct Change {
    state: State,
    marks: u8,
    confirmed: bool,
    remote: Half,
    local: Half,
}

/// Applies a packet that `side` sent to its row, and counts it there.
#[inline(always)]
pub(crate) fn follow<T: Tables + ?Sized>(
    tables: &T,
    found: &Found<<T as Memory>::Line>,
    side: Side,
    packet: &Arrival<'_>,
) -> Followed {
    let line = found.line;
    let mut head = found.head;
    let mut is_refreshed = false;
    for _ in 0..ATTEMPTS {
        let remote = table::half::<{ Line::REMOTE }, T>(tables, line);
        let local = table::half::<{ Line::LOCAL }, T>(tables, line);
        if table::head(tables, line).generation() != found.head.generation() {
            return Followed::Gone(Aftermath::NONE);
        }
        // What a row is bound to is for arriving packets to find out.
        let mut next = match side {
            Side::Remote => head.with_binding(packet.binding),
            Side::Local => head,
        };
        is_refreshed = false;
        match outcome(head, remote, local, side, packet) {
            Outcome::Stays => {}
            Outcome::Ends => {
                count(tables, found, side, packet);
                return Followed::Yes(Aftermath::ends(head));
            }
            Outcome::Anew => return Followed::Gone(Aftermath::ends(head)),
            Outcome::Goes(Change {
                state,
                marks,
                confirmed,
                remote: remote_after,
                local: local_after,
            }) => {
                is_refreshed = true;
                let mut flags = head.flags().0 & !Flags::MARKS | marks & Flags::MARKS;
                if matches!(head.state(), State::Reserved) {
                    // Nobody could take the row while it held the port; now an answer must come.
                    flags &= !Flags::CONFIRMED;
                }
                if confirmed {
                    flags |= Flags::CONFIRMED;
                }
                next = next.with_state(state).with_flags(Flags(flags));
                // Each side's half is what the packets of that side say, and mostly theirs alone
                // to change.
                if !table::put_half::<{ Line::REMOTE }, T>(
                    tables,
                    line,
                    remote.word(),
                    remote_after.word(),
                ) || !table::put_half::<{ Line::LOCAL }, T>(
                    tables,
                    line,
                    local.word(),
                    local_after.word(),
                ) {
                    continue;
                }
            }
        }
        if table::change_head(tables, line, head, next) {
            head = next;
            break;
        }
        head = table::head(tables, line);
        if head.generation() != found.head.generation() || !head.is(table::Occupancy::Live) {
            return Followed::Gone(Aftermath::NONE);
        }
    }
    let left = Aftermath::of_change(found.head, head);
    let found = &Found { head, ..*found };
    if is_refreshed {
        let created = table::last_seen(tables, line);
        if !table::has_cold(tables, found) {
            table::add_cold(tables, found, created);
        }
        table::touch(tables, line, packet.now);
    }
    if matches!(side, Side::Remote) {
        table::put_epoch(tables, line, packet.epoch);
    }
    if !count(tables, found, side, packet) {
        return Followed::Gone(Aftermath::NONE);
    }
    let needs_socket = !head.is_confirmed()
        && matches!(side, Side::Remote)
        && matches!(packet.parsed.key.protocol, Protocol::Tcp)
        && match packet.visibility {
            Visibility::IngressOnly => matches!(head.state(), State::Established),
            // This host's answer went another way, where it is not seen.
            Visibility::Both => {
                matches!(head.state(), State::Listen) && matches!(packet.kind, Some(Kind::Ack))
            }
        };
    if needs_socket {
        Followed::NeedsSocket(left)
    } else {
        Followed::Yes(left)
    }
}

#[inline(always)]
fn outcome(head: Head, remote: Half, local: Half, side: Side, packet: &Arrival<'_>) -> Outcome {
    let marks = head.flags().0 & Flags::MARKS;
    if matches!(head.state(), State::Reserved) {
        return used(remote, local, side, packet);
    }
    match (packet.parsed.key.protocol, packet.kind) {
        (Protocol::Udp, _) => {
            let row = udp::Tracked {
                state: head.state(),
                marks,
            };
            let (row, confirmed) = udp::step(row, side, head.flags().has(Flags::OUT));
            Outcome::Goes(Change {
                state: row.state,
                marks: row.marks,
                confirmed,
                remote,
                local,
            })
        }
        (Protocol::Tcp, None) => Outcome::Stays,
        (Protocol::Tcp, Some(kind)) => {
            let row = Tracked {
                state: head.state(),
                marks: Marks(marks),
                local,
                remote,
            };
            let seen = rows::seen(packet.parsed, kind);
            match tcp::step(row, side, &seen, packet.visibility) {
                Step::Goes(row) => goes(row, false),
                Step::Confirmed(row) => goes(row, true),
                Step::Reopened(_) => Outcome::Anew,
                Step::Ends => Outcome::Ends,
                Step::Ignored => Outcome::Stays,
            }
        }
    }
}

/// What a packet makes of a row that only holds the local port: this host's first one opens the
/// connection that the port was allocated for.
#[inline(always)]
fn used(remote: Half, local: Half, side: Side, packet: &Arrival<'_>) -> Outcome {
    if matches!(side, Side::Remote) {
        return Outcome::Stays;
    }
    match (packet.parsed.key.protocol, packet.kind) {
        (Protocol::Udp, _) => {
            let row = udp::opens(side);
            Outcome::Goes(Change {
                state: row.state,
                marks: row.marks,
                confirmed: false,
                remote,
                local,
            })
        }
        (Protocol::Tcp, Some(kind)) => {
            match tcp::opens(side, &rows::seen(packet.parsed, kind), packet.visibility) {
                // As where there is no row: of this host's segments, only a connection's are such.
                Some(row) => goes(row, matches!(kind, Kind::Ack | Kind::Fin)),
                None => Outcome::Stays,
            }
        }
        (Protocol::Tcp, None) => Outcome::Stays,
    }
}

#[inline(always)]
fn goes(row: Tracked, confirmed: bool) -> Outcome {
    Outcome::Goes(Change {
        state: row.state,
        marks: row.marks.0,
        confirmed,
        remote: row.remote,
        local: row.local,
    })
}

#[inline(always)]
fn count<T: Tables + ?Sized>(
    tables: &T,
    found: &Found<<T as Memory>::Line>,
    side: Side,
    packet: &Arrival<'_>,
) -> bool {
    let (packets, bytes) = (packet.packets, packet.bytes);
    let recorded = match side {
        Side::Remote => table::count::<{ Line::RX }, T>(tables, found, packets, bytes),
        Side::Local => table::count::<{ Line::TX }, T>(tables, found, packets, bytes),
    };
    recorded != Recorded::Gone
}

/// Notes that the kernel has a connected socket for a row.
#[inline(always)]
pub(crate) fn confirm<T: Tables + ?Sized>(tables: &T, found: &Found<<T as Memory>::Line>) {
    let head = found.head;
    let state = match head.state() {
        State::Listen | State::SynReceived => State::Established,
        state => state,
    };
    let flags = Flags(head.flags().0 | Flags::CONFIRMED);
    let next = head.with_flags(flags).with_state(state);
    let created = table::last_seen(tables, found.line);
    // Where somebody else was faster, the next packet asks again.
    if table::change_head(tables, found.line, head, next) && !table::has_cold(tables, found) {
        // The shortest way, which moves the time on, knows of no cold line.
        table::add_cold(tables, found, created);
    }
}
