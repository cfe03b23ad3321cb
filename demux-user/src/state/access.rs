//! Who may read the pins: members of the group demux, where the system has that group.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use crate::{Error, Result};

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
    group_id(&fs::read_to_string("/etc/group").unwrap_or_default())
}

/// The number of the group demux in the lines of /etc/group. The C library's own search does not work in static binaries.
fn group_id(groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(GROUP)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\ndemuxer:x:7:\ndemux:x:991:alice,bob\n";
        assert_eq!(group_id(groups), Some(991));
        assert_eq!(group_id("root:x:0:\n"), None);
        assert_eq!(group_id("demux\n"), None);
    }
}
