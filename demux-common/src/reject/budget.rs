//! How many refusals a CPU may send: a token bucket.

/// Refusals a second that each CPU may send for long: as many as Linux sends ICMP errors by default
/// (`icmp_msgs_per_sec`).
pub const RATE: u64 = 1000;

/// Refusals that a CPU may send at once after it has sent none for long enough.
pub const BURST: u64 = 1000;

/// Credit that a refusal costs, in nanoseconds.
const COST: u64 = 1_000_000_000 / RATE;

/// The most credit that is kept.
const MOST: u64 = BURST * COST;

/// Longer times than this, in ticks, fill any budget; keeps the product below within 64 bits.
const LONG: u64 = 1 << 24;

/// How many refusals a CPU may still send, and since when.
///
/// Time is credit: a refusal costs a [`RATE`]th of a second. So nothing has to be divided, and no
/// part of a token is lost between two ticks. A budget of zeros is full, since ticks begin far from 0.
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
    /// What is left, in nanoseconds of credit.
    pub left: u64,
}

impl Budget {
    /// The budget at a tick, filled up by the time that has passed; a tick has `tick_ns` nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn filled(self, ticks: u64, tick_ns: u32) -> Self {
        let mut passed = ticks.wrapping_sub(self.filled_at);
        if passed > LONG {
            passed = LONG;
        }
        let mut left = self.left.saturating_add(passed * tick_ns as u64);
        if left > MOST {
            left = MOST;
        }
        Self {
            filled_at: ticks,
            left,
        }
    }

    /// The budget after one refusal; `None` where it allows none.
    #[inline(always)]
    #[must_use]
    pub const fn spent(self) -> Option<Self> {
        if self.left < COST {
            return None;
        }
        Some(Self {
            left: self.left - COST,
            ..self
        })
    }
}
