//! The settings of the port allocator, and its sets of ports.

use std::sync::atomic::Ordering;

use demux_common::{
    layout::map,
    ports::{Barred, Ephemeral, PERTURBATIONS, SET_WORDS},
    protocol::Protocol,
};

use super::Tables;
use crate::{Error, Result, bpf};

/// A set of ports, 64 to a word.
pub type PortSet = [u64; SET_WORDS];

impl Tables {
    /// The settings of the allocator.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn ephemeral(&self) -> Result<Ephemeral> {
        self.array_entry(map::EPHEMERAL, 0)
    }

    /// Changes the settings of the allocator. Its counters, which move on meanwhile, may be set back
    /// by what they have moved.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_ephemeral(&self, settings: &Ephemeral) -> Result<()> {
        self.update(map::EPHEMERAL, &0u32, settings)
    }

    /// Sets every counter of the double-hash algorithm.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_perturbation(&self, counters: &[u32; PERTURBATIONS]) -> Result<()> {
        let entries: Vec<(u32, u32)> = (0..).zip(counters.iter().copied()).collect();
        self.update_batch(map::PERTURBATION, &entries)
    }

    /// The ports that are barred for a reason.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn barred(&self, why: Barred, protocol: Protocol) -> Result<PortSet> {
        let first = why.offset(protocol) as usize;
        let mut set = [0; SET_WORDS];
        let words: Vec<(u32, u64)> = match self.barred_memory() {
            Ok(memory) => {
                let words = &memory.words()[first..first + SET_WORDS];
                for (to, from) in set.iter_mut().zip(words) {
                    *to = from.load(Ordering::Acquire);
                }
                return Ok(set);
            }
            // A read-only descriptor cannot be mapped.
            Err(_) => self.array(map::BARRED_PORTS)?,
        };
        for (to, (_, from)) in set.iter_mut().zip(words.into_iter().skip(first)) {
            *to = from;
        }
        Ok(set)
    }

    /// Bars ports for a reason, and no others for that reason.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_barred(&self, why: Barred, protocol: Protocol, set: &PortSet) -> Result<()> {
        let first = why.offset(protocol) as usize;
        let memory = self.barred_memory()?;
        for (to, from) in memory.words()[first..first + SET_WORDS].iter().zip(set) {
            if to.load(Ordering::Acquire) != *from {
                to.store(*from, Ordering::Release);
            }
        }
        Ok(())
    }

    fn barred_memory(&self) -> Result<bpf::MappedWords> {
        bpf::MappedWords::new(self.map_fd(map::BARRED_PORTS)?, Barred::WORDS)
            .map_err(|source| Error::io(format!("map the map {}", map::BARRED_PORTS), source))
    }
}
