//! Per-CPU counters of an interface.

use crate::decide::PackedDecision;
use crate::reason::{Count, REASON_SLOTS, Reason, ReasonCounts, Verdict};

/// What was counted on one interface by one CPU.
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
pub struct InterfaceCounters {
    /// Packets that went up the stack.
    pub pass: ReasonCounts,
    /// Packets that ended at the driver.
    pub drop: ReasonCounts,
    /// Packets that were refused with an answer.
    pub reject: ReasonCounts,
    /// Packets that went to another CPU or to an AF_XDP socket.
    pub redirect: ReasonCounts,
    /// Packets that would have made a row of the connection table, had there been room.
    /// They are counted under their verdict too.
    pub untracked: Count,
}

const _: () = assert!(size_of::<ReasonCounts>() == REASON_SLOTS * size_of::<Count>());
const _: () = assert!(Reason::ALL.len() <= REASON_SLOTS);
const _: () =
    assert!(size_of::<InterfaceCounters>() == (4 * REASON_SLOTS + 1) * size_of::<Count>());

impl InterfaceCounters {
    /// The position of a counter within the structure, in units of [`Count`]; always below 128.
    #[inline(always)]
    #[must_use]
    pub const fn index(verdict: Verdict, reason: Reason) -> usize {
        ((verdict as usize) & 3) * REASON_SLOTS + ((reason as usize) & (REASON_SLOTS - 1))
    }

    /// As [`InterfaceCounters::index`], by a packed decision.
    #[inline(always)]
    #[must_use]
    pub const fn index_of(decision: PackedDecision) -> usize {
        decision.verdict_number() * REASON_SLOTS + decision.reason_number()
    }

    /// The counter of one verdict and reason.
    #[must_use]
    pub fn get(&self, verdict: Verdict, reason: Reason) -> Count {
        let counts: &[Count; 4 * REASON_SLOTS + 1] = zerocopy::transmute_ref!(self);
        counts[Self::index(verdict, reason)]
    }

    /// Counts one packet of `bytes` bytes.
    pub fn add(&mut self, verdict: Verdict, reason: Reason, bytes: u64) {
        let counts: &mut [Count; 4 * REASON_SLOTS + 1] = zerocopy::transmute_mut!(self);
        let count = &mut counts[Self::index(verdict, reason)];
        count.packets += 1;
        count.bytes += bytes;
    }
}

/// What happened in the connection table, as counted by one CPU.
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
pub struct TableCounters {
    /// Rows that were made.
    pub entered: u64,
    /// Those of them in the line of a row that had expired.
    pub over_expired: u64,
    /// Rows that this host had not consented to, and that had to go for another one.
    pub over_unconfirmed: u64,
    /// Packets that would have made a row, had there been room.
    pub untracked: u64,
    /// Rows that ended: by a reset, by the last acknowledgement, or because their binding was
    /// changed. Rows that expire are not among them.
    pub ended: u64,
    /// Not a counter: see [`crate::table::Memory::pressure`].
    pub pressure: u64,
}
