//! The maps of an instance, typed: the only place that knows which map holds what.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::atomic::Ordering,
};

use demux_common::{
    address::Address,
    binding::{AddressKey, Binding, PortProfile, PortSlot, PrefixKey, PrefixMatch},
    config::{Config, Interface},
    connection::{Connection, ConnectionKey},
    counters::InterfaceCounters,
    layout::{LAYOUT_VERSION, LocalPrefix, Meta, map},
    reason::Count,
};
use zerocopy::{Immutable, IntoBytes, KnownLayout, TryFromBytes};

pub use crate::clock::now;
use crate::{
    Error, Result,
    bpf::{self, BatchReader},
    netns,
    state::{Instance, Paths},
};

/// What the maps are opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading; a member of the group demux needs no capability for it.
    ReadOnly,
    /// Writing too.
    ReadWrite,
}

/// The maps of an instance.
#[derive(Debug)]
pub struct Tables {
    directory: PathBuf,
    maps: BTreeMap<&'static str, OwnedFd>,
}

impl Tables {
    /// Opens the maps of an instance, and makes sure that they are of this layout and of the
    /// present network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::LayoutMismatch`], [`Error::StaleState`], [`Error::Io`] without permission.
    pub fn open(instance: &Instance, access: Access) -> Result<Self> {
        let tables = Self::open_unchecked(instance.paths(), access)?;
        tables.check_meta(instance.id())?;
        Ok(tables)
    }

    /// Opens the maps below `paths` without looking at whose they are.
    ///
    /// # Errors
    ///
    /// [`Error::LayoutMismatch`] where a map is missing or of another shape.
    pub fn open_unchecked(paths: &Paths, access: Access) -> Result<Self> {
        let mut maps = BTreeMap::new();
        for &name in map::ALL {
            let path = paths.map(name);
            let fd = bpf::object_get(&path, access == Access::ReadOnly).map_err(|source| {
                if source.kind() == std::io::ErrorKind::NotFound {
                    Error::LayoutMismatch {
                        path: paths.directory().to_path_buf(),
                        found: format!("without a map {name}"),
                        expected: LAYOUT_VERSION.to_string(),
                    }
                } else {
                    Error::io(format!("open {}", path.display()), source)
                }
            })?;
            maps.insert(name, fd);
        }
        let tables = Self {
            directory: paths.directory().to_path_buf(),
            maps,
        };
        tables.check_shapes()?;
        Ok(tables)
    }

