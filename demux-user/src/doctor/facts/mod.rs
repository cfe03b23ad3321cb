//! What is known about a machine before anything is judged. Gathering changes nothing that stays.

mod bpffs;
mod cgroups;
mod interfaces;
mod kernel;
mod object;
mod rights;
mod security;
mod state;

use std::{fs, io, path::Path};

pub use self::{
    bpffs::{BpfFsFacts, Step},
    cgroups::{CgroupFacts, Hierarchy},
    interfaces::InterfaceFacts,
    kernel::{Feature, KernelFacts, Probed},
    object::{Needs, needs},
    rights::RightsFacts,
    security::SecurityFacts,
    state::{Instance, Present, StateFacts, Unusable},
};
use crate::{Result, bpffs::BpfFs, state::reading_group};

#[cfg(test)]
pub(in crate::doctor) use self::{cgroups::hierarchies, security::chosen};

/// Something that is known, or why it is not.
pub type Fact<T> = std::result::Result<T, String>;

/// Everything that is judged.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The kernel.
    pub kernel: KernelFacts,
    /// The BPF file system.
    pub bpffs: BpfFsFacts,
    /// Control groups.
    pub cgroups: CgroupFacts,
    /// The caller.
    pub rights: RightsFacts,
    /// Security modules.
    pub security: SecurityFacts,
    /// Interfaces.
    pub interfaces: Vec<InterfaceFacts>,
    /// What is loaded.
    pub state: StateFacts,
}

impl Facts {
    /// Gathers them, of the BPF file system at `bpffs` (by default [`BpfFs::DEFAULT`]) and of the
    /// interfaces `names`; where none is named, of those that demux is attached to, and where there are
    /// none either, of those that are up and could be loaded.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownInterface`](crate::Error::UnknownInterface).
    pub fn gather(bpffs: Option<&Path>, names: &[String]) -> Result<Self> {
        let path = bpffs.unwrap_or(Path::new(BpfFs::DEFAULT));
        let group = reading_group();
        let kernel = KernelFacts::gather();
        let state = StateFacts::gather(path, group);
        let interfaces = interfaces::gather(names, state.loaded())?;
        Ok(Self {
            bpffs: BpfFsFacts::gather(path, group),
            cgroups: CgroupFacts::gather(),
            rights: RightsFacts::gather(group, kernel.version),
            security: SecurityFacts::gather(),
            interfaces,
            kernel,
            state,
        })
    }
}

/// A file of the kernel that holds a word; `Ok(None)` where there is none.
fn word(path: &str) -> Fact<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(reason(path, &error)),
    }
}

/// As [`word`], of a number.
fn number(path: &str) -> Fact<Option<u32>> {
    word(path)?
        .map(|word| {
            word.parse()
                .map_err(|_| format!("{path} holds {word:?}, which is no number"))
        })
        .transpose()
}

/// Why something could not be looked at.
fn reason(what: &str, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        format!("{what} needs root")
    } else {
        format!("{what}: {error}")
    }
}
