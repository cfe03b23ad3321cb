//! CPUs and AF_XDP sockets that packets are handed to.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use demux_common::{
    layout::map,
    steering::{CpuList, XskSet, XskSocket},
};

use zerocopy::IntoBytes as _;

use super::{
    Tables,
    entries::{cannot_read, cannot_write},
};
use crate::{Result, bpf};

/// How many packets may wait for a CPU.
const CPU_QUEUE: u32 = 2048;

impl Tables {
    /// The CPUs of a binding.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn cpu_list(&self, binding: u16) -> Result<CpuList> {
        self.array_entry(map::CPU_LISTS, u32::from(binding))
    }

    /// The indexes of the bindings that have a list of CPUs.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn cpu_lists(&self) -> Result<Vec<u16>> {
        let mut lists: Vec<(u32, CpuList)> = self.array(map::CPU_LISTS)?;
        lists.retain(|(_, list)| list.count != 0);
        Ok(lists.into_iter().map(|(index, _)| index as u16).collect())
    }

    /// Writes the CPUs of a binding.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_cpu_list(&self, binding: u16, list: &CpuList) -> Result<()> {
        self.update(map::CPU_LISTS, &u32::from(binding), list)
    }

    /// The CPUs that packets can be handed to, and how many may wait for each.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn cpus(&self) -> Result<Vec<(u32, u32)>> {
        let mut cpus = Vec::new();
        for cpu in 0..self.max_cpus()? {
            let mut value = [0u32; 2];
            let found = bpf::map_lookup(
                self.map_fd(map::CPUS)?,
                &cpu.to_ne_bytes(),
                value.as_mut_bytes(),
            )
            .map_err(|source| cannot_read(map::CPUS, source))?;
            if found {
                cpus.push((cpu, value[0]));
            }
        }
        Ok(cpus)
    }

    /// Lets a CPU take packets: the kernel starts a thread there.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses it, as for a CPU that does not exist.
    pub fn add_cpu(&self, cpu: u16) -> Result<()> {
        let value = [CPU_QUEUE, 0];
        self.update(map::CPUS, &u32::from(cpu), &value)
    }

    /// Ends that. What waits is still handled.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn remove_cpu(&self, cpu: u16) -> Result<()> {
        self.delete(map::CPUS, &u32::from(cpu))
    }

    /// How many CPUs there is room for.
    ///
    /// # Errors
    ///
    /// Where the kernel does not say.
    pub fn max_cpus(&self) -> Result<u32> {
        Ok(self.info(map::CPUS)?.max_entries)
    }

    /// The sets of sockets that have a name, by index.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn xsk_sets(&self) -> Result<Vec<(u16, XskSet)>> {
        let mut sets: Vec<(u32, XskSet)> = self.array(map::XSK_SETS)?;
        sets.retain(|(_, set)| set.name[0] != 0);
        Ok(sets
            .into_iter()
            .map(|(index, set)| (index as u16, set))
            .collect())
    }

    /// The set of sockets at an index, in use or not.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn xsk_set(&self, index: u16) -> Result<XskSet> {
        self.array_entry(map::XSK_SETS, u32::from(index))
    }

    /// Writes a set of sockets.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_xsk_set(&self, index: u16, set: &XskSet) -> Result<()> {
        self.update(map::XSK_SETS, &u32::from(index), set)
    }

    /// How many sets of sockets there is room for, the unused one with index 0 included.
    ///
    /// # Errors
    ///
    /// Where the kernel does not say.
    pub fn max_xsk_sets(&self) -> Result<u32> {
        Ok(self.info(map::XSK_SETS)?.max_entries)
    }

    /// How many sockets there is room for.
    ///
    /// # Errors
    ///
    /// Where the kernel does not say.
    pub fn max_xsks(&self) -> Result<u32> {
        Ok(self.info(map::XSKS)?.max_entries)
    }

    /// Puts a socket into a slot, where packets reach it from now on. The kernel takes it out when its
    /// last descriptor is closed.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses it: it is none of AF_XDP, or has no memory for packets.
    pub fn publish_xsk(&self, slot: u16, socket: BorrowedFd<'_>) -> Result<()> {
        let value = socket.as_raw_fd() as u32;
        self.update(map::XSKS, &u32::from(slot), &value)
    }

    /// What is kept of the socket in a slot.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn xsk_socket(&self, slot: u16) -> Result<XskSocket> {
        self.array_entry(map::XSK_SOCKETS, u32::from(slot))
    }

    /// Keeps that.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_xsk_socket(&self, slot: u16, socket: &XskSocket) -> Result<()> {
        self.update(map::XSK_SOCKETS, &u32::from(slot), socket)
    }

    /// Takes the socket out of a slot, if there is one.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn withdraw_xsk(&self, slot: u16) -> Result<()> {
        let key = u32::from(slot).to_ne_bytes();
        match bpf::map_delete(self.map_fd(map::XSKS)?, &key) {
            Ok(_) => Ok(()),
            Err(source) if source.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            Err(source) => Err(cannot_write(map::XSKS, source)),
        }
    }
}
