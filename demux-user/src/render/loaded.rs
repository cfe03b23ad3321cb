//! What the commands that change something report to programs.

use serde::Serialize;

use super::list::{Column, Row, left, right};

/// An interface that is loaded now.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct LoadedRow {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// `native` or `generic`.
    pub mode: &'static str,
    /// Why not native, where that was to be tried.
    pub mode_reason: Option<String>,
    /// `tcx`, `clsact`, or `none` where what leaves is not seen.
    pub egress: &'static str,
    /// Why it is not seen, and what that costs.
    pub egress_note: Option<String>,
    /// Whether it was loaded before.
    pub already: bool,
    /// Connections that existed already and were entered; of all interfaces together.
    pub connections: u64,
    /// Why some of them are missing.
    pub connections_note: Option<String>,
    /// Bytes of memory that the instance takes.
    pub memory_bytes: u64,
}

impl Row for LoadedRow {
    const NOUN: &'static str = "load";
    const COLUMNS: &'static [Column] = &[left("IFACE"), right("INDEX"), left("MODE")];

    fn cells(&self) -> Vec<String> {
        vec![
            self.interface.clone(),
            self.ifindex.to_string(),
            self.mode.into(),
        ]
    }
}

/// The name of something that was made or removed.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct NameRow {
    /// The name.
    pub name: String,
}

impl Row for NameRow {
    const NOUN: &'static str = "names";
    const COLUMNS: &'static [Column] = &[left("NAME")];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}
