//! The control group of a command: made for it, and removed when nothing is left in it.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process,
};

use rustix::{
    fs::{AtFlags, FlockOperation, Mode, OFlags, RawDir, flock, fstat, mkdirat, openat, unlinkat},
    rand::{GetRandomFlags, getrandom},
};

use crate::{Error, Result, attach::cgroup, capability::Capability};

/// Begins the names of all groups of `demux exec`.
const PREFIX: &str = "demux-exec-";

/// How often a new group is made that somebody has taken for a leftover.
const ATTEMPTS: u32 = 8;

/// A control group. Who holds it open has a lock on its directory, by which others see that it is no
/// leftover.
#[derive(Debug)]
pub(super) struct Group {
    parent: OwnedFd,
    name: String,
    directory: OwnedFd,
    id: u64,
}

impl Group {
    /// Makes one below the group that this process is in, or below the root where processes cannot
    /// be put into groups below it; and removes what others have left there.
    pub(super) fn create() -> Result<Self> {
        let root = cgroup::root().map_err(|source| {
            Error::privileged("find the control groups", source, Capability::SysAdmin)
        })?;
        if let Some(own) = own(&root) {
            let group = Self::create_below(own)?;
            if group.takes_processes() {
                return Ok(group);
            }
            group.remove();
        }
        Self::create_below(root)
    }

    fn create_below(parent: OwnedFd) -> Result<Self> {
        remove_leftovers(&parent);
        for _ in 0..ATTEMPTS {
            if let Some(group) = Self::attempt(&parent)? {
                let (name, directory, id) = group;
                return Ok(Self {
                    parent,
                    name,
                    directory,
                    id,
                });
            }
        }
        Err(Error::unexpected(
            "make a control group",
            "it was removed each time",
        ))
    }

    /// `None` where somebody has removed it before it was locked.
    fn attempt(parent: &OwnedFd) -> Result<Option<(String, OwnedFd, u64)>> {
        let mut random = [0; 4];
        getrandom(&mut random, GetRandomFlags::empty())
            .map_err(|source| Error::io("get random numbers", source))?;
        let number = u32::from_ne_bytes(random);
        let name = format!("{PREFIX}{}-{number:08x}", process::id());
        let failed =
            |source: rustix::io::Errno| Error::io(format!("make the control group {name}"), source);
        mkdirat(parent, name.as_str(), Mode::from_raw_mode(0o755)).map_err(failed)?;
        let directory = match open_directory(parent, &name) {
            Ok(directory) => directory,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        if flock(&directory, FlockOperation::NonBlockingLockShared).is_err() {
            return Ok(None);
        }
        let is_there = rustix::fs::statat(parent, name.as_str(), AtFlags::empty()).is_ok();
        // The number of a group is that of its inode.
        let id = fstat(&directory).map_err(failed)?.st_ino;
        Ok(is_there.then_some((name, directory, id)))
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Where a process writes its number, or 0 for itself, to be in the group.
    pub(super) fn processes(&self) -> Result<OwnedFd> {
        self.open("cgroup.procs", OFlags::WRONLY)
    }

    /// What tells whether there is a process in the group or below it.
    pub(super) fn events(&self) -> Result<Events> {
        Ok(Events(File::from(
            self.open("cgroup.events", OFlags::RDONLY)?,
        )))
    }

    /// Removes the group, if nothing is in it; tells whether it is gone.
    pub(super) fn remove(&self) -> bool {
        remove(&self.parent, &self.name)
    }

    fn open(&self, file: &str, flags: OFlags) -> Result<OwnedFd> {
        openat(
            &self.directory,
            file,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|source| Error::io(format!("open {file} of the group {}", self.name), source))
    }

    /// Below a threaded group there are none that do.
    fn takes_processes(&self) -> bool {
        let mut kind = String::new();
        self.open("cgroup.type", OFlags::RDONLY)
            .is_ok_and(|file| File::from(file).read_to_string(&mut kind).is_ok())
            && kind.trim_end() == "domain"
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The file `cgroup.events`, which is ready for poll(2) with POLLPRI when it has changed since it was
/// read.
#[derive(Debug)]
pub(super) struct Events(File);

impl Events {
    /// Whether there is a process in the group or below it; a group that is gone has none.
    pub(super) fn is_populated(&self) -> bool {
        use std::os::unix::fs::FileExt as _;
        let mut text = [0; 128];
        let length = self.0.read_at(&mut text, 0).unwrap_or(0);
        String::from_utf8_lossy(&text[..length])
            .lines()
            .any(|line| line == "populated 1")
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The group that this process is in, opened; `None` where it is not below the root that is seen.
fn own(root: &OwnedFd) -> Option<OwnedFd> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own_path(&groups)?;
    open_directory(root, if path.is_empty() { "." } else { path }).ok()
}

/// The path below the root in what `/proc/PID/cgroup` says.
fn own_path(groups: &str) -> Option<&str> {
    let path = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))?
        .trim_end_matches(" (deleted)");
    // Out of the namespace of control groups.
    let is_outside = Path::new(path)
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    (!is_outside).then_some(path)
}

fn open_directory(parent: impl AsFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    openat(parent, path, flags, Mode::empty())
}

/// Removes groups that nobody watches any more, because their watchers were killed; one that is not
/// empty stays.
fn remove_leftovers(parent: &OwnedFd) {
    for name in names(parent).unwrap_or_default() {
        let Ok(directory) = open_directory(parent, &name) else {
            continue;
        };
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(parent, &name);
        }
    }
}

fn names(parent: &OwnedFd) -> io::Result<Vec<String>> {
    let directory = open_directory(parent, ".")?;
    let mut buffer = Vec::with_capacity(8192);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) {
            names.push(name);
        }
    }
    Ok(names)
}

fn remove(parent: &OwnedFd, name: &str) -> bool {
    matches!(
        unlinkat(parent, name, AtFlags::REMOVEDIR),
        Ok(()) | Err(rustix::io::Errno::NOENT)
    )
}

#[cfg(test)]
mod tests {
    use super::own_path;

    #[test]
    fn the_own_group_is_that_of_the_second_hierarchy() {
        let groups = "8:pids:/a\n0::/user.slice/b.scope\n";
        assert_eq!(own_path(groups), Some("user.slice/b.scope"));
        assert_eq!(own_path("0::/\n"), Some(""));
        assert_eq!(own_path("0::/../b\n"), None);
        assert_eq!(own_path("8:pids:/a\n"), None);
    }
}
