//! The connection table.

use demux_common::{
    connection::{Connection, ConnectionKey},
    layout::map,
};

use super::{
    Tables,
    entries::{cannot_read, decode},
};
use crate::{Result, bpf::BatchReader};

impl Tables {
    /// Calls `visit` with every row of the connection table, expired ones included, in batches;
    /// ends at the first error that `visit` returns.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read, and what `visit` returns.
    pub fn for_each_connection<F>(&self, mut visit: F) -> Result<()>
    where
        F: FnMut(ConnectionKey, Connection) -> Result<()>,
    {
        let name = map::CONNECTIONS;
        let mut reader = BatchReader::new(self.map_fd(name)?).map_err(|e| cannot_read(name, e))?;
        while let Some(batch) = reader.next_batch().map_err(|e| cannot_read(name, e))? {
            for (key, value) in batch.iter() {
                visit(decode(name, key)?, decode(name, value)?)?;
            }
        }
        Ok(())
    }

    /// Removes a row of the connection table.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn remove_connection(&self, key: &ConnectionKey) -> Result<()> {
        self.delete(map::CONNECTIONS, key)
    }
}
