//! This host's own addresses, as the datapath knows them.

use demux_common::{
    address::Address,
    layout::{LocalPrefix, map},
};

use super::Tables;
use crate::Result;

impl Tables {
    /// The single addresses of this host that the datapath knows.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn locals(&self) -> Result<Vec<Address>> {
        let entries: Vec<(Address, u32)> = self.entries(map::LOCALS)?;
        Ok(entries.into_iter().map(|(address, _)| address).collect())
    }

    /// Enters an address of this host.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written or is full.
    pub fn add_local(&self, address: &Address) -> Result<()> {
        self.update(map::LOCALS, address, &1u32)
    }

    /// Removes an address that is no longer one of this host.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn remove_local(&self, address: &Address) -> Result<()> {
        self.delete(map::LOCALS, address)
    }

    /// The prefixes of this host that the datapath knows.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn local_prefixes(&self) -> Result<Vec<LocalPrefix>> {
        let entries: Vec<(LocalPrefix, u32)> = self.entries(map::LOCAL_PREFIXES)?;
        Ok(entries.into_iter().map(|(prefix, _)| prefix).collect())
    }

    /// Enters a prefix of this host.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written or is full.
    pub fn add_local_prefix(&self, prefix: &LocalPrefix) -> Result<()> {
        self.update(map::LOCAL_PREFIXES, prefix, &1u32)
    }

    /// Removes a prefix that is no longer one of this host.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn remove_local_prefix(&self, prefix: &LocalPrefix) -> Result<()> {
        self.delete(map::LOCAL_PREFIXES, prefix)
    }
}
