//! What the caller may do with demux, and what capabilities it lacks for the rest.

use super::{Area, Finding, Severity, facts::RightsFacts};
use crate::{capability::Capability, kernel::Version};

/// The first kernel that leaves bpf(2) on descriptors to those who may open the pins (commit
/// c8644cd0efe7): before, `kernel.unprivileged_bpf_disabled` closes it to everybody without CAP_BPF.
const READERS_NEED_NOTHING: Version = Version {
    major: 5,
    minor: 19,
};

/// What needs which capabilities, beside reading.
const WORK: &[(&str, &str, &[Capability])] = &[
    (
        "rights-load",
        "load and attach programs (load, unload, bind to drop, reject or xsk)",
        &[Capability::Bpf, Capability::NetAdmin, Capability::Perfmon],
    ),
    (
        "rights-write",
        "open pins that are root's (every command that changes something)",
        &[Capability::DacOverride],
    ),
    (
        "rights-kill",
        "end sockets and send resets (kill)",
        &[Capability::NetAdmin, Capability::NetRaw],
    ),
    (
        "rights-ports",
        "bind privileged ports",
        &[Capability::NetBindService],
    ),
    (
        "rights-namespaces",
        "mount, and enter network namespaces (-N)",
        &[Capability::SysAdmin],
    ),
    (
        "rights-clean",
        "see the network namespaces of all processes (clean)",
        &[Capability::SysAdmin, Capability::SysPtrace],
    ),
];

pub(super) fn judge(facts: &RightsFacts) -> Vec<Finding> {
    let mut findings = vec![read(facts)];
    findings.extend(capabilities(facts));
    findings.push(group(facts));
    findings.extend(unprivileged(facts));
    findings.extend(memlock(facts));
    findings
}

fn finding(id: &'static str, severity: Severity, summary: impl Into<String>) -> Finding {
    Finding::new(Area::Rights, id, severity, summary)
}

fn is_in_group(facts: &RightsFacts) -> bool {
    facts
        .group
        .is_some_and(|group| facts.groups.contains(&group))
}

fn has(facts: &RightsFacts, capability: Capability) -> bool {
    // What root's pins need is not needed by root, who owns them.
    let is_owner = capability == Capability::DacOverride && facts.user == 0;
    let held = facts.capabilities.as_deref().unwrap_or_default();
    is_owner || held.contains(&capability)
}

fn read(facts: &RightsFacts) -> Finding {
    const ID: &str = "rights-read";
    let user = facts.user;
    if has(facts, Capability::DacOverride) {
        finding(ID, Severity::Ok, format!("user {user} may read everything"))
    } else if is_in_group(facts) {
        finding(
            ID,
            Severity::Ok,
            format!("user {user} may read as a member of the group demux"),
        )
    } else {
        finding(ID, Severity::Note, format!("user {user} may not read"))
            .meaning("status, connections and the other nouns end with exit status 4")
            .fix("run it as root, or: usermod -aG demux USER, and log in again")
    }
}

fn capabilities(facts: &RightsFacts) -> Vec<Finding> {
    if let Err(reason) = &facts.capabilities {
        let what = "capabilities of the caller";
        return vec![Finding::unknown(Area::Rights, "rights-load", what, reason)];
    }
    let held = facts
        .capabilities
        .as_ref()
        .is_ok_and(|held| !held.is_empty());
    if held && !facts.is_initial_user_namespace {
        return vec![
            finding(
                "rights-namespace",
                Severity::Note,
                "the capabilities of this process are those of a user namespace",
            )
            .meaning("they count for nothing in bpf(2), so it can change nothing")
            .fix("run it as root outside of the container"),
        ];
    }
    WORK.iter()
        .map(|(id, work, needed)| {
            let missing: Vec<_> = needed
                .iter()
                .filter(|capability| !has(facts, **capability))
                .map(|capability| capability.name())
                .collect();
            if missing.is_empty() {
                finding(id, Severity::Ok, format!("may {work}"))
            } else {
                let missing = missing.join(" and ");
                finding(
                    id,
                    Severity::Note,
                    format!("may not {work}: {missing} missing"),
                )
                .fix("run it as root, or grant the capability")
            }
        })
        .collect()
}

fn group(facts: &RightsFacts) -> Finding {
    const ID: &str = "group";
    match facts.group {
        Some(number) => finding(
            ID,
            Severity::Ok,
            format!("the group demux exists, with number {number}"),
        ),
        None => finding(ID, Severity::Note, "there is no group demux")
            .meaning("only root can read")
            .fix("groupadd --system demux, and then demux unload --all and load again"),
    }
}

fn unprivileged(facts: &RightsFacts) -> Option<Finding> {
    const ID: &str = "unprivileged-bpf";
    let disabled = match &facts.unprivileged_disabled {
        Ok(Some(disabled)) => *disabled,
        Ok(None) => return None,
        Err(reason) => {
            let what = "kernel.unprivileged_bpf_disabled";
            return Some(Finding::unknown(Area::Rights, ID, what, reason));
        }
    };
    let is_old = facts
        .version
        .is_some_and(|version| version < READERS_NEED_NOTHING);
    Some(match disabled {
        0 => finding(ID, Severity::Note, "every user may load BPF programs")
            .meaning("demux does not need that")
            .fix("sysctl -w kernel.unprivileged_bpf_disabled=2"),
        _ if is_old => finding(
            ID,
            Severity::Warning,
            format!("bpf(2) is closed to users without CAP_BPF ({disabled})"),
        )
        .meaning("before Linux 5.19 that shuts out readers of the group demux, too")
        .fix("boot a newer kernel, or give readers CAP_BPF"),
        _ => finding(
            ID,
            Severity::Ok,
            format!("users without rights may not load BPF programs ({disabled})"),
        ),
    })
}

