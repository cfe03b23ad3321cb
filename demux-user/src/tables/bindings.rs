//! Bindings, and the tables that packets are matched against.

use std::sync::atomic::Ordering;

use demux_common::{
    binding::{AddressKey, Binding, PortProfile, PortSlot, PrefixKey, PrefixMatch},
    layout::map,
    reason::Count,
};

use super::Tables;
use crate::{Result, bpf};

impl Tables {
    /// The packets of each binding, by index, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn binding_counts(&self) -> Result<Vec<Count>> {
        let sums = self.per_cpu_sums::<2>(map::BINDING_COUNTS)?;
        Ok(sums
            .into_iter()
            .map(|[packets, bytes]| Count { packets, bytes })
            .collect())
    }

    /// Sets the counters of a binding to zero.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn clear_binding_count(&self, index: u16) -> Result<()> {
        self.clear_per_cpu(map::BINDING_COUNTS, u32::from(index))
    }

    /// Sets the counters of bindings to zero.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn clear_binding_counts(&self, indexes: impl Iterator<Item = u16>) -> Result<()> {
        self.clear_all_per_cpu(map::BINDING_COUNTS, indexes.map(u32::from))
    }

    /// The bindings in use, by index.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn bindings(&self) -> Result<Vec<(u16, Binding)>> {
        let mut bindings: Vec<(u32, Binding)> = self.array(map::BINDINGS)?;
        bindings.retain(|(_, binding)| binding.created != 0);
        Ok(bindings
            .into_iter()
            .map(|(index, binding)| (index as u16, binding))
            .collect())
    }

    /// Every entry of a binding, free or not, by index.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn binding_entries(&self) -> Result<Vec<(u16, Binding)>> {
        let entries: Vec<(u32, Binding)> = self.array(map::BINDINGS)?;
        Ok(entries
            .into_iter()
            .map(|(index, binding)| (index as u16, binding))
            .collect())
    }

    /// The entry of a binding, free or not.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn binding(&self, index: u16) -> Result<Binding> {
        self.array_entry(map::BINDINGS, u32::from(index))
    }

    /// How many bindings there is room for.
    ///
    /// # Errors
    ///
    /// Where the kernel does not say.
    pub fn max_bindings(&self) -> Result<u32> {
        Ok(self.info(map::BINDINGS)?.max_entries - 1)
    }

    /// Writes a binding.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_binding(&self, index: u16, binding: &Binding) -> Result<()> {
        self.update(map::BINDINGS, &u32::from(index), binding)
    }

    /// Writes bindings, each given with its index, in few calls.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_bindings(&self, bindings: &[(u32, Binding)]) -> Result<()> {
        if bindings.is_empty() {
            return Ok(());
        }
        self.update_batch(map::BINDINGS, bindings)
    }

    /// Frees the entry of a binding, and keeps in it until which epoch its rows were steered:
    /// [`Binding::steered_until`].
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn clear_binding(&self, index: u16, steered_until: u32) -> Result<()> {
        let free = Binding {
            steered_until,
            ..Binding::FREE
        };
        self.set_binding(index, &free)
    }

    /// Until which epoch rows of an entry, free or not, were steered by a binding that has ended.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn steered_until(&self, index: u16) -> Result<u32> {
        Ok(self.binding(index)?.steered_until)
    }

    /// Every port slot, by its index.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn ports(&self) -> Result<Vec<PortSlot>> {
        // Reading the memory is a hundred times faster; a read-only descriptor has none to offer.
        if let Some(memory) = self.port_memory()? {
            return Ok(memory
                .read()
                .into_iter()
                .map(|word| zerocopy::transmute!(word))
                .collect());
        }
        Ok(self
            .array::<PortSlot>(map::PORTS)?
            .into_iter()
            .map(|(_, slot)| slot)
            .collect())
    }

    /// Writes port slots, each given with its index.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_ports(&self, slots: &[(u32, PortSlot)]) -> Result<()> {
        let Some(memory) = self.port_memory()? else {
            return self.update_batch(map::PORTS, slots);
        };
        for (index, slot) in slots {
            let word = &memory.words()[*index as usize];
            word.store(zerocopy::transmute!(*slot), Ordering::Release);
        }
        Ok(())
    }

    /// The memory of the port slots, where it can be mapped.
    fn port_memory(&self) -> Result<Option<bpf::MappedWords>> {
        Ok(bpf::MappedWords::new(self.map_fd(map::PORTS)?, PortSlot::COUNT).ok())
    }

    /// The port profile with an index.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn port_profile(&self, index: u16) -> Result<PortProfile> {
        self.array_entry(map::PORT_PROFILES, index.into())
    }

    /// How many port profiles there is room for, the unused one with index 0 included.
    ///
    /// # Errors
    ///
    /// Where the kernel does not say.
    pub fn max_port_profiles(&self) -> Result<u32> {
        Ok(self.info(map::PORT_PROFILES)?.max_entries)
    }

    /// Writes port profiles, each given with its index.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_port_profiles(&self, profiles: &[(u32, PortProfile)]) -> Result<()> {
        self.update_batch(map::PORT_PROFILES, profiles)
    }

    /// The bindings of exact addresses and devices.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn addresses(&self) -> Result<Vec<(AddressKey, u32)>> {
        self.entries(map::ADDRESSES)
    }

    /// Enters or replaces the binding of an address.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_address(&self, key: &AddressKey, binding: u16) -> Result<()> {
        self.update(map::ADDRESSES, key, &u32::from(binding))
    }

    /// Removes the binding of an address.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn remove_address(&self, key: &AddressKey) -> Result<()> {
        self.delete(map::ADDRESSES, key)
    }

    /// The bindings of prefixes.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn prefixes(&self) -> Result<Vec<(PrefixKey, PrefixMatch)>> {
        self.entries(map::PREFIXES)
    }

    /// Enters or replaces the binding of a prefix.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_prefix(&self, key: &PrefixKey, found: PrefixMatch) -> Result<()> {
        self.update(map::PREFIXES, key, &found)
    }

    /// Removes the binding of a prefix.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn remove_prefix(&self, key: &PrefixKey) -> Result<()> {
        self.delete(map::PREFIXES, key)
    }
}
