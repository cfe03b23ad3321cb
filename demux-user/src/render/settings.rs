//! Settings, one a row.

use serde::Serialize;

use super::list::{Column, Row, left};

/// A setting.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct SettingRow {
    /// The key that `demux set` takes.
    pub key: String,
    /// Its value, as `demux set` takes it.
    pub value: String,
}

impl Row for SettingRow {
    const NOUN: &'static str = "settings";
    const COLUMNS: &'static [Column] = &[left("KEY"), left("VALUE")];

    fn cells(&self) -> Vec<String> {
        vec![self.key.clone(), self.value.clone()]
    }
}
