//! The clock of the connection table: 32 bits of the kernel's tick counter.
//!
//! Reading the tick counter (`jiffies`) costs the datapath next to nothing. It advances with
//! `CLOCK_MONOTONIC`, one tick every [`Clock::tick_ns`] nanoseconds, so whoever cannot read it can
//! compute it. The table counts in units of 2^[`Clock::shift`] ticks, about 64 milliseconds: in
//! 32 bits they wrap after eight years and more, and times are compared modulo 2^32.

use crate::connection::{State, Timeouts};

/// The aim for the length of a unit: at most 2^26 nanoseconds.
const UNIT_NS: u64 = 1 << 26;

/// How times of the connection table are read.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Clock {
    /// What the tick counter showed when `CLOCK_MONOTONIC` was 0.
    pub ticks_at_zero: u64,
    /// Nanoseconds of a tick.
    pub tick_ns: u32,
    /// The binary logarithm of the ticks of a unit.
    pub shift: u32,
}

impl Clock {
    /// The clock of a machine with such ticks.
    #[must_use]
    pub const fn new(ticks_at_zero: u64, tick_ns: u32) -> Self {
        let mut shift = 0;
        while (tick_ns as u64) << (shift + 1) <= UNIT_NS {
            shift += 1;
        }
        Self {
            ticks_at_zero,
            tick_ns,
            shift,
        }
    }

    /// The time that the tick counter shows.
    #[inline(always)]
    #[must_use]
    pub const fn at_ticks(&self, ticks: u64) -> u32 {
        (ticks >> (self.shift & 63)) as u32
    }

    /// The time at a moment of `CLOCK_MONOTONIC`, in nanoseconds.
    #[must_use]
    pub const fn at(&self, monotonic_ns: u64) -> u32 {
        let tick_ns = if self.tick_ns == 0 { 1 } else { self.tick_ns };
        self.at_ticks(
            self.ticks_at_zero
                .wrapping_add(monotonic_ns / tick_ns as u64),
        )
    }

    /// Nanoseconds of a unit.
    #[must_use]
    pub const fn unit_ns(&self) -> u64 {
        (self.tick_ns as u64) << (self.shift & 31)
    }

    /// How many units a row may be without a packet, for each state by its number.
    /// Never fewer than its seconds ask for.
    #[must_use]
    pub fn lifetimes(&self, timeouts: &Timeouts) -> [u32; State::SLOTS] {
        let mut lifetimes = [0; State::SLOTS];
        for &state in State::ALL {
            let ns = u64::from(timeouts.of(state)) * 1_000_000_000;
            let units = ns.div_ceil(self.unit_ns().max(1));
            lifetimes[state as usize] = units.clamp(1, MAX_LIFETIME) as u32;
        }
        lifetimes
    }
}

/// Beyond half of the clock's range a time would count as being in the future.
const MAX_LIFETIME: u64 = i32::MAX as u64;
