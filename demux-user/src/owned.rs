//! Ports that processes may not bind(2), because demux sends their packets elsewhere than up the stack.
//!
//! A process that bound such a port would wait for packets in vain, and demux could take the port
//! away from nobody by surprise. So bindings that bind(2) could express, of one address or any and one
//! port, and whose packets do not reach its sockets, are written to the map that programs on bind(2) look at.
//! These are attached to the root of the control groups, by links that are pinned with the others of
//! the instance: they end with `unload`, with the removal of the pins, and with nothing else.
//! They are loaded and attached for the first such binding, and detached with the last.
//!
//! While demux is attached to no interface, bindings rest, and processes may have every port.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::AsFd as _,
};

use demux_common::{
    address::ANY_V6,
    binding::Binding,
    layout::program,
    overlap::Endpoint,
    owned::{Owned, OwnedKey, PLACES},
};

use crate::{
    Error, Result,
    attach::{
        self,
        cgroup::{self, Refusal},
    },
    bpf,
    bpffs::BpfFs,
    capability::{Capability, require},
    netns::NetworkNamespace,
    object,
    state::{Instance, Lock, Paths},
    tables::{Access, Tables},
};

/// Whether processes are kept away from what is owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// Nothing is owned.
    Unneeded,
    /// They are.
    Attached,
    /// They are not, or not in every way.
    Missing,
}

impl Hooks {
    /// The word for it in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unneeded => "unneeded",
            Self::Attached => "attached",
            Self::Missing => "missing",
        }
    }
}

/// Whether a binding owns its endpoint: bind(2) could ask for it, and its packets go elsewhere.
#[must_use]
pub fn is_owner(binding: &Binding) -> bool {
    endpoint(binding).is_some()
}

fn endpoint(binding: &Binding) -> Option<Endpoint> {
    let is_one_port = binding.first_port == binding.last_port && binding.first_port != 0;
    if binding.target.is_kernel() || !is_one_port {
        return None;
    }
    Endpoint::of(binding)
}

/// Makes the kernel refuse to processes what `bindings` own, from now on and no more than that; all
/// that they do not own any more can be had again. Doing it twice changes nothing.
///
/// Returns why processes are not kept away where that cannot be done: there are no control groups, or
/// the kernel refuses the programs. Bindings work without, so that is no error.
///
/// # Errors
///
/// Where a map or a pin cannot be written; the programs are attached as before then, and what was
/// published is to be published once more.
pub fn renew(
    paths: &Paths,
    tables: &Tables,
    bindings: &[(u16, Binding)],
) -> Result<Option<String>> {
    let is_loaded = !tables.interfaces()?.is_empty();
    let wanted = if is_loaded {
        wanted(bindings)
    } else {
        BTreeMap::new()
    };
    if wanted.is_empty() {
        for name in program::BIND {
            attach::detach(&paths.bind_link(name))?;
        }
        publish(tables, &wanted)?;
        return Ok(None);
    }
    let missing: Vec<&str> = program::BIND
        .iter()
        .copied()
        .filter(|name| !is_pinned(paths, name))
        .collect();
    let shortcoming = attach_all(paths, tables, &missing)?;
    if let Err(error) = publish(tables, &wanted) {
        for name in missing {
            attach::detach(&paths.bind_link(name))?;
        }
        return Err(error);
    }
    Ok(shortcoming)
}

/// As [`renew`], for the bindings that the instance of this network namespace has.
///
/// # Errors
///
/// As [`renew`], and [`Error::NotLoaded`].
pub fn renew_present(bpffs: &BpfFs) -> Result<Option<String>> {
    let namespace = NetworkNamespace::current()?;
    let instance = Instance::open(bpffs, namespace.cookie(), Lock::Exclusive)?;
    let tables = Tables::open(&instance, Access::ReadWrite)?;
    renew(instance.paths(), &tables, &tables.bindings()?)
}

