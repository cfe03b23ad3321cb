//! Giving back lines: of connections that have expired, and of writers that stopped half-way.

use super::{
    Memory, WINDOW,
    claim::{is_entered, is_expired, leave_home, remove},
    find::Found,
    line::{Head, Line, Occupancy},
};
use crate::connection::State;

/// What a line is to the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing to do.
    Kept,
    /// Its connection had expired, and was removed.
    Expired,
    /// Somebody is about to write it or to give it back, or stopped half-way. If its head is still
    /// this one after every program that runs now has ended, [`give_back`] may have it.
    Unreached(Head),
}

/// Looks at the line at an index, and removes its connection if that has expired.
#[inline(always)]
pub fn visit<M: Memory + ?Sized>(
    memory: &M,
    index: u32,
    now: u32,
    lifetimes: &[u32; State::SLOTS],
) -> Finding {
    let Some(line) = memory.line(index) else {
        return Finding::Kept;
    };
    let head = Head(memory.load64::<{ Line::HEAD }>(line));
    if head.is(Occupancy::Empty) {
        return Finding::Kept;
    }
    if !head.is(Occupancy::Live) || !is_entered(memory, index, head.hop()) {
        return Finding::Unreached(head);
    }
    if is_expired(memory, line, head, now, lifetimes)
        && remove(memory, &Found { index, line, head })
    {
        Finding::Expired
    } else {
        Finding::Kept
    }
}

/// Empties a line whose writer has died. To be called only after every program that ran when
/// [`visit`] found it has ended; returns whether it was still as found.
#[inline(always)]
pub fn give_back<M: Memory + ?Sized>(memory: &M, index: u32, head: Head) -> bool {
    let Some(line) = memory.line(index) else {
        return false;
    };
    if head.is(Occupancy::Live) && is_entered(memory, index, head.hop()) {
        return false;
    }
    let busy = Head::new(Occupancy::Busy, head.generation().wrapping_add(1));
    if !memory.exchange64::<{ Line::HEAD }>(line, head.0, busy.0) {
        return false;
    }
    // The dead may have taken the line from another connection without leaving that one's home.
    for hop in 0..WINDOW {
        leave_home(memory, index, hop);
    }
    let empty = Head::new(Occupancy::Empty, busy.generation());
    memory.store64::<{ Line::HEAD }>(line, empty.0);
    true
}
