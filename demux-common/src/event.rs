//! What becomes of a connection, as the programs tell it to a listener.

use crate::{
    address::Address,
    connection::{Connection, ConnectionKey, State, since},
    protocol::Protocol,
    table::{Cold, Head, Line, Memory, Occupancy},
};

/// What happened.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u8)]
pub enum Happening {
    /// A row was made.
    New = 0,
    /// Its state changed.
    State = 1,
    /// It ended: by its packets, by its binding, or because somebody ended it.
    Closed = 2,
    /// It was found to have expired, and was removed.
    Expired = 3,
    /// It was not confirmed, and had to go for another one.
    Evicted = 4,
    /// There was no room for a row.
    Untracked = 5,
}

impl Happening {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::New,
        Self::State,
        Self::Closed,
        Self::Expired,
        Self::Evicted,
        Self::Untracked,
    ];

    /// The one with a number, which is below their count.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::New,
            1 => Self::State,
            2 => Self::Closed,
            3 => Self::Expired,
            4 => Self::Evicted,
            _ => Self::Untracked,
        }
    }
}

/// One event: a record of the ring buffer `EVENTS`. The programs copy the lines of the row as they are, and
/// leave it to the reader to put them together ([`Event::read`]): that takes them few instructions and
/// hardly any stack.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C, align(8))]
pub struct Event {
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub time_ns: u64,
    /// The kernel's tick counter: see [`crate::clock`].
    pub ticks: u64,
    /// In the lowest byte the number of the [`Happening`], in the next that of the state before.
    pub what: u64,
    /// The head of the row: the line's own says Busy already where the row comes to its end.
    pub head: u64,
    /// The words of the [`Line`].
    pub line: [u64; 8],
    /// The words of the [`Cold`] line. Where there was no room for a row, the four-tuple instead: local
    /// and remote address, the ports as in a line, and the protocol.
    pub cold: [u64; 8],
}

const _: () = assert!(size_of::<Event>() == 160);

/// The number of a happening and of the state before, in one word.
#[inline(always)]
#[must_use]
pub const fn word(what: Happening, before: State) -> u32 {
    what as u32 | (before as u32) << 8
}

/// Copies the lines of a row. Of one that comes to its end this is called while its line is the caller's
/// own.
#[inline(always)]
pub fn copy<M: Memory + ?Sized>(memory: &M, index: u32, event: &mut Event) {
    if let Some(line) = memory.line(index) {
        event.line[0] = memory.load64::<0>(line);
        event.line[1] = memory.load64::<8>(line);
        event.line[2] = memory.load64::<16>(line);
        event.line[3] = memory.load64::<24>(line);
        event.line[4] = memory.load64::<32>(line);
        event.line[5] = memory.load64::<40>(line);
        event.line[6] = memory.load64::<48>(line);
        event.line[7] = memory.load64::<56>(line);
    }
    if let Some(cold) = memory.cold(index) {
        event.cold[0] = memory.load64::<0>(cold);
        event.cold[1] = memory.load64::<8>(cold);
        event.cold[2] = memory.load64::<16>(cold);
        event.cold[3] = memory.load64::<24>(cold);
        event.cold[4] = memory.load64::<32>(cold);
        event.cold[5] = memory.load64::<40>(cold);
        event.cold[6] = memory.load64::<48>(cold);
        event.cold[7] = memory.load64::<56>(cold);
    }
}

/// Writes that there was no room for the row of a four-tuple.
#[inline(always)]
pub fn copy_untracked(key: &ConnectionKey, event: &mut Event) {
    let ([a, b], [c, d]) = (key.local_address.words(), key.remote_address.words());
    event.cold[0] = a;
    event.cold[1] = b;
    event.cold[2] = c;
    event.cold[3] = d;
    event.cold[4] = key.local_port as u64 | (key.remote_port as u64) << 16;
    event.cold[5] = key.protocol as u64;
}

/// An event that was put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What happened.
    pub what: Happening,
    /// The state before.
    pub before: State,
    /// The four-tuple.
    pub key: ConnectionKey,
    /// The row, as it was then; `None` where there was no room for it.
    pub row: Option<Connection>,
}

impl Event {
    /// Puts an event together; `None` where the line was written anew while it was copied. `now` is the
    /// clock of the table at its ticks; a row that was silent for its lifetime has expired.
    #[must_use]
    pub fn read(&self, lifetimes: &[u32; State::SLOTS], now: u32) -> Option<Told> {
        let mut what = Happening::from_number(self.what as u8);
        let before = State::from_number((self.what >> 8) as u8);
        if matches!(what, Happening::Untracked) {
            return Some(Told {
                what,
                before,
                key: self.untracked(),
                row: None,
            });
        }
        let head = Head(self.head);
        let mut words = self.line;
        words[0] = head.with_occupancy(Occupancy::Live).0;
        let line: Line = zerocopy::try_transmute!(words).ok()?;
        let cold: Cold = zerocopy::transmute!(self.cold);
        let (key, row) = Connection::read(&line, &cold)?;
        if matches!(what, Happening::Closed)
            && since(row.last_seen, now) >= lifetimes[row.state as usize]
        {
            what = Happening::Expired;
        }
        Some(Told {
            what,
            before,
            key,
            row: Some(row),
        })
    }

    fn untracked(&self) -> ConnectionKey {
        let [a, b, c, d, ports, protocol, ..] = self.cold;
        ConnectionKey {
            local_address: Address::from_words([a, b]),
            remote_address: Address::from_words([c, d]),
            local_port: ports as u16,
            remote_port: (ports >> 16) as u16,
            protocol: Protocol::ALL[usize::from(protocol != 0)],
        }
    }
}
