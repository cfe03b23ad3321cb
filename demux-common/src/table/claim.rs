//! Entering and removing connections.

use super::{
    Memory, WINDOW,
    find::{Found, Probe, find_among},
    line::{Flags, Head, Line, Occupancy, Tally},
    update::write_cold,
};
use crate::{
    connection::{ConnectionKey, State, since},
    event::Happening,
    tcp::Half,
};

/// How often an entry is attempted anew because other connections of the same home were entered
/// meanwhile.
const ATTEMPTS: u32 = 4;

/// What a new connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct New {
    /// When its first packet was seen, in units of [`crate::clock`].
    pub now: u32,
    /// The configuration epoch for which `binding` was looked up.
    pub epoch: u32,
    /// What the remote has said.
    pub remote: Half,
    /// What this host has said.
    pub local: Half,
    /// Packets that arrived.
    pub rx_packets: u32,
    /// Bytes that arrived.
    pub rx_bytes: u32,
    /// Packets that left.
    pub tx_packets: u32,
    /// Bytes that left.
    pub tx_bytes: u32,
    /// Index of the binding that owns it; 0 for none.
    pub binding: u16,
    /// The state.
    pub state: State,
    /// Marks, direction and whether it is confirmed; protocol and family are those of the key.
    pub flags: Flags,
}

/// What became of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted<L> {
    /// It stands in a line that was empty.
    Entered(Found<L>),
    /// It stands in the line of one that had expired.
    OverExpired(Found<L>),
    /// It stands in the line of one that this host had not consented to.
    OverUnconfirmed(Found<L>),
    /// Somebody else has entered the same four-tuple meanwhile.
    Present(Found<L>),
    /// There is no room.
    Full,
}

/// A line of a window to take, in one word: how far from the home in the lowest byte, and above it
/// what makes the line fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Choice(pub u64);

/// What makes a line fit; the higher, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
enum Fitness {
    /// It has somebody's confirmed connection, or is being written.
    None = 0,
    /// Its connection is one that this host has not consented to.
    Unconfirmed = 1,
    /// Its connection has expired.
    Expired = 2,
    /// It is empty.
    Empty = 3,
}

impl Choice {
    /// Of a rank with the distance in the byte below it.
    #[inline(always)]
    const fn of(best: u64) -> Self {
        Self(best >> FITNESS << 8 | best & 0xff)
    }

    #[inline(always)]
    const fn hop(self) -> u32 {
        self.0 as u32 & (WINDOW - 1)
    }

    #[inline(always)]
    const fn fitness(self) -> Fitness {
        match self.0 >> 8 & 3 {
            3 => Fitness::Empty,
            2 => Fitness::Expired,
            1 => Fitness::Unconfirmed,
            _ => Fitness::None,
        }
    }
}

/// Enters a connection. `lifetimes` are, by the number of the state, how long a connection lives on
/// without a packet, in units of [`crate::clock`].
///
/// The caller has looked for the four-tuple and not found it, or found it expired.
#[inline(always)]
pub fn insert<M: Memory + ?Sized>(
    memory: &M,
    probe: &Probe,
    key: &ConnectionKey,
    new: &New,
    lifetimes: &[u32; State::SLOTS],
) -> Inserted<M::Line> {
    insert_as::<false, M>(memory, probe, key, new, lifetimes)
}

/// As [`insert`], and tells of a connection that has to go. Not for the allocator and the controller: with
/// it their programs are too much for the verifier of Linux 6.1.
#[inline(always)]
pub fn insert_telling<M: Memory + ?Sized>(
    memory: &M,
    probe: &Probe,
    key: &ConnectionKey,
    new: &New,
    lifetimes: &[u32; State::SLOTS],
) -> Inserted<M::Line> {
    insert_as::<true, M>(memory, probe, key, new, lifetimes)
}

#[inline(always)]
fn insert_as<const TELLS: bool, M: Memory + ?Sized>(
    memory: &M,
    probe: &Probe,
    key: &ConnectionKey,
    new: &New,
    lifetimes: &[u32; State::SLOTS],
) -> Inserted<M::Line> {
    let Some(home) = memory.line(probe.home) else {
        return Inserted::Full;
    };
    let Some((fitness, mine, old)) = claim(memory, probe, new, lifetimes) else {
        return Inserted::Full;
    };
    if TELLS && fitness != Fitness::Empty {
        // Its words are still there.
        let what = if fitness == Fitness::Unconfirmed {
            Happening::Evicted
        } else {
            Happening::Closed
        };
        memory.tell(what, mine.index, old, old.state());
    }
    write(memory, probe, key, new, &mine);

    let hop = mine.head.hop();
    for _ in 0..ATTEMPTS {
        let hops = memory.load32::<{ Line::HOPS }>(home);
        if let Some(found) = find_among(memory, probe, key, home, hops) {
            if is_expired(memory, found.line, found.head, new.now, lifetimes) {
                remove(memory, &found);
                continue;
            }
            give_back(memory, &mine);
            if fitness == Fitness::Unconfirmed {
                memory.displaced_in_vain();
            }
            return Inserted::Present(found);
        }
        let entered = (hops | 1 << hop).wrapping_add(1 << 16);
        if memory.exchange32::<{ Line::HOPS }>(home, hops, entered) {
            return match fitness {
                Fitness::Empty => Inserted::Entered(mine),
                Fitness::Expired => Inserted::OverExpired(mine),
                Fitness::Unconfirmed | Fitness::None => Inserted::OverUnconfirmed(mine),
            };
        }
    }
    give_back(memory, &mine);
    if fitness == Fitness::Unconfirmed {
        memory.displaced_in_vain();
    }
    Inserted::Full
}

