//! The clocks that the datapath reads.

use demux_common::clock::Clock;
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

use crate::{Result, tables::Control};

/// The coarse monotonic clock in nanoseconds: what `bpf_ktime_get_coarse_ns` returns.
#[must_use]
pub fn now() -> u64 {
    nanoseconds(clock_gettime(ClockId::MonotonicCoarse))
}

/// Nanoseconds of one tick of the kernel: the resolution of its coarse clocks.
#[must_use]
pub fn tick_ns() -> u32 {
    nanoseconds(clock_getres(ClockId::MonotonicCoarse)) as u32
}

/// The clock of the connection table on this machine.
///
/// # Errors
///
/// Where the program that reads the tick counter cannot be run.
pub fn read(control: &Control) -> Result<Clock> {
    let tick_ns = tick_ns();
    // A tick that falls between the two readings would put the clock off by one.
    let mut before = now();
    loop {
        let ticks = control.ticks()?;
        let after = now();
        if before == after {
            let passed = before / u64::from(tick_ns);
            return Ok(Clock::new(ticks.wrapping_sub(passed), tick_ns));
        }
        before = after;
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    // Neither is negative on these clocks.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
