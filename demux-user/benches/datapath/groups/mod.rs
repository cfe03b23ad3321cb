//! Groups of cases: what is in one is measured by turns and compared.

mod flood;
mod hot;
mod large;
mod refusals;

use crate::{Setting, report::Outcome};

/// Measures the cases of a group that are asked for.
pub(crate) type Group = fn(&Setting) -> Outcome;

/// All groups.
pub(crate) const ALL: &[Group] = &[
    hot::measure,
    flood::measure,
    large::measure,
    refusals::measure,
];