/// Maps are charged to the control group since Linux 5.11; the memory of AF_XDP sockets still is not.
fn memlock(facts: &RightsFacts) -> Option<Finding> {
    const ID: &str = "memlock";
    const ACCOUNTED: Version = Version {
        major: 5,
        minor: 11,
    };
    let limit = facts.memlock?;
    if facts.version.is_some_and(|version| version < ACCOUNTED) {
        return Some(
            finding(
                ID,
                Severity::Warning,
                format!("{limit} bytes may be locked in memory"),
            )
            .meaning("before Linux 5.11 that includes every map, and demux's are larger")
            .fix("ulimit -l unlimited (LimitMEMLOCK=infinity in systemd)"),
        );
    }
    /// Of one socket with rings of the usual size.
    const ONE_SOCKET: u64 = 16 << 20;
    Some(if limit < ONE_SOCKET && facts.user != 0 {
        finding(
            ID,
            Severity::Note,
            format!("{limit} bytes may be locked in memory"),
        )
        .meaning("maps do not count; AF_XDP sockets that this user opens do, but not the daemon's")
        .fix("ulimit -l unlimited (LimitMEMLOCK=infinity in systemd)")
    } else {
        finding(
            ID,
            Severity::Ok,
            format!("{limit} bytes may be locked in memory"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{only, worst};

    const GROUP: u32 = 991;

    fn root() -> RightsFacts {
        RightsFacts {
            user: 0,
            groups: vec![0],
            capabilities: Ok(Capability::ALL.to_vec()),
            is_initial_user_namespace: true,
            memlock: None,
            group: Some(GROUP),
            version: Some(Version {
                major: 6,
                minor: 12,
            }),
            unprivileged_disabled: Ok(Some(2)),
        }
    }

    fn user(groups: &[u32]) -> RightsFacts {
        RightsFacts {
            user: 1000,
            groups: groups.to_vec(),
            capabilities: Ok(Vec::new()),
            ..root()
        }
    }

    #[test]
    fn root_may_everything() {
        assert_eq!(worst(&judge(&root())), Severity::Ok);
    }

    #[test]
    fn a_member_of_the_group_reads_and_is_told_what_it_lacks_to_change_things() {
        let findings = judge(&user(&[1000, GROUP]));
        assert_eq!(only(&findings, "rights-read").severity, Severity::Ok);
        for (id, missing) in [
            (
                "rights-load",
                "CAP_BPF and CAP_NET_ADMIN and CAP_PERFMON missing",
            ),
            ("rights-write", "CAP_DAC_OVERRIDE missing"),
            ("rights-kill", "CAP_NET_ADMIN and CAP_NET_RAW missing"),
            ("rights-ports", "CAP_NET_BIND_SERVICE missing"),
            ("rights-namespaces", "CAP_SYS_ADMIN missing"),
        ] {
            let found = only(&findings, id);
            assert_eq!(found.severity, Severity::Note);
            assert!(found.summary.ends_with(missing), "{}", found.summary);
        }
        let findings = judge(&user(&[1000]));
        assert_eq!(only(&findings, "rights-read").severity, Severity::Note);
    }

    #[test]
    fn some_capabilities_are_enough_for_some_work() {
        let mut facts = user(&[1000]);
        facts.capabilities = Ok(vec![
            Capability::Bpf,
            Capability::NetAdmin,
            Capability::Perfmon,
        ]);
        let findings = judge(&facts);
        assert_eq!(only(&findings, "rights-load").severity, Severity::Ok);
        let kill = only(&findings, "rights-kill");
        assert!(kill.summary.ends_with(": CAP_NET_RAW missing"));
    }

    #[test]
    fn capabilities_of_a_user_namespace_are_none() {
        let mut facts = root();
        facts.is_initial_user_namespace = false;
        let findings = judge(&facts);
        assert_eq!(only(&findings, "rights-namespace").severity, Severity::Note);
        assert!(!findings.iter().any(|found| found.id == "rights-load"));
    }

    #[test]
    fn an_old_kernel_shuts_readers_out() {
        let mut facts = root();
        facts.version = Some(Version {
            major: 5,
            minor: 18,
        });
        let findings = judge(&facts);
        assert_eq!(
            only(&findings, "unprivileged-bpf").severity,
            Severity::Warning
        );
        facts.unprivileged_disabled = Ok(Some(0));
        let findings = judge(&facts);
        assert_eq!(only(&findings, "unprivileged-bpf").severity, Severity::Note);
        facts.version = Some(Version {
            major: 5,
            minor: 10,
        });
        facts.memlock = Some(64 << 10);
        assert_eq!(only(&judge(&facts), "memlock").severity, Severity::Warning);
    }

    #[test]
    fn a_machine_without_the_group_says_how_to_make_it() {
        let mut facts = root();
        facts.group = None;
        let findings = judge(&facts);
        let group = only(&findings, "group");
        assert_eq!(group.severity, Severity::Note);
        assert!(group.fix.as_ref().unwrap().contains("groupadd"));
    }
}
