//! The steps of loading, for `apply`, which does other things between them.

use super::{LoadOptions, Loaded, attach_all, interfaces};
use crate::{
    Error, Result,
    attach::{Hook, egress},
    interface::Interface as Device,
    state::Paths,
    tables::Tables,
};

/// Frees the entries of interfaces that are gone, so that these can be attached.
pub(crate) fn make_room(paths: &Paths, tables: &Tables, names: &[String]) -> Result<()> {
    interfaces::free_vanished(paths, tables, names)
}

/// The interfaces with these names, each once.
pub(crate) fn resolve(names: &[String]) -> Result<Vec<Device>> {
    interfaces::resolve(names)
}

/// Refuses interfaces that carry another XDP program.
pub(crate) fn refuse_busy(devices: &[Device]) -> Result<()> {
    interfaces::refuse_busy(devices)
}

/// Attaches to each interface with options of its own; where one refuses, those before it are taken off
/// again.
pub(crate) fn attach_each(
    paths: &Paths,
    tables: &Tables,
    devices: &[(Device, LoadOptions)],
) -> Result<Vec<Loaded>> {
    let mut loaded: Vec<Loaded> = Vec::new();
    for (device, options) in devices {
        match attach_all(paths, tables, std::slice::from_ref(device), options) {
            Ok(attached) => loaded.extend(attached),
            Err(error) => {
                for done in &loaded {
                    take_off(paths, tables, done.ifindex)?;
                }
                return Err(error);
            }
        }
    }
    Ok(loaded)
}

/// Detaches from an interface and frees its entry.
pub(crate) fn take_off(paths: &Paths, tables: &Tables, ifindex: u32) -> Result<()> {
    interfaces::take_off(paths, tables, ifindex)
}

/// Whether the instance is attached to the interface with this index; taken to be so where the caller
/// may not look at the link.
pub(crate) fn is_attached(paths: &Paths, ifindex: u32) -> Result<bool> {
    match crate::attach::pinned_link(&paths.xdp_link(ifindex)) {
        Ok(link) => Ok(link.is_some_and(|link| link.ifindex == Some(ifindex))),
        Err(error) if is_denied(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Where the egress program of an interface is attached; `None` where the caller may not know.
pub(crate) fn egress_name(paths: &Paths, ifindex: u32) -> Result<Option<&'static str>> {
    match egress::find(paths, ifindex) {
        Ok(found) => Ok(Some(Hook::name_of(found.map(|found| found.hook)))),
        Err(error) if is_denied(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_denied(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
}
