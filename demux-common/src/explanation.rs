//! What the `explain` twin reports of one packet.

use zerocopy::TryFromBytes as _;

use crate::{
    binding::Target,
    decide::{Decision, PackedDecision},
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
    /// What would have happened.
    pub verdict: Verdict,
    /// Which step decided.
    pub stage: Stage,
    /// Where the packet would have gone.
    pub target: Target,
    /// Why, as the number of a [`Reason`].
    pub reason: u8,
    /// Index of the binding that decided, or owns the row that did; 0 for none.
    pub binding: u16,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<Explanation>() == 8);

/// The report is a packed decision, byte for byte.
const _: () = {
    let packed = Decision {
        verdict: Verdict::Drop,
        reason: Reason::Connection,
        stage: Stage::Binding,
        target: Target::Stack,
        binding: 0x1234,
    }
    .pack()
    .0
    .to_le_bytes();
    assert!(packed[0] == 1 && packed[1] == 2 && packed[2] == 0 && packed[3] == 14);
    assert!(packed[4] == 0x34 && packed[5] == 0x12 && packed[6] == 0 && packed[7] == 0);
};

impl Explanation {
    /// The reason; `None` where the number is none that this demux knows.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL.get(usize::from(self.reason)).copied()
    }
}

impl From<PackedDecision> for Explanation {
    fn from(decision: PackedDecision) -> Self {
        // Every packed decision came from a decision.
        Self::try_read_from_bytes(&decision.0.to_le_bytes()).expect("a packed decision")
    }
}
