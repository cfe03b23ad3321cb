//! Changing what belongs to a live line.

use super::{
    Memory,
    find::Found,
    line::{Cold, Head, Line, Tally, stamp},
};
use crate::{connection::ConnectionKey, tcp::Half};

/// How often a change is attempted anew because somebody else changed the same word meanwhile.
const ATTEMPTS: u32 = 16;

/// What became of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It was counted.
    Yes,
    /// The line belongs to another connection by now.
    Gone,
    /// Others were faster every time.
    Contended,
}

/// Counts packets in the tally at `AT`, [`Line::RX`] or [`Line::TX`].
#[inline(always)]
pub fn count<const AT: usize, M: Memory + ?Sized>(
    memory: &M,
    found: &Found<M::Line>,
    packets: u32,
    bytes: u32,
) -> Recorded {
    for _ in 0..ATTEMPTS {
        let old = memory.load64::<AT>(found.line);
        if (old >> Tally::GENERATION) as u8 != found.head.generation() as u8 {
            return Recorded::Gone;
        }
        let (new, more_packets, more_bytes) = add(old, packets, bytes);
        if memory.exchange64::<AT>(found.line, old, new) {
            if more_packets | more_bytes != 0 {
                carry::<AT, M>(memory, found, more_packets, more_bytes);
            }
            return Recorded::Yes;
        }
    }
    Recorded::Contended
}

/// A tally before and after a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    old: u64,
    new: u64,
}

/// What counting in the tally at `AT` changes, if it carries nothing; `None` else, and where the
/// line belongs to another connection. Whoever has it knows that what was read of the line before
/// was of this connection.
#[inline(always)]
pub fn simple_count<const AT: usize, M: Memory + ?Sized>(
    memory: &M,
    line: M::Line,
    generation: u16,
    packets: u32,
    bytes: u32,
) -> Option<Counted> {
    let old = memory.load64::<AT>(line);
    let new = old
        .wrapping_add(u64::from(packets) << Tally::PACKETS)
        .wrapping_add(u64::from(bytes));
    // The generation is still the line's, and no carry has changed it or the packets.
    let is_simple = (old >> Tally::GENERATION) as u8 == generation as u8
        && (new ^ old) >> Tally::GENERATION == 0
        && old as u32 <= u32::MAX - bytes;
    is_simple.then_some(Counted { old, new })
}

/// Counts, unless somebody else did meanwhile; returns whether it did.
#[inline(always)]
pub fn put_count<const AT: usize, M: Memory + ?Sized>(
    memory: &M,
    line: M::Line,
    counted: Counted,
) -> bool {
    memory.exchange64::<AT>(line, counted.old, counted.new)
}

/// The tally after more was counted, and what did not fit: packets in units of 2^24, bytes in units
/// of 2^32.
#[inline(always)]
const fn add(old: u64, packets: u32, bytes: u32) -> (u64, u32, u32) {
    let all_bytes = old as u32 as u64 + bytes as u64;
    let all_packets = ((old & Tally::PACKETS_MASK) >> Tally::PACKETS) + packets as u64;
    let new = old & !(Tally::PACKETS_MASK | u32::MAX as u64)
        | (all_packets << Tally::PACKETS) & Tally::PACKETS_MASK
        | all_bytes & u32::MAX as u64;
    (new, (all_packets >> 24) as u32, (all_bytes >> 32) as u32)
}

#[inline(always)]
fn carry<const AT: usize, M: Memory + ?Sized>(
    memory: &M,
    found: &Found<M::Line>,
    packets: u32,
    bytes: u32,
) {
    let Some(cold) = memory.cold(found.index) else {
        return;
    };
    if memory.load64::<{ Cold::GENERATION }>(cold) as u32 != stamp(found.head.generation()) {
        return;
    }
    if AT == Line::RX {
        memory.add32::<{ Cold::RX }>(cold, packets);
        memory.add32::<{ Cold::RX + 4 }>(cold, bytes);
    } else {
        memory.add32::<{ Cold::TX }>(cold, packets);
        memory.add32::<{ Cold::TX + 4 }>(cold, bytes);
    }
}

/// What one side has said: `AT` is [`Line::REMOTE`] or [`Line::LOCAL`].
#[inline(always)]
pub fn half<const AT: usize, M: Memory + ?Sized>(memory: &M, line: M::Line) -> Half {
    Half::from_word(memory.load64::<AT>(line))
}

/// The head of a line, as it is now.
#[inline(always)]
pub fn head<M: Memory + ?Sized>(memory: &M, line: M::Line) -> Head {
    Head(memory.load64::<{ Line::HEAD }>(line))
}

/// When a packet last proved the connection alive.
#[inline(always)]
pub fn last_seen<M: Memory + ?Sized>(memory: &M, line: M::Line) -> u32 {
    memory.load32::<{ Line::LAST_SEEN }>(line)
}

