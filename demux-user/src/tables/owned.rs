//! The endpoints that processes may not bind.

use demux_common::{
    layout::map,
    owned::{Owned, OwnedKey},
};

use super::Tables;
use crate::Result;

impl Tables {
    /// The endpoints that are owned, in no order.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn owned(&self) -> Result<Vec<(OwnedKey, Owned)>> {
        self.entries(map::OWNED_PORTS)
    }

    /// Enters or replaces the endpoint at a place.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written or is full.
    pub fn set_owned(&self, key: &OwnedKey, owned: &Owned) -> Result<()> {
        self.update(map::OWNED_PORTS, key, owned)
    }

    /// Removes the endpoint at a place.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn remove_owned(&self, key: &OwnedKey) -> Result<()> {
        self.delete(map::OWNED_PORTS, key)
    }
}
