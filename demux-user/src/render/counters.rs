//! Counters, one a row.

use serde::Serialize;

use super::list::{Column, Row, left, right};

/// What was counted on an interface under a verdict and a reason.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct CounterRow {
    /// The interface; `None` for packets of interfaces that have no entry.
    pub iface: Option<String>,
    /// Why.
    pub reason: &'static str,
    /// What happened; `None` for what is counted under its verdict elsewhere too.
    pub verdict: Option<&'static str>,
    /// Packets, or packets a second.
    pub packets: u64,
    /// Bytes, or bytes a second.
    pub bytes: u64,
}

impl Row for CounterRow {
    const NOUN: &'static str = "counters";
    const COLUMNS: &'static [Column] = &[
        left("IFACE"),
        left("VERDICT"),
        left("REASON"),
        right("PACKETS"),
        right("BYTES"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.iface.clone().unwrap_or_else(|| "-".into()),
            self.verdict.unwrap_or("-").into(),
            self.reason.into(),
            self.packets.to_string(),
            self.bytes.to_string(),
        ]
    }
}
