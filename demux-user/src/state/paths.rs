//! The names of the pins. No other file spells them.

use std::path::{Path, PathBuf};

use super::entries;
use crate::{Result, bpffs::BpfFs};

/// The directory below the BPF file system that holds all instances.
const ROOT: &str = "demux";

const PROGRAMS: &str = "progs";
const NEXT_PROGRAMS: &str = "progs-next";
const UNFINISHED: &str = "unfinished";
const LINKS: &str = "links";
const NAMES: &str = "names";
const XDP_LINK: &str = "xdp_";
const EGRESS_LINK: &str = "egress_";
const EGRESS_FILTER: &str = "clsact_";
const NEXT_FILTER: &str = "next_clsact_";
const BIND_LINK: &str = "bind_";

/// Begins the name of an instance that is not complete. The BPF file system refuses names with a dot.
pub(super) const NEW: &str = "new-";

/// Where the objects of one instance are pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    directory: PathBuf,
}

impl Paths {
    pub(super) fn root(bpffs: &BpfFs) -> PathBuf {
        bpffs.path().join(ROOT)
    }

    pub(crate) fn of_instance(bpffs: &BpfFs, id: u64) -> Self {
        Self {
            directory: Self::root(bpffs).join(id.to_string()),
        }
    }

    /// Where the instance of the network namespace with this cookie is, if there is one.
    pub fn of(bpffs: &BpfFs, id: u64) -> Self {
        Self::of_instance(bpffs, id)
    }

    pub(super) fn of_new_instance(bpffs: &BpfFs, id: u64) -> Self {
        Self::of_leftover(bpffs, &format!("{NEW}{id}"))
    }

    pub(super) fn of_leftover(bpffs: &BpfFs, name: &str) -> Self {
        Self {
            directory: Self::root(bpffs).join(name),
        }
    }

    #[cfg(test)]
    pub(super) fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Where an instance goes that is about to be removed.
    pub(super) fn of_retired(paths: &Self, id: u64) -> Self {
        Self {
            directory: paths.directory.with_file_name(format!("{NEW}{id}")),
        }
    }

    /// The directory of all instances.
    pub(super) fn root_directory(&self) -> PathBuf {
        let mut root = self.directory.clone();
        root.pop();
        root
    }

    /// The directory of the instance itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The pin of a map, by the map's name.
    pub fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory of programs.
    pub fn programs(&self) -> PathBuf {
        self.directory.join(PROGRAMS)
    }

    /// The pin of a program, by the program's name.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs().join(name)
    }

    /// The directory of programs that are about to take the place of those in [`Paths::programs`], or
    /// that have just given it up.
    pub fn next_programs(&self) -> PathBuf {
        self.directory.join(NEXT_PROGRAMS)
    }

    /// The pin of such a program, by the program's name.
    pub fn next_program(&self, name: &str) -> PathBuf {
        self.next_programs().join(name)
    }

    /// The directory that is there while a command changes the instance, and after one that was killed.
    pub fn unfinished(&self) -> PathBuf {
        self.directory.join(UNFINISHED)
    }

    /// The directory of links.
    pub fn links(&self) -> PathBuf {
        self.directory.join(LINKS)
    }

    /// The directory of the names of interfaces.
    pub fn names(&self) -> PathBuf {
        self.directory.join(NAMES)
    }

    /// The symbolic link to the name of the interface with this index.
    pub fn name(&self, ifindex: u32) -> PathBuf {
        self.names().join(ifindex.to_string())
    }

    /// The pin of the link that attaches XDP to the interface with this index.
    pub fn xdp_link(&self, ifindex: u32) -> PathBuf {
        self.links().join(format!("{XDP_LINK}{ifindex}"))
    }

    /// The pin of the link that attaches the egress program to the interface with this index.
    pub fn egress_link(&self, ifindex: u32) -> PathBuf {
        self.links().join(format!("{EGRESS_LINK}{ifindex}"))
    }

    /// The pin of the egress program that says that a filter holds it on the interface with this index.
    pub fn egress_filter(&self, ifindex: u32) -> PathBuf {
        self.links().join(format!("{EGRESS_FILTER}{ifindex}"))
    }

    /// A pin that is about to become [`Paths::egress_filter`].
    pub fn next_egress_filter(&self, ifindex: u32) -> PathBuf {
        self.links().join(format!("{NEXT_FILTER}{ifindex}"))
    }

    /// The pin of the link that attaches a program to bind(2), by the program's name.
    pub fn bind_link(&self, program: &str) -> PathBuf {
        self.links().join(format!("{BIND_LINK}{program}"))
    }

    /// The names of the maps pinned, in alphabetical order.
    ///
    /// # Errors
    ///
    /// EACCES without permission to read the directory.
    pub fn map_names(&self) -> Result<Vec<String>> {
        let mut names = entries(&self.directory)?;
        let others = [PROGRAMS, NEXT_PROGRAMS, UNFINISHED, LINKS, NAMES];
        names.retain(|name| !others.contains(&name.as_str()));
        names.sort_unstable();
        Ok(names)
    }

    /// The names of the programs pinned, in alphabetical order.
    ///
    /// # Errors
    ///
    /// EACCES without permission to read the directory.
    pub fn program_names(&self) -> Result<Vec<String>> {
        let mut names = entries(&self.programs())?;
        names.sort_unstable();
        Ok(names)
    }

    /// The indexes of the interfaces that an XDP link is pinned for, in ascending order.
    ///
    /// # Errors
    ///
    /// EACCES without permission to read the directory.
    pub fn xdp_links(&self) -> Result<Vec<u32>> {
        self.link_indexes(XDP_LINK)
    }

    /// The indexes of the interfaces that an egress link is pinned for, in ascending order.
    ///
    /// # Errors
    ///
    /// EACCES without permission to read the directory.
    pub fn egress_links(&self) -> Result<Vec<u32>> {
        self.link_indexes(EGRESS_LINK)
    }

    /// The indexes of the interfaces that have or had an egress filter, in ascending order.
    ///
    /// # Errors
    ///
    /// EACCES without permission to read the directory.
    pub fn egress_filters(&self) -> Result<Vec<u32>> {
        self.link_indexes(EGRESS_FILTER)
    }

    fn link_indexes(&self, prefix: &str) -> Result<Vec<u32>> {
        let mut indexes: Vec<u32> = entries(&self.links())?
            .iter()
            .filter_map(|name| name.strip_prefix(prefix)?.parse().ok())
            .collect();
        indexes.sort_unstable();
        Ok(indexes)
    }
}
