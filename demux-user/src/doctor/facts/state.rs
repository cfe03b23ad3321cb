//! What is pinned, whose it is, and who serves it.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use demux_common::config::Interface as Entry;

use super::{Fact, reason};
use crate::{
    Error,
    bpffs::BpfFs,
    daemon::{DEFAULT_SOCKET, SOCKET_ENVIRONMENT},
    netns::{NetworkNamespace, all_cookies},
    state::{self, Lock},
    tables::{Access, Tables},
};

/// An instance of any network namespace.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The cookie of its namespace.
    pub id: u64,
    /// Where it is pinned.
    pub path: String,
    /// The group that may read it.
    pub group: Option<u32>,
    /// Whether its namespace is alive; for those who may not look, an error.
    pub is_alive: Fact<bool>,
}

/// The entries of interfaces by index, where there is an instance that can be used.
pub type Present = Result<Option<BTreeMap<u32, Entry>>, Unusable>;

/// Why an instance cannot be used.
#[derive(Clone, Debug)]
pub struct Unusable {
    /// The code of the error.
    pub code: String,
    /// Its line.
    pub reason: String,
    /// Its hint.
    pub hint: Option<String>,
}

/// What there is of demux.
#[derive(Clone, Debug)]
pub struct StateFacts {
    /// The cookie of the present namespace.
    pub here: Option<u64>,
    /// All instances.
    pub instances: Fact<Vec<Instance>>,
    /// Interfaces of the present namespace's instance by index; `None` where nothing is loaded.
    pub instance: Present,
    /// What `demux status` warns of.
    pub warnings: Vec<String>,
    /// The number of the group demux.
    pub group: Option<u32>,
    /// Where the daemon is expected.
    pub socket: String,
    /// Whether one listens there.
    pub has_daemon: Fact<bool>,
}

impl StateFacts {
    pub(super) fn gather(path: &Path, group: Option<u32>) -> Self {
        let socket =
            std::env::var(SOCKET_ENVIRONMENT).unwrap_or_else(|_| DEFAULT_SOCKET.to_owned());
        let here = NetworkNamespace::current()
            .ok()
            .map(|namespace| namespace.cookie());
        let (instances, instance) = match BpfFs::find(Some(path)) {
            Ok(bpffs) => (instances(&bpffs), instance(&bpffs, here)),
            // That is another area's finding.
            Err(_) => (Ok(Vec::new()), Ok(None)),
        };
        Self {
            here,
            instances,
            instance,
            warnings: Vec::new(),
            group,
            has_daemon: is_listened_on(&socket),
            socket,
        }
    }

    /// The interfaces that are loaded, by index.
    pub(super) fn loaded(&self) -> &BTreeMap<u32, Entry> {
        static NONE: BTreeMap<u32, Entry> = BTreeMap::new();
        match &self.instance {
            Ok(Some(interfaces)) => interfaces,
            _ => &NONE,
        }
    }
}

fn instances(bpffs: &BpfFs) -> Fact<Vec<Instance>> {
    let ids = state::list(bpffs).map_err(|error| error.to_string())?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let alive = all_cookies().map_err(|error| error.to_string());
    Ok(ids
        .into_iter()
        .map(|id| {
            let paths = state::Paths::of_instance(bpffs, id);
            let directory = paths.directory();
            Instance {
                id,
                path: directory.display().to_string(),
                group: fs::metadata(directory).ok().map(|metadata| metadata.gid()),
                is_alive: alive
                    .as_ref()
                    .map(|alive| alive.contains(&id))
                    .map_err(Clone::clone),
            }
        })
        .collect())
}

fn instance(bpffs: &BpfFs, here: Option<u64>) -> Present {
    let Some(here) = here else {
        return Ok(None);
    };
    let read = || {
        // Whoever has the lock is at work, and not for long.
        let wait = Duration::from_secs(1);
        let instance = state::Instance::open_within(bpffs, here, Lock::Shared, wait)?;
        let tables = Tables::open(&instance, Access::ReadOnly)?;
        let entries = tables.interfaces()?;
        Ok(entries
            .into_iter()
            .map(|(_, entry)| (entry.ifindex, entry))
            .collect())
    };
    match read() {
        Ok(interfaces) => Ok(Some(interfaces)),
        Err(Error::NotLoaded) => Ok(None),
        Err(error) => Err(Unusable {
            code: error.code().to_owned(),
            reason: error.to_string(),
            hint: error.hint(),
        }),
    }
}

/// Whether a socket of this network namespace listens at a path. Nobody is connected to.
fn is_listened_on(path: &str) -> Fact<bool> {
    const SOCKETS: &str = "/proc/thread-self/net/unix";
    let sockets = fs::read_to_string(SOCKETS).map_err(|error| reason(SOCKETS, &error))?;
    Ok(listens(&sockets, path))
}

/// Whether the lines of /proc/net/unix have a socket that listens at a path.
fn listens(sockets: &str, path: &str) -> bool {
    /// `__SO_ACCEPTCON` in the kernel's `net.h`.
    const LISTENS: &str = "00010000";
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(3) == Some(LISTENS) && fields.nth(3) == Some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_that_listens_at_that_very_path_is_a_daemon() {
        let sockets = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0005 01 27311 /run/demux/demux.sock
0000000000000000: 00000003 00000000 00000000 0001 03 22915 /run/other.sock
0000000000000000: 00000003 00000000 00000000 0001 03 22916
";
        assert!(listens(sockets, "/run/demux/demux.sock"));
        assert!(!listens(sockets, "/run/demux"));
        assert!(!listens(sockets, "/run/other.sock"));
    }
}
