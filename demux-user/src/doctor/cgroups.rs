//! Whether programs can be attached to control groups, for `exec` and owned ports.

use super::{Area, Finding, Severity, facts::CgroupFacts};

/// What is lost without control groups of version 2.
const LOSS: &str = "exec does not work, and processes are not kept from owned ports";

pub(super) fn judge(facts: &CgroupFacts) -> Vec<Finding> {
    const ID: &str = "cgroup2";
    let finding = |severity, summary: String| Finding::new(Area::Cgroups, ID, severity, summary);
    let whole = facts
        .hierarchies
        .iter()
        .find(|hierarchy| hierarchy.is_v2 && hierarchy.root == "/");
    let part = facts.hierarchies.iter().find(|hierarchy| hierarchy.is_v2);
    let has_v1 = facts.hierarchies.iter().any(|hierarchy| !hierarchy.is_v2);
    let kind = if has_v1 { "hybrid" } else { "unified" };
    vec![match (whole, part) {
        (Some(whole), _) => finding(
            Severity::Ok,
            format!("version 2 at {} ({kind})", whole.target),
        ),
        _ if facts.has_kernel == Ok(false) => {
            finding(Severity::Warning, "the kernel has no version 2".into())
                .meaning(LOSS)
                .fix("a kernel with CONFIG_CGROUPS=y and CONFIG_CGROUP_BPF=y")
        }
        (None, Some(part)) => finding(
            Severity::Note,
            format!("only the part {} is mounted, at {}", part.root, part.target),
        )
        .meaning("programs attach to the root, which demux finds by itself; as in a container, it may be a part of the whole"),
        (None, None) => match &facts.root {
            Ok(()) => finding(Severity::Note, "version 2 is not mounted".into())
                .meaning("demux finds it all the same, for which it needs CAP_SYS_ADMIN")
                .fix("mount -t cgroup2 none /sys/fs/cgroup/unified"),
            Err(reason) => finding(
                Severity::Note,
                "version 2 is not mounted, and could not be reached".into(),
            )
            .meaning(format!("{reason}; without it, {LOSS}"))
            .fix("mount -t cgroup2 none /sys/fs/cgroup/unified"),
        },
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::CgroupFacts;

    fn judged(mounts: &str, has_kernel: bool, root: Result<(), &str>) -> Finding {
        let facts = CgroupFacts {
            hierarchies: crate::doctor::facts::hierarchies(mounts),
            has_kernel: Ok(has_kernel),
            root: root.map_err(Into::into),
        };
        judge(&facts).remove(0)
    }

    #[test]
    fn the_unified_and_the_hybrid_hierarchy_are_found_where_they_are() {
        let unified = "30 24 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = judged(unified, true, Ok(()));
        assert_eq!(found.severity, Severity::Ok);
        assert_eq!(found.summary, "version 2 at /sys/fs/cgroup (unified)");

        let hybrid = "\
35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - tmpfs tmpfs rw
36 35 0:31 / /sys/fs/cgroup/cpu rw shared:10 - cgroup cgroup rw,cpu
37 35 0:32 / /sys/fs/cgroup/unified rw shared:11 - cgroup2 cgroup2 rw
";
        let found = judged(hybrid, true, Ok(()));
        assert_eq!(found.severity, Severity::Ok);
        assert_eq!(
            found.summary,
            "version 2 at /sys/fs/cgroup/unified (hybrid)"
        );
    }

    #[test]
    fn a_machine_of_version_1_alone_has_one_to_be_mounted_or_none() {
        let old = "36 35 0:31 / /sys/fs/cgroup/cpu rw shared:10 - cgroup cgroup rw,cpu\n";
        let found = judged(old, true, Ok(()));
        assert_eq!(found.severity, Severity::Note);
        assert!(found.detail.unwrap().contains("CAP_SYS_ADMIN"));
        let found = judged(old, true, Err("Operation not permitted"));
        assert_eq!(found.severity, Severity::Note);
        assert!(found.detail.unwrap().contains("Operation not permitted"));
        let found = judged(old, false, Err("No such device"));
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.detail.unwrap().contains("exec does not work"));
    }

    #[test]
    fn a_part_is_not_the_whole() {
        let container = "37 35 0:32 /a.slice /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = judged(container, true, Ok(()));
        assert_eq!(found.severity, Severity::Note);
        assert!(found.summary.contains("/a.slice"));
    }
}
