//! Whether pins can be made where they last, and reached by those who may read them.

use super::{
    Area, Finding, Severity,
    facts::{BpfFsFacts, Step},
};
use crate::state::mode_to_pass;

pub(super) fn judge(facts: &BpfFsFacts) -> Vec<Finding> {
    let mut findings = vec![mounted(facts)];
    if facts.is_mounted == Ok(true) && facts.private.is_none() {
        findings.push(writable(facts));
        findings.extend(way(facts));
    }
    if !facts.others.is_empty() {
        let others: Vec<_> = facts
            .others
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        findings.push(
            finding(
                "bpffs-others",
                Severity::Ok,
                format!("BPF file systems elsewhere: {}", others.join(", ")),
            )
            .meaning("demux uses another one only with --bpffs PATH or DEMUX_BPFFS"),
        );
    }
    findings
}

fn finding(id: &'static str, severity: Severity, summary: impl Into<String>) -> Finding {
    Finding::new(Area::BpfFs, id, severity, summary)
}

fn mounted(facts: &BpfFsFacts) -> Finding {
    const ID: &str = "bpffs-mounted";
    let path = facts.path.display();
    if let Some((reason, hint)) = &facts.private {
        let found = finding(ID, Severity::Failure, reason.as_str())
            .meaning("demux refuses to work with it");
        return match hint {
            Some(hint) => found.fix(hint.as_str()),
            None => found,
        };
    }
    match (&facts.is_mounted, &facts.has_kernel) {
        (Ok(true), _) => finding(ID, Severity::Ok, format!("mounted at {path}")),
        (Ok(false), Ok(false)) => {
            finding(ID, Severity::Failure, "the kernel has no BPF file system")
                .meaning("nothing can be pinned, and so nothing loaded")
                .fix("a kernel with CONFIG_BPF_SYSCALL=y")
        }
        (Ok(false), _) => finding(ID, Severity::Note, format!("none is mounted at {path}"))
            .meaning("nothing is loaded; demux load mounts it, for which it needs CAP_SYS_ADMIN")
            .fix(format!("mount -t bpf bpf {path}")),
        (Err(reason), _) => Finding::unknown(Area::BpfFs, ID, "the BPF file system", reason),
    }
}

fn writable(facts: &BpfFsFacts) -> Finding {
    const ID: &str = "bpffs-writable";
    let path = facts.path.display();
    if facts.is_read_only {
        finding(
            ID,
            Severity::Failure,
            format!("{path} is mounted read-only"),
        )
        .meaning("what is loaded works and can be read, but nothing can be loaded or changed")
        .fix(format!("mount -o remount,rw {path}"))
    } else {
        finding(ID, Severity::Ok, "mounted for writing")
    }
}

/// Whether members of the group demux get to the pins.
fn way(facts: &BpfFsFacts) -> Option<Finding> {
    const ID: &str = "bpffs-way";
    let group = facts.group?;
    let closed: Vec<&Step> = facts
        .way
        .iter()
        .filter(|step| !lets_through(step, group))
        .collect();
    let Some(first) = closed.first() else {
        return Some(finding(
            ID,
            Severity::Ok,
            "the group demux gets through to the pins",
        ));
    };
    let path = first.path.display();
    let summary = format!(
        "the group demux does not get through {path} (mode {:04o})",
        first.mode
    );
    // demux load opens this one directory, and that only where nobody else's group has it.
    let is_opened_by_load =
        first.path == facts.path && mode_to_pass(first.mode, first.group, group).is_some();
    Some(
        finding(ID, Severity::Warning, summary)
            .meaning("its members cannot read: status, connections and the other nouns need root")
            .fix(if is_opened_by_load {
                format!("demux load does it; or: chgrp demux {path} && chmod g+x {path}")
            } else {
                format!("chmod o+x {path}")
            }),
    )
}

fn lets_through(step: &Step, group: u32) -> bool {
    let bit = if step.group == group { 0o010 } else { 0o001 };
    step.mode & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{only, worst};

    const GROUP: u32 = 991;

    fn facts(mode: u32, group: u32) -> BpfFsFacts {
        let step = |path: &str, mode, group| Step {
            path: path.into(),
            mode,
            group,
        };
        BpfFsFacts {
            path: "/sys/fs/bpf".into(),
            is_mounted: Ok(true),
            private: None,
            has_kernel: Ok(true),
            is_read_only: false,
            others: Vec::new(),
            way: vec![
                step("/", 0o755, 0),
                step("/sys/fs", 0o755, 0),
                step("/sys/fs/bpf", mode, group),
            ],
            group: Some(GROUP),
        }
    }

    #[test]
    fn a_file_system_that_is_open_to_all_or_to_the_group_is_well() {
        for (mode, group) in [(0o755, 0), (0o1777, 0), (0o701, 0), (0o710, GROUP)] {
            assert_eq!(worst(&judge(&facts(mode, group))), Severity::Ok, "{mode:o}");
        }
    }

    #[test]
    fn a_file_system_as_systemd_mounts_it_shuts_the_group_out() {
        let findings = judge(&facts(0o700, 0));
        let way = only(&findings, "bpffs-way");
        assert_eq!(way.severity, Severity::Warning);
        assert!(way.summary.contains("/sys/fs/bpf (mode 0700)"));
        assert!(way.fix.as_ref().unwrap().starts_with("demux load does it"));
        // Somebody else's group is not taken away.
        let findings = judge(&facts(0o750, 7));
        let way = only(&findings, "bpffs-way");
        assert_eq!(way.fix.as_deref(), Some("chmod o+x /sys/fs/bpf"));
        // Being in the group does not help where others may and the group may not.
        let findings = judge(&facts(0o705, GROUP));
        assert_eq!(only(&findings, "bpffs-way").severity, Severity::Warning);
        let mut above = facts(0o755, 0);
        above.way[1].mode = 0o700;
        let findings = judge(&above);
        let fix = only(&findings, "bpffs-way").fix.as_deref();
        assert_eq!(fix, Some("chmod o+x /sys/fs"));
    }

    #[test]
    fn without_the_group_nobody_has_to_get_through() {
        let facts = BpfFsFacts {
            group: None,
            ..facts(0o700, 0)
        };
        assert_eq!(worst(&judge(&facts)), Severity::Ok);
    }

    #[test]
    fn a_read_only_file_system_is_a_failure() {
        let mut facts = facts(0o755, 0);
        facts.is_read_only = true;
        let findings = judge(&facts);
        let writable = only(&findings, "bpffs-writable");
        assert_eq!(writable.severity, Severity::Failure);
        assert_eq!(
            writable.fix.as_deref(),
            Some("mount -o remount,rw /sys/fs/bpf")
        );
    }

    #[test]
    fn none_is_a_note_unless_the_kernel_has_none() {
        let mut facts = facts(0o755, 0);
        facts.is_mounted = Ok(false);
        let findings = judge(&facts);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].severity, Severity::Note);
        facts.has_kernel = Ok(false);
        assert_eq!(worst(&judge(&facts)), Severity::Failure);
        facts.is_mounted = Err("no".into());
        assert_eq!(worst(&judge(&facts)), Severity::Note);
    }

    #[test]
    fn a_private_one_says_what_to_run_instead() {
        let mut facts = facts(0o755, 0);
        facts.private = Some(("private".into(), Some("run: demux -N blue".into())));
        let findings = judge(&facts);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].severity, Severity::Failure);
        assert_eq!(findings[0].fix.as_deref(), Some("run: demux -N blue"));
    }
}