/// Makes a line of the window ours: one that is empty, else one that has expired, else the oldest
/// that is not confirmed. Returns the head that it had before, too.
#[inline(always)]
fn claim<M: Memory + ?Sized>(
    memory: &M,
    probe: &Probe,
    new: &New,
    lifetimes: &[u32; State::SLOTS],
) -> Option<(Fitness, Found<M::Line>, Head)> {
    let mut unfit = 0;
    // Somebody may be faster at the line that was chosen; then there may be another one.
    for _ in 0..ATTEMPTS {
        let choice = memory.choose(probe.home, new.now, unfit, lifetimes);
        if choice.fitness() == Fitness::None {
            return None;
        }
        let hop = choice.hop();
        unfit |= 1 << hop;
        let index = probe.home.wrapping_add(hop);
        let line = memory.line(index)?;
        let old = Head(memory.load64::<{ Line::HEAD }>(line));
        let (fitness, _) = fitness(memory, line, old, new.now, lifetimes);
        // Where somebody else was faster, another line may be fitter by now.
        if fitness == Fitness::None
            || fitness < choice.fitness()
            || fitness != Fitness::Empty && !is_entered(memory, index, old.hop())
        {
            continue;
        }
        let flags = Flags(new.flags.0 | (probe.kind >> 16) as u8);
        let head = Head::new(Occupancy::Busy, old.generation().wrapping_add(1))
            .with_state(new.state)
            .with_flags(flags)
            .with_hop(hop)
            .with_binding(new.binding);
        if !memory.exchange64::<{ Line::HEAD }>(line, old.0, head.0) {
            continue;
        }
        if fitness != Fitness::Empty {
            leave_home(memory, index, old.hop());
        }
        return Some((fitness, Found { index, line, head }, old));
    }
    None
}

/// How many lines of a window are looked at under pressure before an unconfirmed one is taken.
const NARROW: u32 = 1;

/// How many connections are entered under pressure before the whole window is searched again.
const RELIEF: u32 = 63;

/// The line of a window that is fittest to be taken, apart from those whose bits are set in `unfit`:
/// an empty one, else one whose connection has expired, else that of the oldest unconfirmed one.
///
/// A flood fills the table with unconfirmed connections, and then every search for an empty line or
/// for the oldest connection would go through the whole window, sixteen lines of memory for a packet
/// that is worth nothing. So once such a search was in vain, the next few connections (`RELIEF`)
/// take the home itself (`NARROW`) if an unconfirmed one stands there: one line of memory.
#[inline(always)]
pub fn choose<M: Memory + ?Sized>(
    memory: &M,
    home: u32,
    now: u32,
    unfit: u32,
    lifetimes: &[u32; State::SLOTS],
) -> Choice {
    let pressure = memory.pressure();
    let mut best = 0;
    for hop in 0..WINDOW {
        if hop == NARROW && pressure != 0 && best != 0 {
            memory.set_pressure(pressure - 1);
            break;
        }
        best = memory.fitter(best, home, hop, now, unfit, lifetimes);
        if best >> FITNESS == Fitness::Empty as u64 {
            if hop >= NARROW && pressure != 0 {
                memory.set_pressure(0);
            }
            break;
        }
        if hop == WINDOW - 1 && best >> FITNESS == Fitness::Unconfirmed as u64 {
            memory.set_pressure(RELIEF);
        }
    }
    Choice::of(best)
}

/// Where the fitness stands in what [`fitter`] returns.
const FITNESS: u32 = 40;

/// The fitter of the best line so far and the one that stands `hop` lines from the home, as one
/// number: from the highest bit down the fitness, how long the connection there was silent, and in
/// the lowest byte the distance from the home. 0 stands for no line.
#[inline(always)]
pub fn fitter<M: Memory + ?Sized>(
    memory: &M,
    best: u64,
    home: u32,
    hop: u32,
    now: u32,
    unfit: u32,
    lifetimes: &[u32; State::SLOTS],
) -> u64 {
    if unfit >> (hop & (WINDOW - 1)) & 1 != 0 {
        return best;
    }
    let Some(line) = memory.line(home.wrapping_add(hop)) else {
        return best;
    };
    let head = Head(memory.load64::<{ Line::HEAD }>(line));
    let (fitness, idle) = fitness(memory, line, head, now, lifetimes);
    if fitness == Fitness::None {
        return best;
    }
    let this = (fitness as u64) << FITNESS | (idle as u64) << 8;
    // Of equals the one nearer to the home.
    if this > best | 0xff {
        this | hop as u64
    } else {
        best
    }
}

