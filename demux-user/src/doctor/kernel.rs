//! Whether the kernel has what demux needs.

use super::{
    Area, Finding, Severity,
    facts::{Feature, KernelFacts, Probed},
};
use crate::kernel::Version;

/// What is known of a feature.
struct Known {
    feature: Feature,
    id: &'static str,
    name: &'static str,
    /// How bad it is to be without it.
    severity: Severity,
    /// What is lost without it.
    loss: &'static str,
    fix: &'static str,
}

const NEWER: &str = "boot a newer kernel: demux needs Linux 5.18";

const KNOWN: &[Known] = &[
    Known {
        feature: Feature::Frags,
        id: "xdp-frags",
        name: "XDP programs for packets of several buffers",
        severity: Severity::Failure,
        loss: "demux's program cannot be loaded",
        fix: NEWER,
    },
    Known {
        feature: Feature::TestRun,
        id: "test-run",
        name: "BPF_PROG_TEST_RUN of XDP programs",
        severity: Severity::Failure,
        loss: "the connection table can be neither changed nor asked: allocate, kill, clean and explain do not work",
        fix: NEWER,
    },
    Known {
        feature: Feature::Batches,
        id: "batches",
        name: "batch operations on maps",
        severity: Severity::Warning,
        loss: "lists are read entry by entry, which takes a system call for each",
        fix: NEWER,
    },
    Known {
        feature: Feature::MappableArrays,
        id: "mappable-arrays",
        name: "arrays that can be mapped",
        severity: Severity::Failure,
        loss: "demux's tables cannot be made",
        fix: NEWER,
    },
    Known {
        feature: Feature::NetnsCookie,
        id: "netns-cookie",
        name: "cookies of network namespaces",
        severity: Severity::Failure,
        loss: "demux cannot tell whose state is whose",
        fix: NEWER,
    },
    Known {
        feature: Feature::Tcx,
        id: "tcx",
        name: "tcx",
        severity: Severity::Note,
        loss: "what leaves is seen by a filter of clsact, which outlives the pins (see demux status)",
        fix: "boot Linux 6.6 or newer, if that matters",
    },
    Known {
        feature: Feature::LinkUpdate,
        id: "link-update",
        name: "updating links",
        severity: Severity::Warning,
        loss: "programs cannot be replaced while packets come",
        fix: NEWER,
    },
    Known {
        feature: Feature::CgroupHooks,
        id: "cgroup-hooks",
        name: "programs on bind(2) and connect(2)",
        severity: Severity::Warning,
        loss: "exec does not work, and processes are not kept from owned ports",
        fix: "a kernel with CONFIG_CGROUP_BPF=y",
    },
    Known {
        feature: Feature::SockDiag,
        id: "sock-diag",
        name: "sock_diag for TCP and UDP",
        severity: Severity::Warning,
        loss: "existing connections are not imported; ports, kill, --verify and the conflicts of bind do not work",
        fix: "modprobe tcp_diag udp_diag (CONFIG_INET_TCP_DIAG, CONFIG_INET_UDP_DIAG)",
    },
    Known {
        feature: Feature::Jit,
        id: "jit",
        name: "the BPF JIT",
        severity: Severity::Warning,
        loss: "programs are interpreted, which takes several times as long for each packet",
        fix: "sysctl -w net.core.bpf_jit_enable=1 (in the first network namespace)",
    },
];

pub(super) fn judge(facts: &KernelFacts) -> Vec<Finding> {
    let mut findings = vec![version(facts)];
    for (feature, probed) in &facts.features {
        if let Some(known) = KNOWN.iter().find(|known| known.feature == *feature) {
            findings.push(judge_feature(known, probed));
        }
    }
    findings.extend(maps(facts));
    findings.extend(helpers(facts));
    findings.push(btf(facts));
    findings.extend(harden(facts));
    findings
}

fn finding(id: &'static str, severity: Severity, summary: impl Into<String>) -> Finding {
    Finding::new(Area::Kernel, id, severity, summary)
}

fn version(facts: &KernelFacts) -> Finding {
    const ID: &str = "kernel-version";
    let release = &facts.release;
    match facts.version {
        Some(version) if version < Version::MINIMUM => {
            finding(ID, Severity::Failure, format!("Linux {release} is too old"))
                .meaning("demux refuses to load")
                .fix(format!("boot Linux {} or newer", Version::MINIMUM))
        }
        Some(version) => {
            let lacks: Vec<&str> = LATER
                .iter()
                .filter(|(since, _)| version < *since)
                .map(|(_, what)| *what)
                .collect();
            let found = finding(ID, Severity::Ok, format!("Linux {release}"));
            match lacks.as_slice() {
                [] => found,
                lacks => Finding {
                    severity: Severity::Note,
                    ..found
                }
                .meaning(format!("older than what this needs: {}", lacks.join("; "))),
            }
        }
        None => finding(
            ID,
            Severity::Note,
            format!("the kernel calls itself {release:?}, which is no version"),
        )
        .meaning("whether it is new enough cannot be told; demux refuses to load"),
    }
}

