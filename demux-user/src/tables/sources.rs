//! From which address this host sends to a destination, as the datapath knows it.

use demux_common::{
    address::Address,
    layout::{LocalPrefix, map},
};

use super::Tables;
use crate::Result;

impl Tables {
    /// The destinations that the datapath knows, and what it knows of each: see
    /// [`demux_common::layout::Source`].
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn sources(&self) -> Result<Vec<(LocalPrefix, Address)>> {
        self.entries(map::SOURCES)
    }

    /// Enters a destination.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written or is full.
    pub fn set_source(&self, destination: &LocalPrefix, source: &Address) -> Result<()> {
        self.update(map::SOURCES, destination, source)
    }

    /// Removes a destination.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn remove_source(&self, destination: &LocalPrefix) -> Result<()> {
        self.delete(map::SOURCES, destination)
    }
}
