//! The interfaces of an instance: naming them, and their slots.

use std::collections::HashSet;

use demux_common::config::{Interface, MAX_INTERFACES};

use crate::{
    Error, Result,
    attach::{self, PinnedLink},
    interface::{self, Interface as Device},
    state::{self, Paths},
    tables::Tables,
};

/// The interfaces with these names, each once.
pub(super) fn resolve(names: &[String]) -> Result<Vec<Device>> {
    let mut seen = HashSet::new();
    let mut devices = Vec::new();
    for name in names {
        let device = interface::by_name(name)?;
        if !device.has_ethernet_header() {
            return Err(Error::Unsupported {
                operation: format!("attach to {name}"),
                reason: "it is not an Ethernet interface".to_owned(),
            });
        }
        if seen.insert(device.index) {
            devices.push(device);
        }
    }
    Ok(devices)
}

/// Refuses interfaces that carry another XDP program.
pub(super) fn refuse_busy(devices: &[Device]) -> Result<()> {
    match devices.iter().find(|device| device.xdp.is_some()) {
        Some(device) => Err(attach::xdp::busy(device)),
        None => Ok(()),
    }
}

/// A slot in which the datapath would find the interface. Where there is none, interfaces that have
/// vanished give theirs up.
pub(super) fn free_slot(paths: &Paths, tables: &Tables, device: &Device) -> Result<u32> {
    if let Some(slot) = find_slot(tables, device)? {
        return Ok(slot);
    }
    for vanished in vanished(paths, tables)? {
        take_off(paths, tables, vanished.ifindex)?;
    }
    find_slot(tables, device)?.ok_or_else(|| {
        Error::unexpected(
            format!("attach to {}", device.name),
            format!("an instance has room for {MAX_INTERFACES} interfaces at the most"),
        )
    })
}

fn find_slot(tables: &Tables, device: &Device) -> Result<Option<u32>> {
    let taken: HashSet<u32> = tables
        .interfaces()?
        .into_iter()
        .map(|(slot, _)| slot)
        .collect();
    Ok(Interface::slots(device.index).find(|slot| !taken.contains(slot)))
}

/// An entry whose interface is gone.
#[derive(Debug)]
pub(super) struct Vanished {
    pub(super) ifindex: u32,
    /// The link that is left of it; `None` where somebody has removed the pin.
    pub(super) link: Option<PinnedLink>,
}

impl Vanished {
    /// The index that it has now with our program, having been in another namespace or being there.
    pub(super) fn now(&self) -> Option<u32> {
        self.link.and_then(|link| link.ifindex)
    }
}

/// The entries of interfaces that are gone: the kernel has taken our program off with them, or they
/// are in another namespace, or back from there under another index.
pub(super) fn vanished(paths: &Paths, tables: &Tables) -> Result<Vec<Vanished>> {
    let mut vanished = Vec::new();
    for (_, entry) in tables.interfaces()? {
        let link = attach::pinned_link(&paths.xdp_link(entry.ifindex))?;
        if link.is_none_or(|link| link.ifindex != Some(entry.ifindex)) {
            vanished.push(Vanished {
                ifindex: entry.ifindex,
                link,
            });
        }
    }
    Ok(vanished)
}

/// Frees the slots of interfaces that are gone and were called as one that is to be loaded, or whose
/// names nobody knows: the others may return, and are then attached by the daemon.
pub(crate) fn free_vanished(paths: &Paths, tables: &Tables, names: &[String]) -> Result<()> {
    let kept = state::kept_names(paths)?;
    for vanished in vanished(paths, tables)? {
        let may_return = vanished.link.is_some_and(|link| link.ifindex.is_none())
            && kept
                .get(&vanished.ifindex)
                .is_some_and(|name| !names.contains(name));
        if !may_return {
            take_off(paths, tables, vanished.ifindex)?;
        }
    }
    Ok(())
}

/// The index of the entry that an interface has left behind which was called so.
pub(super) fn left_behind(paths: &Paths, tables: &Tables, name: &str) -> Result<Option<u32>> {
    let kept = state::kept_names(paths)?;
    let is_here: HashSet<u32> = interface::all()?
        .iter()
        .map(|device| device.index)
        .collect();
    Ok(tables
        .interfaces()?
        .into_iter()
        .map(|(_, entry)| entry.ifindex)
        .find(|index| !is_here.contains(index) && kept.get(index).is_some_and(|kept| kept == name)))
}

/// Detaches from an interface, ingress before egress, and frees its slot.
pub(super) fn take_off(paths: &Paths, tables: &Tables, ifindex: u32) -> Result<()> {
    // The links first: a packet of an interface without an entry would be counted as an oddity.
    attach::detach(&paths.xdp_link(ifindex))?;
    attach::egress::detach(paths, ifindex)?;
    for (slot, entry) in tables.interfaces()? {
        if entry.ifindex == ifindex {
            tables.clear_interface(slot)?;
        }
    }
    state::forget_name(paths, ifindex)
}