/// What newer kernels have, as the README says. What is probed is not here.
const LATER: &[(Version, &str)] = &[
    (
        Version { major: 6, minor: 1 },
        "exec shares ports among remotes (6.1)",
    ),
    (
        Version { major: 6, minor: 3 },
        "forecasts of native mode, and of refusals on veth (6.3)",
    ),
    (
        Version { major: 6, minor: 8 },
        "bind and ports see TCP sockets that are bound and neither listen nor connect (6.8)",
    ),
];

fn judge_feature(known: &Known, probed: &Probed) -> Finding {
    match probed {
        Ok(true) => finding(known.id, Severity::Ok, format!("{}: there", known.name)),
        Ok(false) => finding(
            known.id,
            known.severity,
            format!("{}: the kernel has none", known.name),
        )
        .meaning(known.loss)
        .fix(known.fix),
        Err(reason) => Finding::unknown(Area::Kernel, known.id, known.name, reason),
    }
}

fn maps(facts: &KernelFacts) -> Vec<Finding> {
    const ID: &str = "map-types";
    let maps = match &facts.maps {
        Ok(maps) => maps,
        Err(reason) => return vec![Finding::unknown(Area::Kernel, ID, "types of maps", reason)],
    };
    let missing = maps
        .iter()
        .filter(|(.., probed)| *probed == Ok(false))
        .map(|(kind, map, _)| {
            finding(
                ID,
                Severity::Failure,
                format!("maps of type {kind}: the kernel has none"),
            )
            .meaning(format!("{map} cannot be made, and so demux not be loaded"))
            .fix(match kind.as_str() {
                "XskMap" => "a kernel with CONFIG_XDP_SOCKETS=y",
                _ => NEWER,
            })
        });
    let mut findings: Vec<_> = missing.collect();
    let answers = maps.iter().map(|(.., probed)| probed);
    findings.extend(rest(ID, "types of maps", findings.is_empty(), answers));
    findings
}

fn helpers(facts: &KernelFacts) -> Vec<Finding> {
    const ID: &str = "helpers";
    let helpers = match &facts.helpers {
        Ok(helpers) => helpers,
        Err(reason) => return vec![Finding::unknown(Area::Kernel, ID, "helpers", reason)],
    };
    let missing = helpers
        .iter()
        .filter(|(.., probed)| *probed == Ok(false))
        .map(|(program, name, _)| {
            let (severity, loss) = match *program {
                "XDP" => (Severity::Failure, "demux cannot be loaded"),
                "egress" => (Severity::Warning, "what leaves is not seen"),
                _ => (
                    Severity::Warning,
                    "exec does not work, or processes are not kept from owned ports",
                ),
            };
            finding(
                ID,
                severity,
                format!("{name}: the kernel has none for {program} programs"),
            )
            .meaning(loss)
            .fix(NEWER)
        });
    let mut findings: Vec<_> = missing.collect();
    let answers = helpers.iter().map(|(.., probed)| probed);
    findings.extend(rest(ID, "helpers", findings.is_empty(), answers));
    findings
}

/// What is to be said of many probes together, beside those that failed.
fn rest<'a>(
    id: &'static str,
    what: &'static str,
    is_complete: bool,
    answers: impl Iterator<Item = &'a Probed>,
) -> Option<Finding> {
    let mut count = 0;
    for answer in answers {
        match answer {
            Err(reason) => return Some(Finding::unknown(Area::Kernel, id, what, reason)),
            Ok(_) => count += 1,
        }
    }
    is_complete.then(|| finding(id, Severity::Ok, format!("{what}: all {count} there")))
}

fn btf(facts: &KernelFacts) -> Finding {
    const ID: &str = "btf";
    if facts.has_btf {
        return finding(ID, Severity::Ok, "BTF of the kernel: there");
    }
    finding(ID, Severity::Note, "BTF of the kernel: not there")
        .meaning("demux does not need it; other BPF tools may")
        .fix("a kernel with CONFIG_DEBUG_INFO_BTF=y")
}

