//! The BPF file system that holds the pins: finding it, mounting it, and refusing one that would vanish.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        stat::{major, minor},
        statfs::{FsType, statfs},
        statvfs::{FsFlags, statvfs},
    },
};

use crate::{
    Error, Result,
    netns::{NetworkNamespace, unescape},
};

/// `BPF_FS_MAGIC` in the kernel's `magic.h`.
const MAGIC: FsType = FsType(0xcafe_4a11);

/// `SYSFS_MAGIC`, likewise.
const SYSFS_MAGIC: FsType = FsType(0x6265_6572);

/// The mounts as the first process sees them, which are those that outlive a private mount namespace.
/// Unlike `/proc/1/root` and `/proc/1/ns/mnt`, it can be read without permission to trace that process.
const LASTING_MOUNTS: &str = "/proc/1/mountinfo";

/// A directory in a mounted BPF file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfFs {
    path: PathBuf,
}

impl BpfFs {
    /// Where it is by convention.
    pub const DEFAULT: &str = "/sys/fs/bpf";

    /// The environment variable that names another place.
    pub const ENVIRONMENT: &str = "DEMUX_BPFFS";

    /// Finds the file system at `path`, by default [`BpfFs::DEFAULT`], and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoBpfFs`] where none is mounted there, [`Error::PrivateBpfFs`] where the present mount
    /// namespace, such as that of `ip netns exec`, hides the lasting one.
    pub fn find(path: Option<&Path>) -> Result<Self> {
        let path = path.unwrap_or(Path::new(Self::DEFAULT));
        if is_mounted(path)? {
            if !is_lasting(path) {
                return Err(private(path));
            }
            return Ok(Self { path: path.into() });
        }
        if is_private_sysfs(path) {
            return Err(private(path));
        }
        Err(Error::NoBpfFs(path.into()))
    }

    /// As [`BpfFs::find`], but mounts the file system where it is not mounted yet.
    /// Needs CAP_SYS_ADMIN only then.
    ///
    /// # Errors
    ///
    /// [`Error::CannotMount`] where that fails; [`Error::PrivateBpfFs`] where the mount would be private,
    /// and then nothing stays mounted.
    pub fn find_or_mount(path: Option<&Path>) -> Result<Self> {
        let path = match Self::find(path) {
            Err(Error::NoBpfFs(path)) => path,
            result => return result,
        };
        let failed = |reason: String| Error::CannotMount {
            path: path.clone(),
            reason,
        };
        if !fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(failed("there is no such directory".into()));
        }
        let is_empty = fs::read_dir(&path)
            .map_err(|source| Error::io(format!("read {}", path.display()), source))?
            .next()
            .is_none();
        if !is_empty {
            return Err(failed("the directory is not empty".into()));
        }
        // The group that may read maps must be able to reach them; what it may see there, modes say.
        mount(
            Some("bpf"),
            &path,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some("mode=0755"),
        )
        .map_err(|errno| match errno {
            Errno::EPERM | Errno::EACCES => Error::MissingCapability {
                operation: format!("mount the BPF file system at {}", path.display()),
                missing: vec!["CAP_SYS_ADMIN"],
            },
            Errno::ENODEV => failed("the kernel has no BPF file system".into()),
            errno => failed(errno.desc().into()),
        })?;
        if !is_lasting(&path) {
            // It is empty and ours, and a second attempt should find things as this one did.
            let _ = umount2(&path, MntFlags::MNT_DETACH);
            return Err(private(&path));
        }
        Ok(Self { path })
    }

    /// Refuses a file system in which nothing can be changed.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnlyBpfFs`].
    pub fn require_writable(&self) -> Result<()> {
        if is_read_only(&self.path) {
            return Err(Error::ReadOnlyBpfFs(self.path.clone()));
        }
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the file system at `path`, or its mount there, is read-only; `false` where that cannot be seen.
pub(crate) fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|status| status.flags().contains(FsFlags::ST_RDONLY))
}

/// Where BPF file systems are mounted, as this process sees it.
pub(crate) fn mounts() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let (fields, kind) = line.split_once(" - ")?;
            let target = fields.split(' ').nth(4)?;
            kind.starts_with("bpf ").then(|| unescape(target).into())
        })
        .collect()
}

fn private(path: &Path) -> Error {
    Error::PrivateBpfFs {
        path: path.into(),
        namespace: NetworkNamespace::current()
            .ok()
            .and_then(|namespace| namespace.name()),
    }
}

fn is_mounted(path: &Path) -> Result<bool> {
    match statfs(path) {
        Ok(status) => Ok(status.filesystem_type() == MAGIC),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
        Err(errno) => Err(Error::io(
            format!("look for a BPF file system at {}", path.display()),
            errno,
        )),
    }
}

/// Whether `path` is in a /sys that the first process does not have, such as the one `ip netns exec` mounts.
fn is_private_sysfs(path: &Path) -> bool {
    let is_sysfs = statfs(path).is_ok_and(|status| status.filesystem_type() == SYSFS_MAGIC);
    is_sysfs && !is_lasting(path)
}

/// Whether the first process has the file system that `path` is in.
/// Where /proc hides that process, nothing can be said, and nothing is refused.
fn is_lasting(path: &Path) -> bool {
    match (fs::metadata(path), fs::read_to_string(LASTING_MOUNTS)) {
        (Ok(metadata), Ok(mounts)) => shows(&mounts, metadata.dev()),
        _ => true,
    }
}

/// Whether the lines of a mountinfo file contain the file system of `device`.
fn shows(mounts: &str, device: u64) -> bool {
    let device = format!("{}:{}", major(device), minor(device));
    mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some(&device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_own_field() {
        let mounts = "23 27 0:22 / /sys rw shared:7 - sysfs sysfs rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n";
        let device = |major, minor| nix::sys::stat::makedev(major, minor);
        assert!(shows(mounts, device(0, 22)));
        assert!(shows(mounts, device(254, 0)));
        assert!(!shows(mounts, device(0, 2)));
        assert!(!shows(mounts, device(27, 1)));
    }

    #[test]
    fn a_directory_without_a_bpf_file_system_means_not_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let error = BpfFs::find(Some(directory.path())).unwrap_err();
        assert_eq!((error.code(), error.exit_status()), ("not_loaded", 3));
    }

    #[test]
    fn a_directory_that_holds_something_is_not_mounted_over() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let error = BpfFs::find_or_mount(Some(directory.path())).unwrap_err();
        assert_eq!(error.code(), "bpffs_unavailable");
        let error = BpfFs::find_or_mount(Some(&directory.path().join("none"))).unwrap_err();
        assert_eq!(error.code(), "bpffs_unavailable");
    }
}
