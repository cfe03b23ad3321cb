//! The clock that the datapath reads.

use rustix::time::{ClockId, clock_gettime};

/// The coarse monotonic clock in nanoseconds: what `bpf_ktime_get_coarse_ns` returns.
#[must_use]
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    // Neither is negative on this clock.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
