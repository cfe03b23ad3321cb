//! What users and programs read: lists as tables, as JSON documents, or as JSON lines.
//!
//! Everything here writes to a writer it is given and reads no map: rows come in finished.

mod allocations;
mod bindings;
mod checks;
mod connections;
mod counters;
mod error;
mod events;
mod explanation;
mod findings;
mod json;
mod killed;
mod list;
mod loaded;
mod maps;
mod ports;
mod record;
mod settings;
mod status;
mod table;
mod text;
mod top;
mod traces;
mod units;
mod upgraded;
mod xsks;

pub use self::{
    allocations::AllocationRow,
    bindings::BindingRow,
    checks::{CheckRow, write_checks},
    connections::{ConnectionRow, DifferenceRow},
    counters::CounterRow,
    error::{ErrorView, write_error},
    events::EventView,
    explanation::{ExplanationRow, write_explanation},
    findings::{FindingRow, write_findings},
    killed::KilledRow,
    list::{Column, List, Row, left, right},
    loaded::{LoadedRow, NameRow},
    maps::MapRow,
    ports::PortRow,
    record::{Record, records},
    settings::SettingRow,
    status::{InterfaceStatus, Status, write_status},
    text::printable,
    top::{draw_top, write_top_document, write_top_text},
    traces::TraceView,
    units::{build_name, bytes, milliseconds},
    upgraded::UpgradeRow,
    xsks::XskRow,
};

/// How output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns for people.
    Table {
        /// Whether the first line names the columns.
        header: bool,
        /// Whether terminal colours are wanted.
        styled: bool,
    },
    /// One JSON document.
    Json {
        /// Whether it is spread over lines.
        pretty: bool,
    },
    /// One JSON object a line.
    JsonLines,
}

impl Format {
    /// Whether programs read it.
    #[must_use]
    pub fn is_json(self) -> bool {
        !matches!(self, Self::Table { .. })
    }
}
