//! Whether what is loaded can be used, and what is left of what was.

use super::{
    Area, Finding, Severity,
    facts::{StateFacts, Unusable},
};

pub(super) fn judge(facts: &StateFacts) -> Vec<Finding> {
    let mut findings = vec![instance(facts)];
    findings.extend(warnings(facts));
    findings.extend(group(facts));
    findings.push(stale(facts));
    findings.push(daemon(facts));
    findings
}

fn finding(id: &'static str, severity: Severity, summary: impl Into<String>) -> Finding {
    Finding::new(Area::State, id, severity, summary)
}

fn instance(facts: &StateFacts) -> Finding {
    const ID: &str = "instance";
    match &facts.instance {
        Ok(Some(interfaces)) => finding(
            ID,
            Severity::Ok,
            format!("loaded, on {} interfaces", interfaces.len()),
        ),
        Ok(None) => finding(ID, Severity::Ok, "not loaded in this network namespace"),
        // The caller may not look, or somebody is at work on it.
        Err(Unusable { code, reason, .. })
            if ["permission_denied", "locked"].contains(&&**code) =>
        {
            Finding::unknown(Area::State, ID, "what is loaded", reason)
        }
        Err(Unusable { reason, hint, .. }) => {
            let found = finding(ID, Severity::Failure, reason.as_str()).meaning(
                "no command of this demux can use it; its programs, if any, go on as they were",
            );
            match hint {
                Some(hint) => found.fix(hint.as_str()),
                None => found,
            }
        }
    }
}

fn warnings(facts: &StateFacts) -> Vec<Finding> {
    facts
        .warnings
        .iter()
        .map(|warning| finding("status", Severity::Warning, warning.as_str()))
        .collect()
}

/// Whether the group that may read is the group demux, which may have been made after loading.
fn group(facts: &StateFacts) -> Option<Finding> {
    const ID: &str = "instance-group";
    let (here, group) = (facts.here?, facts.group?);
    let instances = facts.instances.as_ref().ok()?;
    let own = instances.iter().find(|instance| instance.id == here)?;
    let found = own.group?;
    Some(if found == group {
        finding(ID, Severity::Ok, "the group demux may read what is loaded")
    } else {
        let path = &own.path;
        finding(
            ID,
            Severity::Warning,
            format!("what is loaded belongs to the group {found}, not to demux"),
        )
        .meaning("members of the group demux cannot read it: it was loaded before that group was there, or without the right to give it away")
        .fix(format!(
            "demux unload --all, and load again; or: find {path} -maxdepth 1 ! -name SECRET \
             -exec chgrp demux {{}} + && chgrp demux {path}/progs/demux_explain $(dirname {path})"
        ))
    })
}

fn stale(facts: &StateFacts) -> Finding {
    const ID: &str = "stale";
    const WHAT: &str = "state of network namespaces that are gone";
    let instances = match &facts.instances {
        Ok(instances) => instances,
        Err(reason) => return Finding::unknown(Area::State, ID, WHAT, reason),
    };
    let dead: Vec<_> = instances
        .iter()
        .filter(|instance| instance.is_alive == Ok(false))
        .map(|instance| instance.path.as_str())
        .collect();
    if !dead.is_empty() {
        return finding(
            ID,
            Severity::Warning,
            format!("{WHAT}: {}", dead.join(", ")),
        )
        .meaning("it takes memory, and nobody can use it")
        .fix("demux clean");
    }
    let unknown = instances
        .iter()
        .filter(|instance| Some(instance.id) != facts.here)
        .find_map(|instance| instance.is_alive.as_ref().err());
    match unknown {
        Some(reason) => Finding::unknown(Area::State, ID, WHAT, reason),
        None => finding(ID, Severity::Ok, format!("{WHAT}: none")),
    }
}

