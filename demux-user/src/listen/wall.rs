//! From the clock of the programs to the time of day.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// How the two clocks stand to each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wall {
    /// What to add to CLOCK_MONOTONIC, in nanoseconds.
    offset: i128,
}

impl Wall {
    /// As they stand now.
    pub(super) fn now() -> Self {
        let real = Timestamp::now().as_nanosecond();
        let monotonic = clock_gettime(ClockId::Monotonic);
        let monotonic =
            i128::from(monotonic.tv_sec) * 1_000_000_000 + i128::from(monotonic.tv_nsec);
        Self {
            offset: real - monotonic,
        }
    }

    /// The time of day at a moment of CLOCK_MONOTONIC, to the microsecond.
    pub(super) fn at(self, monotonic_ns: u64) -> Timestamp {
        let real = i128::from(monotonic_ns) + self.offset;
        Timestamp::from_microsecond((real / 1000) as i64).unwrap_or_default()
    }
}
