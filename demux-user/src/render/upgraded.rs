//! What an upgrade reports to programs.

use serde::Serialize;

use super::list::{Column, Row, left, right};

/// What came of an upgrade.
#[derive(Clone, Debug, Serialize)]
pub struct UpgradeRow {
    /// Whether programs were replaced.
    pub changed: bool,
    /// The build of the programs that ran before, in hexadecimal; `null` where they were of several.
    pub before: Option<String>,
    /// The build of those that run now.
    pub build: String,
    /// The names of the programs that were loaded.
    pub programs: Vec<&'static str>,
    /// How many links and filters have another program.
    pub places: u64,
    /// What could not be replaced, and why.
    pub note: Option<String>,
}

impl Row for UpgradeRow {
    const NOUN: &'static str = "upgrade";
    const COLUMNS: &'static [Column] = &[left("BUILD"), right("PLACES")];

    fn cells(&self) -> Vec<String> {
        vec![self.build.clone(), self.places.to_string()]
    }
}
