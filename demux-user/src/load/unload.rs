//! Taking demux off interfaces, and confirming what is on probation.

use super::{interfaces, require_system_to_unload};
use crate::{
    Error, Result,
    bpffs::BpfFs,
    interface,
    netns::NetworkNamespace,
    owned,
    state::{Instance, Lock},
    tables::{Access, Tables, now},
};

/// Detaches from interfaces and keeps the instance: its bindings, its connections, its settings.
/// Returns the names of the interfaces. One that is gone is forgotten: it is not attached again when
/// it returns.
///
/// # Errors
///
/// [`Error::NotLoaded`], [`Error::NotAttached`]; nothing is changed then.
pub fn unload(bpffs: &BpfFs, names: &[String]) -> Result<Vec<String>> {
    require_system_to_unload()?;
    let instance = open(bpffs)?;
    let tables = Tables::open(&instance, Access::ReadWrite)?;
    let entries = tables.interfaces()?;
    let mut indexes = Vec::new();
    for name in names {
        let index = match interface::by_name(name) {
            Ok(device) => device.index,
            Err(Error::UnknownInterface(unknown)) => {
                interfaces::left_behind(instance.paths(), &tables, name)?
                    .ok_or(Error::UnknownInterface(unknown))?
            }
            Err(error) => return Err(error),
        };
        if !entries.iter().any(|(_, entry)| entry.ifindex == index) {
            return Err(Error::NotAttached(name.clone()));
        }
        indexes.push(index);
    }
    instance.begin_change()?;
    for index in indexes {
        interfaces::take_off(instance.paths(), &tables, index)?;
    }
    owned::renew(instance.paths(), &tables, &tables.bindings()?)?;
    instance.end_change()?;
    Ok(names.to_vec())
}

/// Detaches from every interface and removes the instance, also one of another layout.
///
/// # Errors
///
/// [`Error::NotLoaded`], or where a pin cannot be removed.
pub fn unload_all(bpffs: &BpfFs) -> Result<()> {
    require_system_to_unload()?;
    open(bpffs)?.remove()
}

/// Keeps the defaults that are on probation, and returns the names of their interfaces.
///
/// # Errors
///
/// [`Error::ProbationOver`] where one has run out; nothing is changed then.
pub fn confirm(bpffs: &BpfFs) -> Result<Vec<String>> {
    let instance = open(bpffs)?;
    let tables = Tables::open(&instance, Access::ReadWrite)?;
    let mut entries = tables.interfaces()?;
    entries.retain(|(_, entry)| entry.probation_ends != 0);
    let name = |index| -> Result<String> {
        Ok(interface::by_index(index)?.map_or_else(|| format!("#{index}"), |device| device.name))
    };
    let now = now();
    if let Some((_, entry)) = entries
        .iter()
        .find(|(_, entry)| entry.is_probation_over(now))
    {
        return Err(Error::ProbationOver {
            interface: name(entry.ifindex)?,
            default: entry.default.name().to_owned(),
        });
    }
    let mut names = Vec::new();
    for (slot, mut entry) in entries {
        entry.probation_ends = 0;
        tables.set_interface(slot, &entry)?;
        names.push(name(entry.ifindex)?);
    }
    Ok(names)
}

fn open(bpffs: &BpfFs) -> Result<Instance> {
    let namespace = NetworkNamespace::current()?;
    Instance::open(bpffs, namespace.cookie(), Lock::Exclusive)
}
