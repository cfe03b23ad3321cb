//! Bindings, one a row.

use std::borrow::Cow;

use serde::Serialize;

use super::list::{Column, Row, left, right};

/// A binding with what was counted for it.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct BindingRow {
    /// Its name.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its pattern of local endpoints, as users write it.
    pub local: String,
    /// The device it is bound to.
    pub dev: Option<String>,
    /// Where its packets go.
    pub target: Cow<'static, str>,
    /// What becomes of what the target cannot take: `drop` or `stack`.
    pub fallback: Option<&'static str>,
    /// What it was made with, such as `reuse-addr`.
    pub flags: Vec<&'static str>,
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Rows of the connection table that it owns.
    pub connections: u64,
}

impl Row for BindingRow {
    const NOUN: &'static str = "bindings";
    const COLUMNS: &'static [Column] = &[
        left("NAME"),
        left("PROTO"),
        left("LOCAL"),
        left("DEV"),
        left("TARGET"),
        left("FLAGS"),
        right("PACKETS"),
        right("BYTES"),
        right("CONNECTIONS"),
    ];

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: String| if text.is_empty() { "-".into() } else { text };
        vec![
            self.name.clone(),
            self.protocol.into(),
            self.local.clone(),
            or_dash(self.dev.clone().unwrap_or_default()),
            self.target.to_string(),
            or_dash(self.flags.join(",")),
            self.packets.to_string(),
            self.bytes.to_string(),
            self.connections.to_string(),
        ]
    }
}
