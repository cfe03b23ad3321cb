//! What the caller may do.

use rustix::{
    process::{Resource, getegid, geteuid, getgroups, getrlimit},
    thread::capabilities,
};

use super::{Fact, number};
use crate::{
    capability::{Capability, is_initial_user_namespace},
    kernel::Version,
};

/// The caller.
#[derive(Clone, Debug)]
pub struct RightsFacts {
    /// The effective user.
    pub user: u32,
    /// The groups it is in.
    pub groups: Vec<u32>,
    /// The capabilities in effect, of those that matter to demux.
    pub capabilities: Fact<Vec<Capability>>,
    /// Whether they count for the whole system.
    pub is_initial_user_namespace: bool,
    /// How many bytes may be locked in memory; `None` is no limit.
    pub memlock: Option<u64>,
    /// The number of the group demux.
    pub group: Option<u32>,
    /// The kernel.
    pub version: Option<Version>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_disabled: Fact<Option<u32>>,
}

impl RightsFacts {
    pub(super) fn gather(group: Option<u32>, version: Option<Version>) -> Self {
        let mut groups: Vec<u32> = getgroups()
            .unwrap_or_default()
            .into_iter()
            .chain([getegid()])
            .map(rustix::process::Gid::as_raw)
            .collect();
        groups.sort_unstable();
        groups.dedup();
        Self {
            user: geteuid().as_raw(),
            groups,
            capabilities: capabilities(None)
                .map(|sets| {
                    Capability::ALL
                        .into_iter()
                        .filter(|capability| capability.is_in(sets.effective))
                        .collect()
                })
                .map_err(|errno| errno.to_string()),
            is_initial_user_namespace: is_initial_user_namespace(),
            memlock: getrlimit(Resource::Memlock).current,
            group,
            version,
            unprivileged_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
        }
    }
}