    /// The descriptor of a map.
    ///
    /// # Errors
    ///
    /// [`Error::MapNotFound`].
    pub fn map_fd(&self, name: &str) -> Result<BorrowedFd<'_>> {
        self.maps
            .get(name)
            .map(OwnedFd::as_fd)
            .ok_or_else(|| Error::MapNotFound(name.to_owned()))
    }

    fn check_shapes(&self) -> Result<()> {
        for &(name, key_size, value_size) in SHAPES {
            let info = self.info(name)?;
            if (info.key_size as usize, info.value_size as usize) != (key_size, value_size) {
                return Err(Error::LayoutMismatch {
                    path: self.directory.clone(),
                    found: format!(
                        "with {} and {} bytes per key and value of {name}",
                        info.key_size, info.value_size
                    ),
                    expected: LAYOUT_VERSION.to_string(),
                });
            }
        }
        Ok(())
    }

    fn check_meta(&self, cookie: u64) -> Result<()> {
        let meta = self.meta()?;
        if meta.layout_version != LAYOUT_VERSION {
            return Err(Error::LayoutMismatch {
                path: self.directory.clone(),
                found: meta.layout_version.to_string(),
                expected: LAYOUT_VERSION.to_string(),
            });
        }
        let stale = |reason: &str| Error::StaleState {
            path: self.directory.clone(),
            reason: reason.to_owned(),
        };
        if meta.netns_cookie != cookie {
            return Err(stale("it belongs to another network namespace"));
        }
        if meta.boot_id != netns::boot_id()? {
            return Err(stale("it is from before the last boot"));
        }
        Ok(())
    }

    /// What the kernel knows of a map.
    ///
    /// # Errors
    ///
    /// Where the kernel does not say.
    pub fn info(&self, name: &str) -> Result<bpf::MapInfo> {
        bpf::map_info(self.map_fd(name)?)
            .map_err(|source| Error::io(format!("describe the map {name}"), source))
    }

    /// The memory of all maps, in bytes, as the kernel accounts it.
    ///
    /// # Errors
    ///
    /// Where the kernel does not say.
    pub fn memory_bytes(&self) -> Result<u64> {
        map::ALL
            .iter()
            .map(|name| Ok(self.info(name)?.memlock))
            .sum()
    }

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

    /// Changes the settings of the instance.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn set_config(&self, config: &Config) -> Result<()> {
        self.update(map::CONFIG, &0u32, config)
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

    /// Frees the entry of a binding.
    ///
    /// # Errors
    ///
    /// Where the map cannot be written.
    pub fn clear_binding(&self, index: u16) -> Result<()> {
        let free = [0u8; size_of::<Binding>()];
        self.update(map::BINDINGS, &u32::from(index), &free)
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

    /// Every port profile, by its index.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn port_profiles(&self) -> Result<Vec<PortProfile>> {
        Ok(self
            .array::<PortProfile>(map::PORT_PROFILES)?
            .into_iter()
            .map(|(_, profile)| profile)
            .collect())
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

    fn array_entry<V>(&self, name: &str, index: u32) -> Result<V>
    where
        V: TryFromBytes + KnownLayout + Immutable,
    {
        let mut value = vec![0u8; size_of::<V>()];
        bpf::map_lookup(self.map_fd(name)?, index.as_bytes(), &mut value)
            .map_err(|e| cannot_read(name, e))?;
        decode(name, &value)
    }

    fn array<V>(&self, name: &str) -> Result<Vec<(u32, V)>>
    where
        V: TryFromBytes + KnownLayout + Immutable,
    {
        let mut entries: Vec<(u32, V)> = self.entries(name)?;
        entries.sort_unstable_by_key(|(index, _)| *index);
        Ok(entries)
    }

    fn entries<K, V>(&self, name: &str) -> Result<Vec<(K, V)>>
    where
        K: TryFromBytes + KnownLayout + Immutable,
        V: TryFromBytes + KnownLayout + Immutable,
    {
        let mut entries = Vec::new();
        let mut reader = BatchReader::new(self.map_fd(name)?).map_err(|e| cannot_read(name, e))?;
        while let Some(batch) = reader.next_batch().map_err(|e| cannot_read(name, e))? {
            for (key, value) in batch.iter() {
                entries.push((decode(name, key)?, decode(name, value)?));
            }
        }
        Ok(entries)
    }

    fn per_cpu_sums<const WORDS: usize>(&self, name: &str) -> Result<Vec<[u64; WORDS]>> {
        let mut sums: Vec<(u32, [u64; WORDS])> = Vec::new();
        let mut reader = BatchReader::new(self.map_fd(name)?).map_err(|e| cannot_read(name, e))?;
        while let Some(batch) = reader.next_batch().map_err(|e| cannot_read(name, e))? {
            for (key, value) in batch.iter() {
                let mut sum = [0u64; WORDS];
                for copy in value.chunks_exact(WORDS * 8) {
                    let words: [u64; WORDS] = decode(name, copy)?;
                    for (total, word) in sum.iter_mut().zip(words) {
                        *total = total.wrapping_add(word);
                    }
                }
                sums.push((decode(name, key)?, sum));
            }
        }
        sums.sort_unstable_by_key(|(index, _)| *index);
        Ok(sums.into_iter().map(|(_, sum)| sum).collect())
    }

    fn clear_per_cpu(&self, name: &str, index: u32) -> Result<()> {
        let stride = self
            .info(name)?
            .value_stride()
            .map_err(|e| cannot_write(name, e))?;
        let zeros = vec![0u8; stride];
        bpf::map_update(self.map_fd(name)?, index.as_bytes(), &zeros, 0)
            .map_err(|e| cannot_write(name, e))
    }

    fn update<K, V>(&self, name: &str, key: &K, value: &V) -> Result<()>
    where
        K: IntoBytes + Immutable,
        V: IntoBytes + Immutable,
    {
        bpf::map_update(self.map_fd(name)?, key.as_bytes(), value.as_bytes(), 0)
            .map_err(|e| cannot_write(name, e))
    }

    fn update_batch<V>(&self, name: &str, entries: &[(u32, V)]) -> Result<()>
    where
        V: IntoBytes + Immutable,
    {
        let keys: Vec<u8> = entries
            .iter()
            .flat_map(|(index, _)| index.as_bytes().iter().copied())
            .collect();
        let values: Vec<u8> = entries
            .iter()
            .flat_map(|(_, value)| value.as_bytes().iter().copied())
            .collect();
        let (_, result) =
            bpf::map_update_batch(self.map_fd(name)?, &keys, &values, entries.len(), 0);
        result.map_err(|e| cannot_write(name, e))
    }

    fn delete<K>(&self, name: &str, key: &K) -> Result<()>
    where
        K: IntoBytes + Immutable,
    {
        bpf::map_delete(self.map_fd(name)?, key.as_bytes())
            .map(|_was_there| ())
            .map_err(|e| cannot_write(name, e))
    }
}

/// The sizes of keys and values: what the datapath of this layout has.
const SHAPES: &[(&str, usize, usize)] = &[
    (map::META, 4, size_of::<Meta>()),
    (map::CONFIG, 4, size_of::<Config>()),
    (map::INTERFACES, 4, size_of::<Interface>()),
    (map::COUNTERS, 4, size_of::<InterfaceCounters>()),
    (map::BINDINGS, 4, size_of::<Binding>()),
    (map::BINDING_COUNTS, 4, size_of::<Count>()),
    (map::PORTS, 4, size_of::<PortSlot>()),
    (map::PORT_PROFILES, 4, size_of::<PortProfile>()),
    (map::ADDRESSES, size_of::<AddressKey>(), 4),
    (
        map::PREFIXES,
        size_of::<PrefixKey>(),
        size_of::<PrefixMatch>(),
    ),
    (
        map::CONNECTIONS,
        size_of::<ConnectionKey>(),
        size_of::<Connection>(),
    ),
    (map::LOCALS, size_of::<Address>(), 4),
    (map::LOCAL_PREFIXES, size_of::<LocalPrefix>(), 4),
];

fn decode<T>(name: &str, bytes: &[u8]) -> Result<T>
where
    T: TryFromBytes + KnownLayout + Immutable,
{
    T::try_read_from_bytes(bytes).map_err(|_| {
        Error::unexpected(
            format!("read the map {name}"),
            "an entry is not of this demux's layout",
        )
    })
}

fn cannot_read(name: &str, source: std::io::Error) -> Error {
    Error::io(format!("read the map {name}"), source)
}

fn cannot_write(name: &str, source: std::io::Error) -> Error {
    Error::io(format!("write the map {name}"), source)
}