fn daemon(facts: &StateFacts) -> Finding {
    const ID: &str = "daemon";
    let socket = &facts.socket;
    match &facts.has_daemon {
        Ok(true) => finding(ID, Severity::Ok, format!("a daemon listens on {socket}")),
        Ok(false) => finding(ID, Severity::Ok, format!("no daemon listens on {socket}")).meaning(
            "only sets of users without root, and what is done in the background, need one",
        ),
        Err(reason) => Finding::unknown(Area::State, ID, "the daemon", reason),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::doctor::{facts::Instance, only, worst};

    const HERE: u64 = 7;
    const GROUP: u32 = 991;

    fn of(id: u64, group: u32, is_alive: Result<bool, &str>) -> Instance {
        Instance {
            id,
            path: format!("/sys/fs/bpf/demux/{id}"),
            group: Some(group),
            is_alive: is_alive.map_err(Into::into),
        }
    }

    fn loaded(instances: Vec<Instance>) -> StateFacts {
        StateFacts {
            here: Some(HERE),
            instances: Ok(instances),
            instance: Ok(Some(BTreeMap::new())),
            warnings: Vec::new(),
            group: Some(GROUP),
            socket: "/run/demux/demux.sock".into(),
            has_daemon: Ok(false),
        }
    }

    #[test]
    fn what_is_loaded_and_readable_is_well() {
        let facts = loaded(vec![of(HERE, GROUP, Ok(true)), of(8, GROUP, Ok(true))]);
        assert_eq!(worst(&judge(&facts)), Severity::Ok);
        let nothing = StateFacts {
            instance: Ok(None),
            ..loaded(Vec::new())
        };
        assert_eq!(worst(&judge(&nothing)), Severity::Ok);
    }

    #[test]
    fn another_layout_is_a_failure_with_the_remedy_of_the_error() {
        let facts = StateFacts {
            instance: Err(Unusable {
                code: "layout_mismatch".into(),
                reason: "the state has layout 3".into(),
                hint: Some("start over".into()),
            }),
            ..loaded(Vec::new())
        };
        let findings = judge(&facts);
        let found = only(&findings, "instance");
        assert_eq!(found.severity, Severity::Failure);
        assert_eq!(found.fix.as_deref(), Some("start over"));
    }

    #[test]
    fn what_may_not_be_read_or_is_in_use_is_a_note() {
        for code in ["permission_denied", "locked"] {
            let facts = StateFacts {
                instances: Err("no".into()),
                instance: Err(Unusable {
                    code: code.into(),
                    reason: "no".into(),
                    hint: None,
                }),
                ..loaded(Vec::new())
            };
            assert_eq!(worst(&judge(&facts)), Severity::Note, "{code}");
        }
    }

    #[test]
    fn stale_state_is_to_be_cleaned() {
        let facts = loaded(vec![of(HERE, GROUP, Ok(true)), of(3, GROUP, Ok(false))]);
        let findings = judge(&facts);
        let stale = only(&findings, "stale");
        assert_eq!(stale.severity, Severity::Warning);
        assert_eq!(stale.fix.as_deref(), Some("demux clean"));
        assert!(stale.summary.contains("/sys/fs/bpf/demux/3"));
        // Its own namespace is alive, for it is asked from there.
        let facts = loaded(vec![of(HERE, GROUP, Err("no"))]);
        assert_eq!(worst(&judge(&facts)), Severity::Ok);
        let facts = loaded(vec![of(3, GROUP, Err("no"))]);
        assert_eq!(worst(&judge(&facts)), Severity::Note);
    }

    #[test]
    fn an_instance_of_another_group_shuts_the_group_out() {
        let findings = judge(&loaded(vec![of(HERE, 0, Ok(true))]));
        let group = only(&findings, "instance-group");
        assert_eq!(group.severity, Severity::Warning);
        assert!(group.fix.as_ref().unwrap().contains("/sys/fs/bpf/demux/7"));
    }

    #[test]
    fn warnings_of_status_are_warnings_here() {
        let facts = StateFacts {
            warnings: vec!["eth0 is not attached any more".into()],
            ..loaded(Vec::new())
        };
        let findings = judge(&facts);
        assert_eq!(only(&findings, "status").severity, Severity::Warning);
    }
}