fn harden(facts: &KernelFacts) -> Option<Finding> {
    const ID: &str = "jit-harden";
    match &facts.jit_harden {
        Ok(Some(2)) => Some(
            finding(ID, Severity::Note, "the BPF JIT is hardened for everybody")
                .meaning("constants are blinded, which costs some time for each packet")
                .fix("sysctl -w net.core.bpf_jit_harden=1, which is for users without rights"),
        ),
        Ok(Some(_)) => Some(finding(ID, Severity::Ok, "the BPF JIT is not slowed down")),
        // Only the first network namespace shows it.
        Ok(None) => None,
        Err(reason) => Some(Finding::unknown(
            Area::Kernel,
            ID,
            "hardening of the JIT",
            reason,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{only, worst};

    /// A kernel that has everything.
    fn new(major: u16, minor: u16) -> KernelFacts {
        KernelFacts {
            release: format!("{major}.{minor}.0-made-up"),
            version: Some(Version { major, minor }),
            features: KNOWN
                .iter()
                .map(|known| (known.feature, Ok(true)))
                .collect(),
            maps: Ok(vec![("XskMap".into(), "XSKS".into(), Ok(true))]),
            helpers: Ok(vec![("XDP", "bpf_redirect".into(), Ok(true))]),
            has_btf: true,
            jit_harden: Ok(Some(0)),
            unprivileged_disabled: Ok(Some(2)),
        }
    }

    fn without(feature: Feature) -> KernelFacts {
        let mut facts = new(6, 12);
        for (other, probed) in &mut facts.features {
            if *other == feature {
                *probed = Ok(false);
            }
        }
        facts
    }

    #[test]
    fn a_new_kernel_is_well() {
        assert_eq!(worst(&judge(&new(6, 12))), Severity::Ok);
    }

    #[test]
    fn an_old_kernel_is_a_failure_and_a_middle_one_lacks_things() {
        let findings = judge(&new(5, 15));
        let version = only(&findings, "kernel-version");
        assert_eq!(version.severity, Severity::Failure);
        assert!(version.summary.contains("5.15.0-made-up is too old"));
        assert_eq!(version.fix.as_deref(), Some("boot Linux 5.18 or newer"));

        let findings = judge(&new(6, 1));
        let version = only(&findings, "kernel-version");
        assert_eq!(version.severity, Severity::Note);
        let detail = version.detail.as_deref().unwrap();
        assert!(
            !detail.contains("exec") && detail.contains("6.8"),
            "{detail}"
        );
    }

    #[test]
    fn each_feature_that_is_missing_is_as_bad_as_its_loss() {
        for known in KNOWN {
            let findings = judge(&without(known.feature));
            let found = only(&findings, known.id);
            assert_eq!(found.severity, known.severity, "{}", known.id);
            assert_eq!(found.detail.as_deref(), Some(known.loss));
            assert!(found.fix.is_some());
            assert_eq!(worst(&findings), known.severity);
        }
    }

    #[test]
    fn missing_maps_and_helpers_are_named() {
        let mut facts = new(6, 12);
        facts.maps = Ok(vec![
            ("Array".into(), "META".into(), Ok(true)),
            ("XskMap".into(), "XSKS".into(), Ok(false)),
        ]);
        facts.helpers = Ok(vec![("egress", "bpf_redirect".into(), Ok(false))]);
        let findings = judge(&facts);
        let map = only(&findings, "map-types");
        assert_eq!(map.severity, Severity::Failure);
        assert!(map.summary.contains("XskMap") && map.detail.as_ref().unwrap().contains("XSKS"));
        assert!(map.fix.as_ref().unwrap().contains("CONFIG_XDP_SOCKETS"));
        let helper = only(&findings, "helpers");
        assert_eq!(helper.severity, Severity::Warning);
        assert!(helper.summary.contains("bpf_redirect"));
    }

    #[test]
    fn what_a_user_may_not_look_at_is_a_note() {
        const WHY: &str = "asking the kernel needs root";
        let no = || Err(WHY.to_owned());
        let mut facts = new(6, 12);
        facts.features = vec![(Feature::Frags, no())];
        facts.maps = Ok(vec![("Array".into(), "META".into(), no())]);
        facts.helpers = Err("this demux was built without its BPF programs".into());
        facts.jit_harden = Err(WHY.to_owned());
        let findings = judge(&facts);
        for id in ["xdp-frags", "map-types", "helpers", "jit-harden"] {
            let found = only(&findings, id);
            assert_eq!(found.severity, Severity::Note, "{id}");
            assert!(found.summary.ends_with("could not be looked at"), "{id}");
        }
    }

    #[test]
    fn a_hardened_jit_and_a_kernel_without_btf_are_notes() {
        let mut facts = new(6, 12);
        facts.jit_harden = Ok(Some(2));
        facts.has_btf = false;
        let findings = judge(&facts);
        assert_eq!(only(&findings, "jit-harden").severity, Severity::Note);
        assert_eq!(only(&findings, "btf").severity, Severity::Note);
        facts.jit_harden = Ok(None);
        assert!(!judge(&facts).iter().any(|found| found.id == "jit-harden"));
    }
}
