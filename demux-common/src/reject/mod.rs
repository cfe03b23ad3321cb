//! Refusals made at the driver: a TCP reset, or an ICMP port unreachable.

/// How many refusals a CPU may still send, and since when: see [`crate::reject`].
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
pub struct Budget {
    /// When it was last filled up, in the kernel's ticks.
    pub filled_at: u64,
    /// Replies left.
    pub left: u64,
}
