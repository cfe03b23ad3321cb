//! Who listens to what the programs tell, and what was told.

use demux_common::{
    layout::map,
    listen::{Channel, Listener, ListenerCounts},
    trace::Selection,
};

use super::Tables;
use crate::Result;

impl Tables {
    /// Who listens to a channel.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn listener(&self, channel: Channel) -> Result<Listener> {
        self.array_entry(map::LISTENERS, channel as u32)
    }

    /// Writes who listens to a channel.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_listener(&self, channel: Channel, listener: &Listener) -> Result<()> {
        self.update(map::LISTENERS, &(channel as u32), listener)
    }

    /// What each CPU has told a channel.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn listener_counts(&self, channel: Channel) -> Result<Vec<ListenerCounts>> {
        self.per_cpu_entry(map::LISTENER_COUNTS, channel as u32)
    }

    /// Writes which packets are traced.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_selection(&self, selection: &Selection) -> Result<()> {
        self.update(map::SELECTION, &0u32, selection)
    }
}
