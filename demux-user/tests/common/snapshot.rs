//! The whole state of demux in a BPF file system, to see whether a command has changed any of it.

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use aya_obj::generated::bpf_map_type;
use demux_common::{binding::PortSlot, layout::map};
use demux_user::{
    attach::egress,
    bpf::{self, BatchReader},
    interface::{self, AttachedXdp},
};

use super::netns::Netns;

/// What follows packets, or the addresses of the host, whatever a command does.
const FOLLOWING: [&str; 7] = [
    "COUNTERS",
    "BINDING_COUNTS",
    "CONNECTIONS",
    "CONNECTION_COLD",
    "TABLE_COUNTS",
    "LOCALS",
    "LOCAL_PREFIXES",
];

/// Every pin with its mode and, for maps, its entries; and the programs on the interfaces of a namespace.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    pins: BTreeMap<PathBuf, Pin>,
    attached: BTreeMap<String, (Option<AttachedXdp>, Vec<egress::Other>)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Pin {
    mode: u32,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Snapshot {
    pub fn take(bpffs: &Path, netns: &Netns) -> Self {
        let mut snapshot = Self::with_traffic(bpffs, netns);
        for (path, pin) in &mut snapshot.pins {
            if FOLLOWING.iter().any(|name| path.ends_with(name)) {
                pin.entries.clear();
            }
        }
        snapshot
    }

    /// As [`Snapshot::take`], with what follows packets and addresses.
    pub fn with_traffic(bpffs: &Path, netns: &Netns) -> Self {
        let root = bpffs.join("demux");
        let mut pins = BTreeMap::new();
        add(&root, &mut pins);
        // The directory of all instances is made by the first command that writes.
        pins.remove(&root);
        let attached = netns.enter(|| {
            let interfaces = interface::all().unwrap().into_iter();
            let of = |interface: interface::Interface| {
                let egress = egress::programs(interface.index).unwrap();
                (interface.name, (interface.xdp, egress))
            };
            interfaces.map(of).collect()
        });
        Self { pins, attached }
    }

    /// What of it belongs to the instance with this number.
    pub fn of_instance(mut self, cookie: u64) -> Self {
        let name = cookie.to_string();
        self.pins
            .retain(|path, _| path.iter().any(|part| part == name.as_str()));
        self
    }

    /// The directories of all instances, finished and unfinished.
    pub fn instances(bpffs: &Path) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(bpffs.join("demux")) else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect()
    }
}

fn add(path: &Path, pins: &mut BTreeMap<PathBuf, Pin>) {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return;
    };
    let mut pin = Pin {
        mode: metadata.permissions().mode(),
        entries: BTreeMap::new(),
    };
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            add(&entry.unwrap().path(), pins);
        }
    } else if is_map(path) {
        pin.entries = entries(path);
    }
    pins.insert(path.to_owned(), pin);
}

/// Programs and links lie in directories with names in lower case.
fn is_map(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.chars()
        .all(|letter| letter.is_ascii_uppercase() || letter == '_')
}

fn entries(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    if path.ends_with(map::PORTS) {
        return ports(path);
    }
    if path.ends_with(map::EVENTS) || path.ends_with(map::TRACES) {
        // What is in a ring is for its reader alone.
        return BTreeMap::new();
    }
    if path.ends_with(map::XSKS) {
        // The kernel shows its entries to nobody.
        return BTreeMap::new();
    }
    if path.ends_with(map::CPUS) {
        return cpus(path);
    }
    let map = bpf::object_get(path, true).unwrap();
    if bpf::map_info(map.as_fd()).unwrap().map_type == bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32 {
        // What is in a ring is told once, to whoever listens.
        return BTreeMap::new();
    }
    let mut reader = BatchReader::new(map.as_fd()).unwrap();
    let mut entries = BTreeMap::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        for (key, value) in batch.iter() {
            // An array is full of entries that nobody made.
            if value.iter().any(|&byte| byte != 0) {
                entries.insert(key.to_vec(), value.to_vec());
            }
        }
    }
    entries
}

/// Asking the kernel for every port takes most of the time of a test.
fn ports(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let map = bpf::object_get(path, false).unwrap();
    let slots = bpf::MappedWords::new(map.as_fd(), PortSlot::COUNT).unwrap();
    (0_u32..)
        .zip(slots.read())
        .filter(|(_, slot)| *slot != 0)
        .map(|(index, slot)| (index.to_ne_bytes().into(), slot.to_ne_bytes().into()))
        .collect()
}

/// This kind of map is read entry by entry.
fn cpus(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let map = bpf::object_get(path, true).unwrap();
    let mut entries = BTreeMap::new();
    for cpu in 0..bpf::map_info(map.as_fd()).unwrap().max_entries {
        let (key, mut value) = (cpu.to_ne_bytes(), [0; 8]);
        if bpf::map_lookup(map.as_fd(), &key, &mut value).unwrap() {
            entries.insert(key.to_vec(), value.to_vec());
        }
    }
    entries
}
