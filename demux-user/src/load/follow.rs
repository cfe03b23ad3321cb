//! Following interfaces: those that are back are attached as they were, those that are here have their
//! entries kept up to date.
//!
//! What is to be attached again is what the instance has entries for: they stay when an interface
//! vanishes, with the name that it had, and go with `unload`.

use std::collections::BTreeMap;

use demux_common::config::{Interface, Mode};

use super::{
    How, attach_one, import,
    interfaces::{self, Vanished},
    reply,
};
use crate::{
    Error, Result,
    attach::{EgressChoice, ModeChoice, egress, xdp},
    interface::{self, Interface as Device},
    owned,
    state::{self, Instance},
    tables::Tables,
};

/// What was done about an interface, or could not be.
#[derive(Debug)]
pub enum Followed {
    /// It was back, and was attached again as it was.
    Attached {
        /// Its name.
        interface: String,
        /// Where the program runs.
        mode: Mode,
        /// Where that or egress is not as before, and why.
        note: Option<String>,
    },
    /// It is back, and could not be attached.
    Refused {
        /// Its name.
        interface: String,
        /// Its index.
        ifindex: u32,
        /// Why.
        error: Error,
    },
    /// Its station address was another.
    Station {
        /// Its name.
        interface: String,
    },
}

/// Brings an instance, whose exclusive lock is held, up to date with the interfaces of this namespace.
///
/// # Errors
///
/// Where rtnetlink cannot be asked, or maps or pins cannot be read or written.
pub fn follow(instance: &Instance, tables: &Tables) -> Result<Vec<Followed>> {
    let paths = instance.paths();
    let devices = interface::all()?;
    let names = state::kept_names(paths)?;
    let vanished = interfaces::vanished(paths, tables)?;
    let mut followed = Vec::new();
    renew(instance, tables, &devices, &vanished, &names, &mut followed)?;

    let mut is_any_attached = false;
    for gone in &vanished {
        let Some(entry) = entry(tables, gone.ifindex)? else {
            continue;
        };
        let Some(device) = returned(&devices, &names, gone) else {
            continue;
        };
        let is_known = self::entry(tables, device.index)?.is_some();
        if device.index != gone.ifindex && is_known {
            // Loaded anew meanwhile: what was left behind is of no more use.
            interfaces::take_off(paths, tables, gone.ifindex)?;
            continue;
        }
        match attach_again(instance, tables, &entry, device, gone) {
            Ok(attached) => {
                is_any_attached = true;
                followed.push(attached);
            }
            Err(error) => followed.push(Followed::Refused {
                interface: device.name.clone(),
                ifindex: device.index,
                error,
            }),
        }
    }
    if is_any_attached {
        // Rows from before are to be judged by the defaults of now.
        let mut config = tables.config()?;
        config.move_epoch_on();
        tables.set_config(&config)?;
        owned::renew(paths, tables, &tables.bindings()?)?;
    }
    Ok(followed)
}

/// Enters the kernel's connections that the table has not, as `load` does once all is attached.
///
/// # Errors
///
/// Where the kernel cannot be asked or the table cannot be changed.
pub fn import_connections(instance: &Instance, tables: &Tables) -> Result<()> {
    import::import(instance.paths(), tables).map(|_imported| ())
}

/// Brings the entries of interfaces up to date that are here: station, way back for refusals, name.
fn renew(
    instance: &Instance,
    tables: &Tables,
    devices: &[Device],
    vanished: &[Vanished],
    names: &BTreeMap<u32, String>,
    followed: &mut Vec<Followed>,
) -> Result<()> {
    let entries = tables.interfaces()?;
    let rejects = reply::is_in_use(&entries, &tables.bindings()?);
    for (slot, before) in entries {
        if vanished.iter().any(|gone| gone.ifindex == before.ifindex) {
            continue;
        }
        let device = devices.iter().find(|device| device.index == before.ifindex);
        let Some(device) = device else { continue };
        let mut entry = before;
        entry.station = device.mac.unwrap_or_default();
        if rejects {
            // Where the driver cannot be asked, what was known before is known still.
            entry.reply = reply::reply(device, entry.mode).unwrap_or(entry.reply);
        }
        if entry != before {
            tables.set_interface(slot, &entry)?;
        }
        if entry.station != before.station {
            followed.push(Followed::Station {
                interface: device.name.clone(),
            });
        }
        if names.get(&device.index) != Some(&device.name) {
            state::keep_name(instance.paths(), device.index, &device.name)?;
        }
    }
    Ok(())
}

/// The interface that has left an entry behind, if it is here again.
fn returned<'d>(
    devices: &'d [Device],
    names: &BTreeMap<u32, String>,
    gone: &Vanished,
) -> Option<&'d Device> {
    // Where the pin was removed, somebody wanted it off.
    let link = gone.link?;
    if let Some(now) = link.ifindex {
        // Our program has come along. While it is elsewhere, no device here has it.
        let has_ours = |device: &&Device| {
            device
                .xdp
                .is_some_and(|xdp| xdp.program_id == link.program_id)
        };
        return devices
            .iter()
            .filter(has_ours)
            .find(|device| device.index == now);
    }
    let name = names.get(&gone.ifindex)?;
    devices
        .iter()
        .find(|device| device.name == *name && device.has_ethernet_header())
}

fn entry(tables: &Tables, ifindex: u32) -> Result<Option<Interface>> {
    let entries = tables.interfaces()?.into_iter();
    Ok(entries
        .map(|(_, entry)| entry)
        .find(|entry| entry.ifindex == ifindex))
}

fn attach_again(
    instance: &Instance,
    tables: &Tables,
    entry: &Interface,
    device: &Device,
    gone: &Vanished,
) -> Result<Followed> {
    let paths = instance.paths();
    if device.xdp.is_some() && gone.now().is_none() {
        return Err(xdp::busy(device));
    }
    let hook = egress::find(paths, entry.ifindex)?.map(|found| found.hook);
    let how = How {
        default: entry.default,
        probation_ends: entry.probation_ends,
        mode: match entry.mode {
            // Better behind the driver than not at all.
            Mode::Native => ModeChoice::Auto,
            Mode::Generic => ModeChoice::Generic,
        },
        egress: match hook {
            Some(hook) => EgressChoice::Only(hook),
            None if entry.egress == 0 => EgressChoice::Nothing,
            None => EgressChoice::Auto,
        },
    };
    let is_in_place = device.index == entry.ifindex || gone.now().is_some();
    if is_in_place {
        // The pins have the names that the new ones will have, or hold the device itself.
        interfaces::take_off(paths, tables, entry.ifindex)?;
    }
    let attached = attach_one(paths, tables, device, how)?;
    if !is_in_place {
        interfaces::take_off(paths, tables, entry.ifindex)?;
    }
    let egress_note = attached
        .egress
        .note
        .filter(|_| how.egress != EgressChoice::Nothing)
        .map(|note| format!("egress is {note}"));
    let notes: Vec<String> = attached
        .ingress
        .note
        .map(|note| format!("not in the driver: {note}"))
        .into_iter()
        .chain(egress_note)
        .collect();
    Ok(Followed::Attached {
        interface: device.name.clone(),
        mode: attached.ingress.mode,
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    })
}
