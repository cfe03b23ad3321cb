//! What the caller is allowed to do.

use std::{fs, os::unix::fs::MetadataExt as _};

use rustix::thread::{CapabilitySet, capabilities};

use crate::{Error, Result};

/// The inode number of the first user namespace (`PROC_USER_INIT_INO` in the kernel's `proc_ns.h`).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// A capability that something in demux needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// To create maps and load programs.
    Bpf,
    /// To load and attach network programs, and to change interfaces.
    NetAdmin,
    /// To send packets that no protocol of the kernel has made.
    NetRaw,
    /// To load programs that the verifier trusts with more.
    Perfmon,
    /// To bind ports that are privileged.
    NetBindService,
    /// To open pins of others, and to make some in directories of others.
    DacOverride,
    /// To look into processes of others.
    SysPtrace,
    /// To mount, to enter namespaces, and to look at objects of others.
    SysAdmin,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Bpf,
        Self::NetAdmin,
        Self::NetRaw,
        Self::Perfmon,
        Self::NetBindService,
        Self::DacOverride,
        Self::SysPtrace,
        Self::SysAdmin,
    ];

    /// Its name, such as `CAP_BPF`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::Perfmon => "CAP_PERFMON",
            Self::NetBindService => "CAP_NET_BIND_SERVICE",
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
        }
    }

    /// Those of which one is enough: CAP_SYS_ADMIN still includes what was split off from it in Linux 5.8.
    fn any_of(self) -> CapabilitySet {
        match self {
            Self::Bpf => CapabilitySet::BPF | CapabilitySet::SYS_ADMIN,
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::NetRaw => CapabilitySet::NET_RAW,
            Self::Perfmon => CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN,
            Self::NetBindService => CapabilitySet::NET_BIND_SERVICE,
            Self::DacOverride => CapabilitySet::DAC_OVERRIDE,
            Self::SysPtrace => CapabilitySet::SYS_PTRACE,
            Self::SysAdmin => CapabilitySet::SYS_ADMIN,
        }
    }

    /// Whether a set has it, or another that includes it.
    pub(crate) fn is_in(self, set: CapabilitySet) -> bool {
        set.intersects(self.any_of())
    }
}

/// Refuses callers that lack one of the capabilities `needed`, which `operation` names the reason for:
/// it reads on after the words "not permitted to".
///
/// # Errors
///
/// [`Error::MissingCapability`] with all that are missing.
pub fn require(operation: &str, needed: &[Capability]) -> Result<()> {
    let effective = capabilities(None)
        .map_err(|errno| Error::io("read the capabilities of this process", errno))?
        .effective;
    let missing: Vec<_> = needed
        .iter()
        .filter(|capability| !effective.intersects(capability.any_of()))
        .map(|capability| capability.name())
        .collect();
    if !missing.is_empty() {
        return Err(Error::MissingCapability {
            operation: operation.into(),
            missing,
        });
    }
    if !needed.is_empty() && !is_initial_user_namespace() {
        // Capabilities here count for nothing in bpf(2).
        return Err(Error::MissingCapability {
            operation: format!("{operation} in a user namespace"),
            missing: needed.iter().map(|capability| capability.name()).collect(),
        });
    }
    Ok(())
}

/// Whether capabilities are those of the whole system; assumed where /proc does not tell.
pub(crate) fn is_initial_user_namespace() -> bool {
    fs::metadata("/proc/self/ns/user")
        .map_or(true, |namespace| namespace.ino() == INITIAL_USER_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CapabilitySets, set_capabilities};

    use super::*;

    const ALL: [Capability; 4] = [
        Capability::Bpf,
        Capability::NetAdmin,
        Capability::Perfmon,
        Capability::SysAdmin,
    ];

    /// What is missing, of all, for a thread that has these. Needs root.
    fn missing_with(effective: CapabilitySet) -> Vec<&'static str> {
        std::thread::spawn(move || {
            let sets = CapabilitySets {
                effective,
                permitted: effective,
                inheritable: CapabilitySet::empty(),
            };
            set_capabilities(None, sets).expect("dropping capabilities (needs root)");
            match require("do it", &ALL) {
                Ok(()) => Vec::new(),
                Err(Error::MissingCapability { missing, .. }) => missing,
                Err(error) => panic!("{error}"),
            }
        })
        .join()
        .unwrap()
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            missing_with(CapabilitySet::empty()),
            ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_SYS_ADMIN"]
        );
        assert_eq!(
            missing_with(CapabilitySet::BPF | CapabilitySet::NET_ADMIN),
            ["CAP_PERFMON", "CAP_SYS_ADMIN"]
        );
        assert_eq!(missing_with(CapabilitySet::SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert_eq!(
            missing_with(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN),
            [""; 0]
        );
    }

    #[test]
    fn the_error_reads_as_a_sentence() {
        let error = Error::MissingCapability {
            operation: "load programs".into(),
            missing: vec!["CAP_BPF", "CAP_NET_ADMIN"],
        };
        assert_eq!(
            error.to_string(),
            "not permitted to load programs: CAP_BPF and CAP_NET_ADMIN missing"
        );
        assert_eq!(
            (error.code(), error.exit_status()),
            ("permission_denied", 4)
        );
    }
}
