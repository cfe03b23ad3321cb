//! Who may read the pins: members of the group demux, where the system has that group.
//!
//! systemd mounts the BPF file system for root alone (mode 0700). So that members of the group get to
//! what they may read, they are let through its root: it is given to the group with the right to pass and
//! not to list (0710). What others have pinned there keeps its own modes and stays hidden. Where the root
//! belongs to some other group already, it is not taken away, and `demux doctor` says what to do.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
};

use crate::{Error, Result, accounts::local_group_id};

const GROUP: &str = "demux";

/// A directory that the group may list.
const DIRECTORY: u32 = 0o750;

/// An object that the group may read.
const FILE: u32 = 0o640;

/// The right of a directory's group to pass.
const GROUP_PASSES: u32 = 0o010;

/// All rights of a directory's group.
const GROUP_ALL: u32 = 0o070;

/// The right of all others to pass.
const OTHERS_PASS: u32 = 0o001;

/// Lets members of the group through the directory that holds everything, as far as that is possible
/// and nobody else's. A failure is no error: whoever is shut out is told by `demux doctor`.
pub(super) fn let_through(bpffs: &Path) {
    if let (Some(group), Ok(metadata)) = (reading_group(), fs::metadata(bpffs))
        && let Some(mode) = mode_to_pass(metadata.mode(), metadata.gid(), group)
    {
        // The group first: it gains nothing before the mode says so.
        let _ = chown(bpffs, None, Some(group))
            .and_then(|()| fs::set_permissions(bpffs, Permissions::from_mode(mode)));
    }
}

/// The mode with which a directory is to be given to the group; `None` where it is to stay as it is.
pub(crate) fn mode_to_pass(mode: u32, owner: u32, group: u32) -> Option<u32> {
    let mode = mode & 0o7777;
    if owner == group {
        return (mode & GROUP_PASSES == 0).then_some(mode | GROUP_PASSES);
    }
    let is_open = mode & OTHERS_PASS != 0;
    // Root needs no right of its group, and any other group that has rights is somebody's.
    let is_nobodys = owner == 0 || mode & GROUP_ALL == 0;
    (!is_open && is_nobodys).then_some(mode & !GROUP_ALL | GROUP_PASSES)
}

/// Lets the group read the object at `path`.
pub(super) fn share_file(path: &Path) -> Result<()> {
    share(path, FILE)
}

/// Makes a directory that the group may list.
pub(super) fn create_directory(path: &Path) -> Result<()> {
    fs::create_dir(path).map_err(|source| {
        Error::unchangeable(format!("create {}", path.display()), path, source)
    })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_opened_only_as_far_as_needed_and_never_taken_from_others() {
        const GROUP: u32 = 991;
        for (mode, owner, then) in [
            (0o700, 0, Some(0o710)),
            (0o1700, 0, Some(0o1710)),
            (0o750, 0, Some(0o710)),
            (0o755, 0, None),
            (0o1777, 0, None),
            (0o711, 7, None),
            (0o750, 7, None),
            (0o700, 7, Some(0o710)),
            (0o710, GROUP, None),
            (0o700, GROUP, Some(0o710)),
            (0o705, GROUP, Some(0o715)),
        ] {
            let found = mode_to_pass(0o040_000 | mode, owner, GROUP);
            assert_eq!(found, then, "{mode:o} of {owner}");
        }
    }
}
