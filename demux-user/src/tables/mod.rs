//! The maps of an instance, typed: the only place that knows which map holds what.

mod bindings;
mod connections;
mod control;
mod entries;
mod ephemeral;
mod exec;
mod fill;
mod listen;
mod locals;
mod owned;
mod sent;
mod settings;
mod sources;
mod steering;

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

pub use self::{
    control::{Control, Outcome, Swept},
    ephemeral::PortSet,
    sent::Sender,
};
pub use crate::clock::now;
use crate::{
    Error, Result, bpf, netns,
    repair::repair,
    state::{Instance, Paths},
};
use demux_common::{
    address::Address,
    binding::{AddressKey, Binding, PortProfile, PortSlot, PrefixKey, PrefixMatch},
    config::{Config, Interface},
    counters::{InterfaceCounters, TableCounters},
    fragments::{Datagram, Owner},
    layout::{LAYOUT_VERSION, LocalPrefix, Meta, map},
    listen::{Listener, ListenerCounts},
    owned::{Owned, OwnedKey},
    ports::{Ephemeral, ExecCgroup},
    reason::Count,
    reject::Budget,
    steering::{CpuList, XskSet, XskSocket},
    table::{Cold, Line},
    trace::Selection,
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
    /// present network namespace. Who may write puts right first what a killed command has left.
    ///
    /// # Errors
    ///
    /// [`Error::LayoutMismatch`], [`Error::StaleState`], [`Error::Io`] without permission.
    pub fn open(instance: &Instance, access: Access) -> Result<Self> {
        let tables = Self::open_unchecked(instance.paths(), access)?;
        tables.check_meta(instance.id())?;
        if access == Access::ReadWrite && instance.is_exclusive() && instance.is_unfinished() {
            repair(instance, &tables)?;
        }
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
                } else if access == Access::ReadWrite {
                    Error::unchangeable(
                        format!("open {} to change it", path.display()),
                        &path,
                        source,
                    )
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

    /// The memory of a map, in bytes, as the kernel accounts it.
    ///
    /// # Errors
    ///
    /// Where the kernel does not say.
    pub fn memory_of(&self, name: &str) -> Result<u64> {
        bpf::map_memory(self.map_fd(name)?)
            .map_err(|source| Error::io(format!("describe the map {name}"), source))
    }

    /// The memory of all maps, in bytes, as the kernel accounts it.
    ///
    /// # Errors
    ///
    /// Where the kernel does not say.
    pub fn memory_bytes(&self) -> Result<u64> {
        map::ALL.iter().map(|name| self.memory_of(name)).sum()
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
    (map::CONNECTIONS, 4, size_of::<Line>()),
    (map::CONNECTION_COLD, 4, size_of::<Cold>()),
    (map::TABLE_COUNTS, 4, size_of::<TableCounters>()),
    (map::EPHEMERAL, 4, size_of::<Ephemeral>()),
    (map::PERTURBATION, 4, 4),
    (map::PORT_HINTS, 4, 8),
    (map::BARRED_PORTS, 4, 8),
    (map::OWNED_PORTS, size_of::<OwnedKey>(), size_of::<Owned>()),
    (map::EXEC_CGROUPS, 8, size_of::<ExecCgroup>()),
    (map::SOURCES, size_of::<LocalPrefix>(), size_of::<Address>()),
    (map::REPLY_BUDGET, 4, size_of::<Budget>()),
    (map::CPUS, 4, 8),
    (map::CPU_LISTS, 4, size_of::<CpuList>()),
    (map::XSKS, 4, 4),
    (map::XSK_SETS, 4, size_of::<XskSet>()),
    (map::XSK_SOCKETS, 4, size_of::<XskSocket>()),
    (map::FRAGMENTS, size_of::<Datagram>(), size_of::<Owner>()),
    (map::LOCALS, size_of::<Address>(), 4),
    (map::LOCAL_PREFIXES, size_of::<LocalPrefix>(), 4),
    (map::LISTENERS, 4, size_of::<Listener>()),
    (map::LISTENER_COUNTS, 4, size_of::<ListenerCounts>()),
    (map::SELECTION, 4, size_of::<Selection>()),
];
