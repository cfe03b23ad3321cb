//! Every call of aya that attaches, detaches or opens a link: they change from one aya to the next.
//!
//! [`xdp`] is the hook for what arrives, [`egress`] that for what leaves, which is tcx or, on older
//! kernels, [`clsact`]; [`cgroup`] is for what processes ask for. [`replace`] puts other programs in
//! the places of those that are attached.

pub mod cgroup;
pub mod clsact;
pub mod egress;
pub mod replace;
mod tcx;
pub mod xdp;

use std::{fs, io, os::fd::AsFd as _, path::Path};

use aya::programs::links::FdLink;

pub use self::{
    egress::{EgressChoice, Hook},
    xdp::ModeChoice,
};
use crate::{Error, Result, bpf, object::chain};

/// What a pinned link says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedLink {
    /// The kernel id of the program.
    pub program_id: u32,
    /// The index of the interface in its namespace; `None` once the interface is gone.
    pub ifindex: Option<u32>,
}

/// Reads a pinned link; `None` where there is none.
///
/// # Errors
///
/// Without permission: links are their owner's alone.
pub fn pinned_link(link: &Path) -> Result<Option<PinnedLink>> {
    let fd = match bpf::object_get(link, false) {
        Ok(fd) => fd,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::io(format!("open {}", link.display()), source)),
    };
    let info = bpf::link_info(fd.as_fd())
        .map_err(|source| Error::io(format!("describe {}", link.display()), source))?;
    Ok(Some(PinnedLink {
        program_id: info.program_id,
        ifindex: info.ifindex.filter(|ifindex| *ifindex != 0),
    }))
}

/// Ends a link, at once, and removes its pin.
///
/// # Errors
///
/// Where it cannot be opened, detached or removed; one that is gone already is no error.
pub fn detach(link: &Path) -> Result<()> {
    // Without the pin the kernel would detach it too, but only some time after this command has ended.
    match bpf::object_get(link, false) {
        Ok(fd) => bpf::link_detach(fd.as_fd())
            .map_err(|source| Error::io(format!("detach {}", link.display()), source))?,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::io(format!("open {}", link.display()), source)),
    }
    remove_pin(link)
}

/// Removes a pin, if it is there.
fn remove_pin(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", pin.display()), source))
        }
        _ => Ok(()),
    }
}

/// Pins a link for its owner alone. The pin keeps the link; the descriptor is closed.
fn pin_link(link: FdLink, pin: &Path) -> std::result::Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |error: String| format!("cannot pin {}: {error}", pin.display());
    link.pin(pin).map_err(|error| failed(chain(&error)))?;
    fs::set_permissions(pin, fs::Permissions::from_mode(0o600)).map_err(|error| {
        // Else the pin would keep attached what is said not to be.
        let _ = fs::remove_file(pin);
        failed(error.to_string())
    })
}