/// Whether processes are kept away from what the bindings of an instance own.
///
/// # Errors
///
/// Where a map cannot be read.
pub fn hooks(paths: &Paths, tables: &Tables) -> Result<Hooks> {
    if tables.owned()?.is_empty() {
        return Ok(Hooks::Unneeded);
    }
    let are_attached = program::BIND.iter().all(|name| is_pinned(paths, name));
    Ok(if are_attached {
        Hooks::Attached
    } else {
        Hooks::Missing
    })
}

/// Removes the pins of links that are attached to nothing any more, so that [`renew`] attaches them anew.
pub(crate) fn detach_dead(paths: &Paths) -> Result<()> {
    for name in program::BIND {
        let pin = paths.bind_link(name);
        if cgroup::is_detached(&pin)? {
            attach::detach(&pin)?;
        }
    }
    Ok(())
}

/// Whether the link of a program is pinned; what the caller may not know is taken to be so.
fn is_pinned(paths: &Paths, name: &str) -> bool {
    !matches!(fs::symlink_metadata(paths.bind_link(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// What loading them takes.
const OWN_PORTS: &[Capability] = &[Capability::Bpf, Capability::NetAdmin, Capability::Perfmon];

/// Attaches programs, as many of them as the kernel admits, and returns why it does not admit the rest.
fn attach_all(paths: &Paths, tables: &Tables, names: &[&str]) -> Result<Option<String>> {
    if names.is_empty() {
        return Ok(None);
    }
    let root = match cgroup::root() {
        Ok(root) => root,
        Err(error) => return Ok(Some(format!("there are no control groups: {error}"))),
    };
    // Bindings work without, and whoever makes one is told.
    if let Err(error) = require("load programs for bind(2)", OWN_PORTS) {
        return Ok(Some(error.to_string()));
    }
    let mut ebpf = object::open(paths, tables)?;
    let mut shortcoming = None;
    for (index, name) in names.iter().enumerate() {
        match cgroup::attach(&mut ebpf, name, root.as_fd(), &paths.bind_link(name)) {
            Ok(()) => {}
            Err(Refusal::Kernel(reason)) => shortcoming = shortcoming.or(Some(reason)),
            Err(Refusal::Other(error)) => {
                for name in &names[..index] {
                    attach::detach(&paths.bind_link(name))?;
                }
                return Err(error);
            }
        }
    }
    Ok(shortcoming)
}

/// A port of a protocol, as [`OwnedKey`] has both.
type Port = (u16, u16);

/// What is owned of each port.
fn wanted(bindings: &[(u16, Binding)]) -> BTreeMap<Port, Vec<Owned>> {
    let mut wanted: BTreeMap<Port, Vec<Owned>> = BTreeMap::new();
    for (_, binding) in bindings {
        let Some(endpoint) = endpoint(binding) else {
            continue;
        };
        let port = (binding.protocol as u16, binding.first_port);
        let places = wanted.entry(port).or_default();
        let owned = Owned::from(endpoint);
        // The members of a group have one endpoint.
        if !places.contains(&owned) {
            places.push(owned);
        }
    }
    for places in wanted.values_mut() {
        if places.len() > PLACES as usize {
            *places = vec![EVERYTHING];
        }
    }
    wanted
}

/// What stands for more endpoints than a port has places.
const EVERYTHING: Owned = Owned {
    address: ANY_V6,
    ifindex: 0,
    v6_only: 0,
};

/// Writes what is owned. At every moment a bind meets all that was owned before and still is.
fn publish(tables: &Tables, wanted: &BTreeMap<Port, Vec<Owned>>) -> Result<()> {
    let mut present: BTreeMap<Port, BTreeMap<u32, Owned>> = BTreeMap::new();
    for (key, owned) in tables.owned()? {
        let port = (key.protocol, key.port);
        present.entry(port).or_default().insert(key.place, owned);
    }
    let key = |(protocol, port): Port, place| OwnedKey {
        protocol,
        port,
        place,
    };
    let mut surplus = Vec::new();
    let ports: BTreeSet<Port> = wanted.keys().chain(present.keys()).copied().collect();
    for port in ports {
        let before = present.remove(&port).unwrap_or_default();
        let after = arrange(&before, wanted.get(&port).map_or(&[], Vec::as_slice));
        // Upwards, because a program stops looking at the first place that is empty.
        for (place, owned) in (0..).zip(&after) {
            if before.get(&place) != Some(owned) {
                tables.set_owned(&key(port, place), owned)?;
            }
        }
        let first = after.len() as u32;
        surplus.extend(
            before
                .keys()
                .rev()
                .filter(|place| **place >= first)
                .map(|place| key(port, *place)),
        );
    }
    if surplus
        .iter()
        .any(|key| wanted.contains_key(&(key.protocol, key.port)))
    {
        // Whoever is past the place to which something has moved down must find it where it was.
        // Without membarrier(2) a bind in these few nanoseconds may slip through.
        let _ = bpf::synchronize();
    }
    for key in surplus {
        tables.remove_owned(&key)?;
    }
    Ok(())
}

/// Puts `wanted` into places without gaps, and leaves where it is what can stay.
fn arrange(before: &BTreeMap<u32, Owned>, wanted: &[Owned]) -> Vec<Owned> {
    let stays = |place: u32| {
        before
            .get(&place)
            .filter(|owned| (place as usize) < wanted.len() && wanted.contains(owned))
            .copied()
    };
    let staying: Vec<Owned> = (0..wanted.len() as u32).filter_map(stays).collect();
    let mut others = wanted.iter().filter(|owned| !staying.contains(owned));
    (0..wanted.len() as u32)
        .filter_map(|place| stays(place).or_else(|| others.next().copied()))
        .collect()
}

/// Those of `ports` that the kernel may choose for a socket which leaves the choice to it, where no
/// program can refuse: for connect(2), sendto(2) and listen(2), and for bind(2) to one address.
///
/// # Errors
///
/// Where the settings of the kernel cannot be read.
pub fn exposed(ports: &[u16]) -> Result<Vec<u16>> {
    let range = read_setting("ip_local_port_range")?;
    let reserved = read_setting("ip_local_reserved_ports")?;
    let bounds: Vec<u16> = range
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [first, last] = bounds[..] else {
        return Err(Error::unexpected("read ip_local_port_range", range));
    };
    let is_reserved = |port: &u16| {
        reserved.split(',').any(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            matches!((first.parse(), last.parse()),
                (Ok(first), Ok(last)) if (first..=last).contains(port))
        })
    };
    Ok(ports
        .iter()
        .filter(|port| (first..=last).contains(port) && !is_reserved(port))
        .copied()
        .collect())
}

/// A setting of IP in this network namespace.
fn read_setting(name: &str) -> Result<String> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(Error::io(format!("read {path}"), source)),
    }
}

#[cfg(test)]
mod tests {
    use demux_common::address::Address;

    use super::*;

    fn owned(last: u8) -> Owned {
        Owned {
            address: Address::from_v4([10, 0, 0, last]),
            ifindex: 0,
            v6_only: 0,
        }
    }

    fn arranged(before: &[u8], wanted: &[u8]) -> Vec<u8> {
        let before = (0..).zip(before.iter().copied().map(owned)).collect();
        let wanted: Vec<Owned> = wanted.iter().copied().map(owned).collect();
        arrange(&before, &wanted)
            .iter()
            .map(|owned| owned.address.v4()[3])
            .collect()
    }

    #[test]
    fn places_have_no_gaps_and_what_can_stay_stays() {
        assert_eq!(arranged(&[], &[1, 2]), [1, 2]);
        assert_eq!(arranged(&[1, 2], &[3, 2, 1]), [1, 2, 3]);
        assert_eq!(arranged(&[1, 2, 3], &[2, 3]), [3, 2]);
        assert_eq!(arranged(&[1, 2, 3], &[3]), [3]);
        assert_eq!(arranged(&[1, 2, 3], &[4, 3]), [4, 3]);
        assert!(arranged(&[1, 2], &[]).is_empty());
    }

    #[test]
    fn a_killed_command_may_leave_gaps_that_are_filled() {
        let before = [(1, owned(1)), (2, owned(2))].into();
        assert_eq!(
            arrange(&before, &[owned(1), owned(2)]),
            [owned(2), owned(1)]
        );
    }
}
