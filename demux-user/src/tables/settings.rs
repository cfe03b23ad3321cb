//! Whose state this is, the settings, the interfaces and their counters.

use demux_common::{
    config::{Config, Interface},
    counters::InterfaceCounters,
    layout::{Meta, map},
};

use super::Tables;
use crate::Result;

impl Tables {
    /// Whose state this is.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn meta(&self) -> Result<Meta> {
        self.array_entry(map::META, 0)
    }

    /// Writes whose state this is.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_meta(&self, meta: &Meta) -> Result<()> {
        self.update(map::META, &0u32, meta)
    }

    /// The settings of the instance.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn config(&self) -> Result<Config> {
        self.array_entry(map::CONFIG, 0)
    }

    /// Changes the settings of the instance; how long rows live follows from their timeouts.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_config(&self, config: &Config) -> Result<()> {
        let mut config = *config;
        config.renew_lifetimes();
        self.update(map::CONFIG, &0u32, &config)
    }

    /// The interfaces with an entry, by slot.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn interfaces(&self) -> Result<Vec<(u32, Interface)>> {
        let mut interfaces = self.array(map::INTERFACES)?;
        interfaces.retain(|(_, interface): &(u32, Interface)| interface.ifindex != 0);
        Ok(interfaces)
    }

    /// Writes the entry of an interface slot.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_interface(&self, slot: u32, interface: &Interface) -> Result<()> {
        self.update(map::INTERFACES, &slot, interface)
    }

    /// Frees the entry of an interface slot.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn clear_interface(&self, slot: u32) -> Result<()> {
        self.update(map::INTERFACES, &slot, &[0u8; size_of::<Interface>()])
    }

    /// The counters of every interface slot, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn counters(&self) -> Result<Vec<(u32, InterfaceCounters)>> {
        const WORDS: usize = size_of::<InterfaceCounters>() / 8;
        let sums = self.per_cpu_sums::<WORDS>(map::COUNTERS)?;
        Ok((0..)
            .zip(sums)
            .map(|(slot, words): (u32, [u64; WORDS])| (slot, zerocopy::transmute!(words)))
            .collect())
    }

    /// Sets the counters of an interface slot to zero.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn clear_counters(&self, slot: u32) -> Result<()> {
        self.clear_per_cpu(map::COUNTERS, slot)
    }
}
