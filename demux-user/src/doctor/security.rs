//! Whether a security module may forbid what demux does.

use super::{Area, Finding, Severity, facts::SecurityFacts};

pub(super) fn judge(facts: &SecurityFacts) -> Vec<Finding> {
    [
        modules(facts),
        lockdown(facts),
        selinux(facts),
        apparmor(facts),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn finding(id: &'static str, severity: Severity, summary: impl Into<String>) -> Finding {
    Finding::new(Area::Security, id, severity, summary)
}

fn modules(facts: &SecurityFacts) -> Option<Finding> {
    const ID: &str = "lsm";
    match &facts.modules {
        Ok(Some(modules)) if modules.iter().any(|module| module == "bpf") => Some(
            finding(
                ID,
                Severity::Ok,
                format!("security modules: {}", modules.join(", ")),
            )
            .meaning("with bpf among them, other programs may refuse what bpf(2) is asked"),
        ),
        Ok(Some(modules)) => Some(finding(
            ID,
            Severity::Ok,
            format!("security modules: {}", modules.join(", ")),
        )),
        Ok(None) => None,
        Err(reason) => Some(Finding::unknown(
            Area::Security,
            ID,
            "security modules",
            reason,
        )),
    }
}

fn lockdown(facts: &SecurityFacts) -> Option<Finding> {
    const ID: &str = "lockdown";
    match &facts.lockdown {
        Ok(Some(mode)) if mode == "none" => Some(finding(ID, Severity::Ok, "no lockdown")),
        Ok(Some(mode)) => Some(
            finding(ID, Severity::Ok, format!("lockdown: {mode}"))
                .meaning("demux uses none of the helpers that it forbids"),
        ),
        Ok(None) => None,
        Err(reason) => Some(Finding::unknown(Area::Security, ID, "lockdown", reason)),
    }
}

fn selinux(facts: &SecurityFacts) -> Option<Finding> {
    const ID: &str = "selinux";
    match &facts.selinux_enforces {
        Ok(Some(true)) => Some(
            finding(ID, Severity::Note, "SELinux enforces its policy")
                .meaning(
                    "domains without the permissions of the class bpf are refused, even as root",
                )
                .fix("where a command is refused: ausearch -m avc -c demux"),
        ),
        Ok(Some(false)) => Some(finding(ID, Severity::Ok, "SELinux does not enforce")),
        Ok(None) => None,
        Err(reason) => Some(Finding::unknown(Area::Security, ID, "SELinux", reason)),
    }
}

fn apparmor(facts: &SecurityFacts) -> Option<Finding> {
    const ID: &str = "apparmor";
    match &facts.apparmor {
        Ok(Some(profile)) if profile.starts_with("unconfined") => {
            Some(finding(ID, Severity::Ok, "not confined by AppArmor"))
        }
        Ok(Some(profile)) => Some(
            finding(
                ID,
                Severity::Note,
                format!("confined by the AppArmor profile {profile}"),
            )
            .meaning("it may forbid capabilities, mounts and files that demux needs, even as root")
            .fix("where a command is refused: journalctl -k -g DENIED"),
        ),
        // AppArmor is not there, or not for this process.
        Ok(None) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{facts::chosen, only, worst};

    fn none() -> SecurityFacts {
        SecurityFacts {
            modules: Ok(None),
            lockdown: Ok(None),
            selinux_enforces: Ok(None),
            apparmor: Ok(None),
        }
    }

    #[test]
    fn a_machine_without_security_modules_has_nothing_to_say() {
        assert_eq!(judge(&none()), []);
    }

    #[test]
    fn lockdown_does_not_stop_demux_and_is_told() {
        for mode in ["none", "integrity", "confidentiality"] {
            let facts = SecurityFacts {
                lockdown: Ok(Some(mode.into())),
                ..none()
            };
            let findings = judge(&facts);
            let found = only(&findings, "lockdown");
            assert_eq!(found.severity, Severity::Ok);
            assert!(found.summary.contains(mode) || mode == "none");
        }
        assert_eq!(chosen("none [integrity] confidentiality"), "integrity");
    }

    #[test]
    fn what_may_refuse_even_root_says_where_refusals_are_told() {
        let facts = SecurityFacts {
            modules: Ok(Some(vec!["capability".into(), "bpf".into()])),
            selinux_enforces: Ok(Some(true)),
            apparmor: Ok(Some("demux (enforce)".into())),
            ..none()
        };
        let findings = judge(&facts);
        assert!(only(&findings, "lsm").detail.is_some());
        for (id, fix) in [("selinux", "ausearch"), ("apparmor", "journalctl")] {
            let found = only(&findings, id);
            assert_eq!(found.severity, Severity::Note);
            assert!(found.fix.as_ref().unwrap().contains(fix));
        }
        assert_eq!(worst(&findings), Severity::Note);
        let facts = SecurityFacts {
            selinux_enforces: Ok(Some(false)),
            apparmor: Ok(Some("unconfined".into())),
            ..none()
        };
        assert_eq!(worst(&judge(&facts)), Severity::Ok);
    }
}