/// The configuration epoch for which the binding in the head was looked up.
#[inline(always)]
pub fn epoch<M: Memory + ?Sized>(memory: &M, line: M::Line) -> u32 {
    memory.load32::<{ Line::EPOCH }>(line)
}

/// Writes `new` where `old` stands as what one side has said: `AT` is [`Line::REMOTE`] or
/// [`Line::LOCAL`]. Returns whether it did.
#[inline(always)]
pub fn put_half<const AT: usize, M: Memory + ?Sized>(
    memory: &M,
    line: M::Line,
    old: u64,
    new: u64,
) -> bool {
    old == new || memory.exchange64::<AT>(line, old, new)
}

/// Writes `new` where `old` stands as the head of a line. Returns whether it did.
#[inline(always)]
pub fn change_head<M: Memory + ?Sized>(memory: &M, line: M::Line, old: Head, new: Head) -> bool {
    old == new || memory.exchange64::<{ Line::HEAD }>(line, old.0, new.0)
}

/// Notes that the connection is alive. A line that has gone to another connection is alive too.
#[inline(always)]
pub fn touch<M: Memory + ?Sized>(memory: &M, line: M::Line, now: u32) {
    if memory.load32::<{ Line::LAST_SEEN }>(line) != now {
        memory.store32::<{ Line::LAST_SEEN }>(line, now);
    }
}

/// Notes the epoch for which the binding in the head was looked up.
#[inline(always)]
pub fn put_epoch<M: Memory + ?Sized>(memory: &M, line: M::Line, epoch: u32) {
    if memory.load32::<{ Line::EPOCH }>(line) != epoch {
        memory.store32::<{ Line::EPOCH }>(line, epoch);
    }
}

/// Whether the cold line was written for this connection.
#[inline(always)]
pub fn has_cold<M: Memory + ?Sized>(memory: &M, found: &Found<M::Line>) -> bool {
    match memory.cold(found.index) {
        Some(cold) => {
            memory.load64::<{ Cold::GENERATION }>(cold) as u32 == stamp(found.head.generation())
        }
        None => false,
    }
}

/// Writes the cold line of a connection that did without one since it was made at `created`.
///
/// The line may be taken from it meanwhile. So nothing is written but over what stood there while
/// the line was still its own; where that fails, its next packet tries again.
#[inline(always)]
pub fn add_cold<M: Memory + ?Sized>(memory: &M, found: &Found<M::Line>, created: u32) {
    let Some(cold) = memory.cold(found.index) else {
        return;
    };
    let stamp = stamp(found.head.generation());
    let old = memory.load64::<{ Cold::GENERATION }>(cold);
    let begun = memory.load32::<{ Cold::BEGUN }>(cold);
    if old as u32 == stamp
        || head(memory, found.line).generation() != found.head.generation()
        || !memory.exchange32::<{ Cold::BEGUN }>(cold, begun, stamp)
    {
        return;
    }
    clear_carries(memory, cold);
    memory.exchange64::<{ Cold::GENERATION }>(cold, old, finished(stamp, created));
}

/// Writes the cold line of a connection whose line is ours.
#[inline(always)]
pub(super) fn write_cold<M: Memory + ?Sized>(
    memory: &M,
    found: &Found<M::Line>,
    key: &ConnectionKey,
    created: u32,
) {
    let Some(cold) = memory.cold(found.index) else {
        return;
    };
    let stamp = stamp(found.head.generation());
    memory.store32::<{ Cold::BEGUN }>(cold, stamp);
    if !key.local_address.is_mapped() {
        let [a, b] = key.local_address.words();
        let [c, d] = key.remote_address.words();
        memory.store64::<{ Cold::LOCAL }>(cold, a);
        memory.store64::<{ Cold::LOCAL + 8 }>(cold, b);
        memory.store64::<{ Cold::REMOTE }>(cold, c);
        memory.store64::<{ Cold::REMOTE + 8 }>(cold, d);
    }
    clear_carries(memory, cold);
    memory.store64::<{ Cold::GENERATION }>(cold, finished(stamp, created));
}

/// [`Cold::generation`] and [`Cold::created`], one word.
#[inline(always)]
const fn finished(stamp: u32, created: u32) -> u64 {
    stamp as u64 | (created as u64) << 32
}

#[inline(always)]
fn clear_carries<M: Memory + ?Sized>(memory: &M, cold: M::Line) {
    memory.store32::<{ Cold::RX }>(cold, 0);
    memory.store32::<{ Cold::RX + 4 }>(cold, 0);
    memory.store32::<{ Cold::TX }>(cold, 0);
    memory.store32::<{ Cold::TX + 4 }>(cold, 0);
}
