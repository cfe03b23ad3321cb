//! Groups of cases: what is in one is measured by turns and compared.

mod hot;

use crate::{Setting, report::Outcome};

/// Measures the cases of a group that are asked for.
pub(crate) type Group = fn(&Setting) -> Outcome;

/// All groups.
pub(crate) const ALL: &[Group] = &[hot::measure];
