//! The control groups of `demux exec`.

use demux_common::{
    layout::map,
    ports::{Algorithm, ExecCgroup},
};

use super::Tables;
use crate::Result;

impl Tables {
    /// The ids of the control groups whose connections take their source ports from the allocator by
    /// an algorithm of their own, with what is set for each.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn exec_groups(&self) -> Result<Vec<(u64, ExecCgroup)>> {
        self.entries(map::EXEC_CGROUPS)
    }

    /// Sets the algorithm of a control group.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written or is full.
    pub fn set_exec_group(&self, id: u64, algorithm: Algorithm) -> Result<()> {
        let group = ExecCgroup {
            algorithm,
            reserved: [0; 7],
        };
        self.update(map::EXEC_CGROUPS, &id, &group)
    }

    /// Forgets a control group; one that is unknown is no error.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn remove_exec_group(&self, id: u64) -> Result<()> {
        self.delete(map::EXEC_CGROUPS, &id)
    }
}
