//! Bringing the tables of the datapath from what they are to what they should be, while packets pass.
//!
//! What a slot refers to is written before the slot, and what no slot refers to any more is removed
//! after it: at every moment a packet is matched against either the old or the new bindings of its port.
//!
//! Who walks around a group while its ring changes must meet live bindings only. So new members are
//! linked before the tables name them ([`publish`]), and old ones unlinked once the tables do not
//! ([`withdraw`]), before they are freed.

use std::collections::{HashMap, HashSet};

use demux_common::binding::{PortProfile, PortSlot};

use super::Compiled;
use crate::{Error, Result, tables::Tables};

/// Writes the compiled tables, which may have bindings that the old ones had not.
///
/// The caller has written new bindings before, and then moves the epoch on.
///
/// # Errors
///
/// Where a map cannot be written or is full.
pub fn publish(tables: &Tables, compiled: &Compiled) -> Result<()> {
    link_members(tables, compiled)?;
    write_tables(tables, compiled)
}

/// Writes the compiled tables, which lack bindings that the old ones had.
///
/// The caller then moves the epoch on, and frees the bindings that are gone.
///
/// # Errors
///
/// Where a map cannot be written or is full.
pub fn withdraw(tables: &Tables, compiled: &Compiled) -> Result<()> {
    write_tables(tables, compiled)?;
    link_members(tables, compiled)
}

/// Links the members of groups. Who is no member any more stays linked to those that are.
fn link_members(tables: &Tables, compiled: &Compiled) -> Result<()> {
    compiled
        .relinked
        .iter()
        .try_for_each(|(index, binding)| tables.set_binding(*index, binding))
}

/// Writes the tables alone; the members of groups are the caller's.
pub(super) fn write_tables(tables: &Tables, compiled: &Compiled) -> Result<()> {
    let addresses = tables.addresses()?;
    let prefixes = tables.prefixes()?;
    let present: HashMap<_, _> = addresses.iter().copied().collect();
    for (key, binding) in &compiled.addresses {
        if present.get(key) != Some(&u32::from(*binding)) {
            tables.set_address(key, *binding)?;
        }
    }
    let present: HashMap<_, _> = prefixes.iter().copied().collect();
    for (key, found) in &compiled.prefixes {
        if present.get(key) != Some(found) {
            tables.set_prefix(key, *found)?;
        }
    }

    let ports = tables.ports()?;
    let numbers = place_profiles(tables, compiled, &ports)?;
    let changed: Vec<(u32, PortSlot)> = (0..)
        .zip(&compiled.ports)
        .map(|(index, slot): (u32, &PortSlot)| {
            let profile = numbers[usize::from(slot.profile)];
            (index, PortSlot { profile, ..*slot })
        })
        .filter(|(index, slot)| ports[*index as usize] != *slot)
        .collect();
    if !changed.is_empty() {
        tables.set_ports(&changed)?;
    }

    for (key, _) in &addresses {
        if !compiled.addresses.contains_key(key) {
            tables.remove_address(key)?;
        }
    }
    for (key, _) in &prefixes {
        if !compiled.prefixes.contains_key(key) {
            tables.remove_prefix(key)?;
        }
    }
    Ok(())
}

/// Finds a place for each profile that no slot uses for another one, and writes those that are new.
/// Returns the places by the numbers of the profiles.
fn place_profiles(tables: &Tables, compiled: &Compiled, ports: &[PortSlot]) -> Result<Vec<u16>> {
    let mut places = vec![0u16];
    if compiled.profiles.len() == 1 {
        return Ok(places);
    }
    // Neighbours mostly have the same profile.
    let in_use: HashSet<u16> = ports
        .chunk_by(|one, other| one.profile == other.profile)
        .map(|slots| slots[0].profile)
        .collect();
    let known: HashMap<PortProfile, u16> = in_use
        .iter()
        .filter(|place| **place != 0)
        .map(|place| Ok((tables.port_profile(*place)?, *place)))
        .collect::<Result<_>>()?;
    let mut free = (1..tables.max_port_profiles()?).filter_map(|place| {
        let place = u16::try_from(place).ok()?;
        (!in_use.contains(&place)).then_some(place)
    });
    let mut new = Vec::new();
    for profile in &compiled.profiles[1..] {
        let place = match known.get(profile) {
            Some(place) => *place,
            None => {
                let place = free.next().ok_or_else(|| {
                    Error::unexpected("publish the bindings", "no room for a port profile")
                })?;
                new.push((u32::from(place), *profile));
                place
            }
        };
        places.push(place);
    }
    if !new.is_empty() {
        tables.set_port_profiles(&new)?;
    }
    Ok(places)
}
