//! Maps, one a row.

use serde::Serialize;

use super::{
    bytes,
    list::{Column, Row, left, right},
};

/// A map and how full it is.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct MapRow {
    /// Its name.
    pub name: &'static str,
    /// The kernel's word for its type, such as `lru_hash`.
    pub r#type: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries it has room for.
    pub max_entries: u32,
    /// Entries in use.
    pub entries: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The kernel's id.
    pub id: u32,
    /// Where it is pinned.
    pub pin: String,
}

impl Row for MapRow {
    const NOUN: &'static str = "maps";
    const COLUMNS: &'static [Column] = &[
        left("NAME"),
        left("TYPE"),
        right("KEY"),
        right("VALUE"),
        right("MAX"),
        right("USED"),
        right("MEMORY"),
        left("PIN"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.into(),
            self.r#type.clone(),
            self.key_size.to_string(),
            self.value_size.to_string(),
            self.max_entries.to_string(),
            self.entries
                .map_or_else(|| "-".into(), |entries| entries.to_string()),
            bytes(self.memory_bytes),
            self.pin.clone(),
        ]
    }
}
