//! The flows that the benchmark of targets sends: one remote port each.

/// How many there are; a power of two.
pub(crate) const FLOWS: u32 = 64;

/// The remote port of the first.
pub(crate) const FIRST_PORT: u16 = 40_000;
