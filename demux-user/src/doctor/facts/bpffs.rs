//! Where the BPF file system is, and who gets through to it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Fact, reason};
use crate::{
    Error,
    bpffs::{self, BpfFs},
};

/// A directory on the way to the BPF file system, or that file system's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The directory.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Its group.
    pub group: u32,
}

/// The BPF file system.
#[derive(Clone, Debug)]
pub struct BpfFsFacts {
    /// Where it is looked for.
    pub path: PathBuf,
    /// Whether it is mounted there.
    pub is_mounted: Fact<bool>,
    /// Where it is private to a mount namespace, why that is an error and what to do.
    pub private: Option<(String, Option<String>)>,
    /// Whether the kernel has such a file system.
    pub has_kernel: Fact<bool>,
    /// Whether nothing can be changed in it.
    pub is_read_only: bool,
    /// Where else it is mounted.
    pub others: Vec<PathBuf>,
    /// Every directory from the root to it, that itself included.
    pub way: Vec<Step>,
    /// The number of the group demux.
    pub group: Option<u32>,
}

impl BpfFsFacts {
    pub(super) fn gather(path: &Path, group: Option<u32>) -> Self {
        let (is_mounted, private) = match BpfFs::find(Some(path)) {
            Ok(_) => (Ok(true), None),
            Err(Error::NoBpfFs(_)) => (Ok(false), None),
            Err(error @ Error::PrivateBpfFs { .. }) => {
                (Ok(true), Some((error.to_string(), error.hint())))
            }
            Err(error) => (Err(error.to_string()), None),
        };
        Self {
            path: path.to_owned(),
            is_mounted,
            private,
            has_kernel: has_file_system("bpf"),
            is_read_only: bpffs::is_read_only(path),
            others: bpffs::mounts()
                .into_iter()
                .filter(|other| other != path)
                .collect(),
            way: way(path),
            group,
        }
    }
}

/// Whether the kernel knows a file system of this kind, as a module that is loaded or built in.
pub(super) fn has_file_system(kind: &str) -> Fact<bool> {
    const PATH: &str = "/proc/filesystems";
    let known = fs::read_to_string(PATH).map_err(|error| reason(PATH, &error))?;
    Ok(known
        .lines()
        .any(|line| line.split_whitespace().next_back() == Some(kind)))
}

fn way(path: &Path) -> Vec<Step> {
    let mut way: Vec<Step> = path
        .ancestors()
        .filter_map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some(Step {
                path: path.to_owned(),
                mode: metadata.mode() & 0o7777,
                group: metadata.gid(),
            })
        })
        .collect();
    way.reverse();
    way
}
