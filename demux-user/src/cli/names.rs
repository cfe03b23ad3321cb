//! Names of interfaces, which may be renamed or moved away while demux knows them by index.

use std::collections::HashMap;

use crate::{Result, interface};

/// The names of the interfaces of the present namespace.
#[derive(Debug)]
pub(super) struct Names(HashMap<u32, String>);

impl Names {
    pub(super) fn read() -> Result<Self> {
        Ok(Self(
            interface::all()?
                .into_iter()
                .map(|interface| (interface.index, interface.name))
                .collect(),
        ))
    }

    pub(super) fn get(&self, ifindex: u32) -> Option<&str> {
        self.0.get(&ifindex).map(String::as_str)
    }

    /// The name, or the index where there is none.
    pub(super) fn show(&self, ifindex: u32) -> String {
        self.get(ifindex)
            .map_or_else(|| format!("#{ifindex}"), str::to_owned)
    }
}
