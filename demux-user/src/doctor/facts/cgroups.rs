//! Which hierarchies of control groups are mounted, and where.

use std::fs;

use super::{Fact, bpffs::has_file_system};
use crate::{attach::cgroup, netns::unescape};

/// A hierarchy of control groups that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where.
    pub target: String,
    /// Which part of it: `/` is the whole.
    pub root: String,
    /// Whether it is of version 2.
    pub is_v2: bool,
}

/// Control groups.
#[derive(Clone, Debug)]
pub struct CgroupFacts {
    /// What is mounted.
    pub hierarchies: Vec<Hierarchy>,
    /// Whether the kernel has version 2.
    pub has_kernel: Fact<bool>,
    /// Whether the root of version 2 can be opened, mounted or not.
    pub root: Fact<()>,
}

impl CgroupFacts {
    pub(super) fn gather() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self {
            hierarchies: hierarchies(&mounts),
            has_kernel: has_file_system("cgroup2"),
            root: cgroup::root().map(drop).map_err(|error| error.to_string()),
        }
    }
}

/// The hierarchies in the lines of a mountinfo file.
pub(in crate::doctor) fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    mounts
        .lines()
        .filter_map(|line| {
            let (fields, kind) = line.split_once(" - ")?;
            let is_v2 = match kind.split(' ').next()? {
                "cgroup2" => true,
                "cgroup" => false,
                _ => return None,
            };
            let mut fields = fields.split(' ').skip(3);
            Some(Hierarchy {
                root: unescape(fields.next()?),
                target: unescape(fields.next()?),
                is_v2,
            })
        })
        .collect()
}
