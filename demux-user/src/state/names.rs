//! The names of an instance's interfaces, kept beside its pins: `names/<index>` is a symbolic link to
//! the name.
//!
//! An entry in the maps has an interface by index, and one that vanishes and returns has another index.
//! Who writes names holds the exclusive lock.

use std::{collections::BTreeMap, fs, io, os::unix::fs::symlink};

use super::{Paths, access, entries};
use crate::{Error, Result};

/// The names that are kept, by index.
///
/// # Errors
///
/// EACCES without permission to read the directory.
pub fn kept_names(paths: &Paths) -> Result<BTreeMap<u32, String>> {
    let mut names = BTreeMap::new();
    for entry in entries(&paths.names())? {
        let Ok(index) = entry.parse() else { continue };
        // One that goes meanwhile is none.
        if let Ok(name) = fs::read_link(paths.name(index)) {
            names.insert(index, name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Keeps the name of the interface with this index.
///
/// # Errors
///
/// Where it cannot be written.
pub fn keep_name(paths: &Paths, index: u32, name: &str) -> Result<()> {
    let path = paths.name(index);
    if fs::read_link(&path).is_ok_and(|kept| kept.as_os_str() == name) {
        return Ok(());
    }
    forget_name(paths, index)?;
    // Instances of earlier versions have no such directory.
    if !paths.names().is_dir() {
        access::create_directory(&paths.names())?;
    }
    symlink(name, &path)
        .map_err(|source| Error::io(format!("keep the name {}", path.display()), source))
}

/// Forgets the name of the interface with this index, if it is kept.
///
/// # Errors
///
/// Where it cannot be removed.
pub fn forget_name(paths: &Paths, index: u32) -> Result<()> {
    let path = paths.name(index);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), source))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::paths::Paths;

    #[test]
    fn a_name_is_kept_changed_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::at(directory.path());
        assert!(kept_names(&paths).unwrap().is_empty());
        keep_name(&paths, 7, "eth0.5").unwrap();
        keep_name(&paths, 9, "eth1").unwrap();
        keep_name(&paths, 7, "uplink").unwrap();
        let kept: Vec<_> = kept_names(&paths).unwrap().into_iter().collect();
        assert_eq!(kept, [(7, "uplink".to_owned()), (9, "eth1".to_owned())]);
        forget_name(&paths, 7).unwrap();
        forget_name(&paths, 7).unwrap();
        assert_eq!(kept_names(&paths).unwrap().len(), 1);
    }
}
