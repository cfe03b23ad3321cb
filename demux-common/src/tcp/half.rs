//! What one side of a connection has said so far, and arithmetic modulo 2^32.

/// What one side has said: a word of the connection table.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Half {
    /// The sequence number behind everything that it has sent: its SND.NXT.
    pub next: u32,
    /// The highest acknowledgement number that it has sent: its RCV.NXT, as far as it said. Before
    /// the remote's first one, the number of this host's SYN: nothing is acknowledged.
    pub ack: u32,
}

impl Half {
    /// Of a side that was not seen.
    pub const UNKNOWN: Self = Self { next: 0, ack: 0 };

    /// Both numbers in one word, as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.next as u64 | (self.ack as u64) << 32
    }

    /// The numbers of a word.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self {
            next: word as u32,
            ack: (word >> 32) as u32,
        }
    }

    /// After another segment of the same side.
    #[inline(always)]
    #[must_use]
    pub(super) const fn after(self, end: u32, acknowledgement: u32) -> Self {
        Self {
            next: later(self.next, end),
            ack: later(self.ack, acknowledgement),
        }
    }
}

/// How far a segment of the remote may lie from what this host has acknowledged, and its
/// acknowledgement below what this host has sent. No receive window is known, because the scale is
/// told once and may have been missed; this is more than Linux gives a connection unless it is tuned
/// (tcp_rmem, 32 MiB since 6.16). A forged segment has to guess both numbers, and gains little:
/// only exact numbers end a connection or finish one side of it.
pub const WINDOW: u32 = 1 << 26;

/// Whether sequence number `a` comes after `b` (RFC 9293, section 3.4).
#[inline(always)]
#[must_use]
pub const fn is_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// Whether `number` lies within [`WINDOW`] before or after `middle`.
#[inline(always)]
pub(super) const fn is_near(number: u32, middle: u32) -> bool {
    number.wrapping_sub(middle).wrapping_add(WINDOW) <= 2 * WINDOW
}

/// Whether `number` lies from `first` to `last`.
#[inline(always)]
pub(super) const fn is_between(first: u32, number: u32, last: u32) -> bool {
    number.wrapping_sub(first) <= last.wrapping_sub(first)
}

/// The later of two numbers of one side. A number so far back that it cannot be a retransmission
/// shows that segments were missed, and counts.
#[inline(always)]
const fn later(old: u32, new: u32) -> u32 {
    if old.wrapping_sub(new) <= 2 * WINDOW {
        old
    } else {
        new
    }
}