/// How fit a line with such a head is to be taken, and how long its connection was silent.
#[inline(always)]
fn fitness<M: Memory + ?Sized>(
    memory: &M,
    line: M::Line,
    head: Head,
    now: u32,
    lifetimes: &[u32; State::SLOTS],
) -> (Fitness, u32) {
    if head.is(Occupancy::Empty) {
        return (Fitness::Empty, 0);
    }
    if !head.is(Occupancy::Live) {
        return (Fitness::None, 0);
    }
    let idle = since(memory.load32::<{ Line::LAST_SEEN }>(line), now);
    if is_over(idle, lifetimes, head) {
        (Fitness::Expired, idle)
    } else if head.is_confirmed() {
        (Fitness::None, 0)
    } else {
        (Fitness::Unconfirmed, idle)
    }
}

/// Writes a connection into a line that is ours, and makes the line live.
#[inline(always)]
fn write<M: Memory + ?Sized>(
    memory: &M,
    probe: &Probe,
    key: &ConnectionKey,
    new: &New,
    mine: &Found<M::Line>,
) {
    let (line, generation) = (mine.line, mine.head.generation());
    // The counters first: with their generation, nobody else's count can reach them any more.
    memory.store64::<{ Line::RX }>(line, Tally::word(generation, new.rx_packets, new.rx_bytes));
    memory.store64::<{ Line::TX }>(line, Tally::word(generation, new.tx_packets, new.tx_bytes));
    memory.store64::<{ Line::ADDRESSES }>(line, probe.addresses);
    memory.store32::<{ Line::PORTS }>(line, probe.ports);
    memory.store32::<{ Line::LAST_SEEN }>(line, new.now);
    memory.store32::<{ Line::EPOCH }>(line, new.epoch);
    memory.store64::<{ Line::REMOTE }>(line, new.remote.word());
    memory.store64::<{ Line::LOCAL }>(line, new.local.word());
    // An IPv4 connection that nobody has consented to does without its cold line until its second
    // packet: a flood of them shall touch one line each.
    if probe.is_v6() || mine.head.is_confirmed() {
        write_cold(memory, mine, key, new.now);
    }
    memory.store64::<{ Line::HEAD }>(line, mine.head.with_occupancy(Occupancy::Live).0);
}

/// Gives back a line that is ours and was not entered.
#[inline(always)]
fn give_back<M: Memory + ?Sized>(memory: &M, mine: &Found<M::Line>) {
    // Nobody takes a live line that no home names. But the sweep may have taken us for dead.
    let live = mine.head.with_occupancy(Occupancy::Live);
    let empty = Head::new(Occupancy::Empty, mine.head.generation());
    memory.exchange64::<{ Line::HEAD }>(mine.line, live.0, empty.0);
}

/// Removes a connection, unless its line has changed since it was found; returns whether it did.
#[inline(always)]
pub fn remove<M: Memory + ?Sized>(memory: &M, found: &Found<M::Line>) -> bool {
    let generation = found.head.generation().wrapping_add(1);
    let busy = Head::new(Occupancy::Busy, generation);
    if !memory.exchange64::<{ Line::HEAD }>(found.line, found.head.0, busy.0) {
        return false;
    }
    leave_home(memory, found.index, found.head.hop());
    memory.tell(
        Happening::Closed,
        found.index,
        found.head,
        found.head.state(),
    );
    let empty = Head::new(Occupancy::Empty, generation);
    memory.store64::<{ Line::HEAD }>(found.line, empty.0);
    true
}

/// Whether the line at an index is named by the hops of its home: else its writer is about to enter
/// it, and still relies on it.
#[inline(always)]
pub(super) fn is_entered<M: Memory + ?Sized>(memory: &M, index: u32, hop: u32) -> bool {
    match memory.line(index.wrapping_sub(hop)) {
        Some(home) => memory.load32::<{ Line::HOPS }>(home) >> hop & 1 != 0,
        None => false,
    }
}

/// Takes the line at an index out of the hops of its home.
#[inline(always)]
pub(super) fn leave_home<M: Memory + ?Sized>(memory: &M, index: u32, hop: u32) {
    if let Some(home) = memory.line(index.wrapping_sub(hop)) {
        memory.and32::<{ Line::HOPS }>(home, !(1 << hop));
    }
}

#[inline(always)]
fn is_over(idle: u32, lifetimes: &[u32; State::SLOTS], head: Head) -> bool {
    idle >= lifetimes[head.state() as usize & (State::SLOTS - 1)]
}

/// Whether the connection in a live line is absent at `now`.
#[inline(always)]
pub fn is_expired<M: Memory + ?Sized>(
    memory: &M,
    line: M::Line,
    head: Head,
    now: u32,
    lifetimes: &[u32; State::SLOTS],
) -> bool {
    let idle = since(memory.load32::<{ Line::LAST_SEEN }>(line), now);
    is_over(idle, lifetimes, head)
}
