//! What the `explain` twin reports of one packet.

use crate::{
    binding::Target,
    decide::Decision,
    reason::{Reason, Stage, Verdict},
};

/// The report, which the twin writes in front of the packet.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Explanation {
    /// Why.
    pub reason: Reason,
    /// Index of the binding that decided, or owns the row that did; 0 for none.
    pub binding: u16,
    /// What would have happened.
    pub verdict: Verdict,
    /// Which step decided.
    pub stage: Stage,
    /// Where the packet would have gone.
    pub target: Target,
    /// Zero.
    pub reserved: [u8; 3],
}

const _: () = assert!(size_of::<Explanation>() == 16);

impl From<Decision> for Explanation {
    #[inline(always)]
    fn from(decision: Decision) -> Self {
        let Decision {
            verdict,
            reason,
            stage,
            target,
            binding,
        } = decision;
        Self {
            verdict,
            reason,
            stage,
            target,
            binding,
            reserved: [0; 3],
        }
    }
}
