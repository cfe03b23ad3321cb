//! Reserved ports, one a row.

use serde::Serialize;

use super::list::{Column, Row, left};
use crate::ports::Allocation;

/// A port that is reserved for a connection.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct AllocationRow {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// This host's end.
    pub local: String,
    /// The other end.
    pub remote: String,
}

impl AllocationRow {
    /// The row of an allocation.
    #[must_use]
    pub fn new(allocation: &Allocation) -> Self {
        Self {
            protocol: allocation.protocol.name(),
            local: allocation.local.to_string(),
            remote: allocation.remote.to_string(),
        }
    }
}

impl Row for AllocationRow {
    const NOUN: &'static str = "allocate";
    const COLUMNS: &'static [Column] = &[left("PROTO"), left("LOCAL"), left("REMOTE")];

    fn cells(&self) -> Vec<String> {
        vec![
            self.protocol.to_owned(),
            self.local.clone(),
            self.remote.clone(),
        ]
    }
}
