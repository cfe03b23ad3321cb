//! Who may read the pins: members of the group demux, where the system has that group.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use crate::{Error, Result, accounts::local_group_id};

const GROUP: &str = "demux";

/// A directory that the group may list.
const DIRECTORY: u32 = 0o750;

/// An object that the group may read.
const FILE: u32 = 0o640;

/// Lets the group read the object at `path`.
pub(super) fn share_file(path: &Path) -> Result<()> {
    share(path, FILE)
}

/// Makes a directory that the group may list.
pub(super) fn create_directory(path: &Path) -> Result<()> {
    fs::create_dir(path)
        .map_err(|source| Error::io(format!("create {}", path.display()), source))?;
    share(path, DIRECTORY)
}

fn share(path: &Path, mode: u32) -> Result<()> {
    let failed = |source| Error::io(format!("set the mode of {}", path.display()), source);
    if let Some(group) = reading_group() {
        match chown(path, None, Some(group)) {
            // Without CAP_CHOWN the objects stay with the caller's own group.
            Err(source) if source.kind() != io::ErrorKind::PermissionDenied => {
                return Err(failed(source));
            }
            _ => {}
        }
    }
    // After chown, so that no other group is let in for a moment.
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)
}

/// The number of the group demux, where the system has that group.
pub fn reading_group() -> Option<u32> {
    local_group_id(GROUP)
}
