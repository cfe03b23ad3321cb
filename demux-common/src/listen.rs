//! Who listens to what the programs tell, until when, and what he missed.
//!
//! Two kinds of things are told, each by a ring buffer with one reader: what becomes of connections
//! ([`crate::event`]) and packets ([`crate::trace`]). Nothing is told while nobody listens: a listener
//! says in [`crate::config::Config`] until when he will, and says so again before that moment comes, so
//! that one who dies is forgotten.

use crate::clock::Clock;

/// What is listened to: an index of `LISTENERS` and `LISTENER_COUNTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Channel {
    /// What becomes of connections.
    Events = 0,
    /// Packets.
    Traces = 1,
}

impl Channel {
    /// How many there are.
    pub const COUNT: usize = 2;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Events, Self::Traces];

    /// The name that users read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Traces => "traces",
        }
    }
}

/// Who listens; read and written by user space only.
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
pub struct Listener {
    /// When the process was started, in clock ticks since boot.
    pub started: u64,
    /// The number of the process; 0 for nobody.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Listener>() == 16);

/// What one CPU has told a listener, and what it could not; and the allowance of a trace.
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
pub struct ListenerCounts {
    /// Records that were put into the ring.
    pub told: u64,
    /// Records that found it full.
    pub lost: u64,
    /// Records beyond the rate that was asked for.
    pub held_back: u64,
    /// The unit of [`crate::clock`] that `left` is for.
    pub unit: u32,
    /// Records that may still be told in that unit.
    pub left: u32,
}

const _: () = assert!(size_of::<ListenerCounts>() == 32);

/// A record of a ring buffer: something that may be all zero.
pub trait Record: zerocopy::FromZeros {}

impl Record for crate::event::Event {}
impl Record for crate::trace::Trace {}

/// Whether somebody listens until a moment of [`crate::clock`], which is 0 for nobody.
#[inline(always)]
#[must_use]
pub const fn is_heard(until: u32, clock: &Clock, ticks: u64) -> bool {
    until != 0 && (until.wrapping_sub(clock.at_ticks(ticks)) as i32) > 0
}

/// The moment `units` from now, until which somebody listens; never 0.
#[must_use]
pub const fn moment(now: u32, units: u32) -> u32 {
    match now.wrapping_add(units) {
        0 => 1,
        moment => moment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_heard_until_his_moment_comes() {
        let clock = Clock::new(0, 1 << 26);
        assert!(!is_heard(0, &clock, 0));
        assert!(is_heard(moment(10, 5), &clock, 14));
        assert!(!is_heard(moment(10, 5), &clock, 15));
        // The clock wraps, and the moment is never that of nobody.
        assert_eq!(moment(u32::MAX - 4, 5), 1);
        assert!(is_heard(
            moment(u32::MAX - 4, 5),
            &clock,
            u64::from(u32::MAX)
        ));
    }
}
