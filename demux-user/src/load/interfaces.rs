//! The interfaces of an instance: naming them, and their slots.

use std::collections::HashSet;

use demux_common::config::{Interface, MAX_INTERFACES};

use crate::{
    Error, Result, attach,
    interface::{self, Interface as Device},
    state::Paths,
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

/// A slot in which the datapath would find the interface.
pub(super) fn free_slot(tables: &Tables, device: &Device) -> Result<u32> {
    let taken: HashSet<u32> = tables
        .interfaces()?
        .into_iter()
        .map(|(slot, _)| slot)
        .collect();
    Interface::slots(device.index)
        .find(|slot| !taken.contains(slot))
        .ok_or_else(|| {
            Error::unexpected(
                format!("attach to {}", device.name),
                format!("an instance has room for {MAX_INTERFACES} interfaces at the most"),
            )
        })
}

/// Frees the slots of interfaces that are gone; their links have come off by themselves.
pub(crate) fn free_vanished(paths: &Paths, tables: &Tables) -> Result<()> {
    for (_, entry) in tables.interfaces()? {
        let link = attach::pinned_link(&paths.xdp_link(entry.ifindex))?;
        if link.is_none_or(|link| link.ifindex != Some(entry.ifindex)) {
            take_off(paths, tables, entry.ifindex)?;
        }
    }
    Ok(())
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
    Ok(())
}
