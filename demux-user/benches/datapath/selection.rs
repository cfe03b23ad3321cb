//! Which cases are measured.

use crate::targets::TARGETS;

/// The cases that a user has asked for, and what they are compared with.
#[derive(Debug)]
pub(crate) struct Selection {
    filter: Option<String>,
}

impl Selection {
    pub(crate) fn new(filter: Option<String>) -> Self {
        Self { filter }
    }

    /// Whether a case is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names(name)
            || TARGETS
                .iter()
                .any(|target| target.reference() == Some(name) && self.names(target.case))
    }

    /// Whether any of these cases is to be measured.
    pub(crate) fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    fn names(&self, name: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| name.contains(filter.as_str()))
    }
}
