//! Finding every network namespace that is still alive.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns};

use super::{cookie_of_this_thread, is_namespace};
use crate::{
    Error, Result,
    capability::{Capability, require},
};

/// The cookies of all network namespaces that something visible from here keeps alive: a thread, an open
/// descriptor, or a mount such as those of `ip netns`.
///
/// A namespace that only sockets in flight or another PID namespace hold is not found, so absence is a
/// sign of death and not a proof of it.
///
/// # Errors
///
/// Where `/proc` cannot be read; [`Error::MissingCapability`] without CAP_SYS_ADMIN to visit namespaces,
/// or without CAP_SYS_PTRACE and CAP_DAC_OVERRIDE, since what processes of others keep alive would then
/// look dead.
pub fn all_cookies() -> Result<BTreeSet<u64>> {
    require(
        "see the network namespaces of all processes",
        &[
            Capability::SysAdmin,
            Capability::SysPtrace,
            Capability::DacOverride,
        ],
    )?;
    in_all(cookie_of_this_thread)?
        .into_iter()
        .map(|cookie| cookie.map_err(cannot_visit))
        .collect()
}

/// Does something in each network namespace that [`all_cookies`] finds, on a thread of its own.
///
/// # Errors
///
/// As [`all_cookies`].
pub fn in_all<T: Send>(work: impl Fn() -> T + Sync) -> Result<Vec<T>> {
    let namespaces =
        handles().map_err(|source| Error::io("look for network namespaces", source))?;
    let visit = |namespace: &File| {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| cannot_visit(errno.into()))?;
        Ok(work())
    };
    // setns(2) moves a thread for good, so a thread of its own does it.
    thread::scope(|scope| {
        scope
            .spawn(|| namespaces.values().map(visit).collect())
            .join()
    })
    .map_err(|_| Error::Unexpected {
        operation: "visit network namespaces".into(),
        reason: "the visiting thread panicked".into(),
    })?
}

fn cannot_visit(source: io::Error) -> Error {
    Error::privileged(
        "visit other network namespaces",
        source,
        Capability::SysAdmin,
    )
}

/// One open file for each namespace found, by inode number.
fn handles() -> io::Result<BTreeMap<u64, File>> {
    let mut found = Found::default();
    for process in numbered(Path::new("/proc"))? {
        // Processes may end at any moment, and others may forbid us to look.
        for thread in numbered(&process.join("task")).unwrap_or_default() {
            found.add(&thread.join("ns/net"));
        }
        found.add_descriptors(&process);
        found.add_mounts(&process);
    }
    Ok(found.namespaces)
}

#[derive(Default)]
struct Found {
    namespaces: BTreeMap<u64, File>,
    mount_namespaces: BTreeSet<PathBuf>,
}

impl Found {
    fn add(&mut self, path: &Path) {
        let known = |inode| self.namespaces.contains_key(&inode);
        let Ok(metadata) = fs::metadata(path) else {
            return;
        };
        if !known(metadata.ino())
            && let Ok(file) = File::open(path)
            && is_namespace(&file)
            && let Ok(metadata) = file.metadata()
        {
            self.namespaces.insert(metadata.ino(), file);
        }
    }

    fn add_descriptors(&mut self, process: &Path) {
        for descriptor in numbered(&process.join("fd")).unwrap_or_default() {
            if fs::read_link(&descriptor).is_ok_and(|target| is_network_namespace(&target)) {
                self.add(&descriptor);
            }
        }
    }

    /// Adds the namespaces that are mounted in the mount namespace of `process`, once for each of those.
    fn add_mounts(&mut self, process: &Path) {
        let Ok(mount_namespace) = fs::read_link(process.join("ns/mnt")) else {
            return;
        };
        if !self.mount_namespaces.insert(mount_namespace) {
            return;
        }
        let Ok(mounts) = fs::read_to_string(process.join("mountinfo")) else {
            return;
        };
        let root = process.join("root");
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(3);
            if let (Some(source), Some(target)) = (fields.next(), fields.next())
                && is_network_namespace(Path::new(source))
            {
                let target = unescape(target);
                self.add(&root.join(target.trim_start_matches('/')));
            }
        }
    }
}

fn is_network_namespace(target: &Path) -> bool {
    target
        .to_str()
        .is_some_and(|target| target.starts_with("net:["))
}

/// The entries of a directory in /proc whose names are numbers.
fn numbered(directory: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(fs::read_dir(directory)?
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .map(|entry| entry.path())
        .collect())
}

/// Undoes the octal escapes with which mountinfo writes spaces.
pub(crate) fn unescape(field: &str) -> String {
    field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::NetworkNamespace;

    #[test]
    fn the_present_namespace_is_alive() {
        let current = NetworkNamespace::current().unwrap();
        assert!(all_cookies().unwrap().contains(&current.cookie()));
    }

    #[test]
    fn escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
