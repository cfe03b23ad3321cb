//! Looking at a machine for what demux needs, and saying what is wrong and how to mend it.
//!
//! Facts are gathered first (`facts/`), changing nothing; then they are judged, one file for each area.
//! A judgement looks at nothing but the facts it is given, so each can be tried on machines that are
//! not there. What could not be looked at is a fact, too, with the reason.

mod bpffs;
mod cgroups;
pub mod facts;
mod interfaces;
mod kernel;
mod rights;
mod security;
mod state;

use self::facts::Facts;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is the worse for it.
    Note,
    /// demux does less than it could, or some of its readers are shut out.
    Warning,
    /// demux cannot be loaded, or what is loaded cannot be used.
    Failure,
}

impl Severity {
    /// The word for it in output and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Version and features of the kernel.
    Kernel,
    /// The BPF file system.
    BpfFs,
    /// Control groups.
    Cgroups,
    /// What the caller, and members of the group demux, may do.
    Rights,
    /// Security modules.
    Security,
    /// A network interface.
    Interfaces,
    /// What is loaded.
    State,
}

impl Area {
    /// The word for it in output and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::BpfFs => "bpffs",
            Self::Cgroups => "cgroups",
            Self::Rights => "rights",
            Self::Security => "security",
            Self::Interfaces => "interfaces",
            Self::State => "state",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A stable word that names it, such as `kernel-version`; of helpers and interfaces there may be several.
    pub id: &'static str,
    /// What it is about.
    pub area: Area,
    /// The interface it is about.
    pub interface: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, in one line.
    pub summary: String,
    /// What that means for demux.
    pub detail: Option<String>,
    /// What to do about it: a command or a setting.
    pub fix: Option<String>,
}

impl Finding {
    fn new(area: Area, id: &'static str, severity: Severity, summary: impl Into<String>) -> Self {
        Self {
            id,
            area,
            interface: None,
            severity,
            summary: summary.into(),
            detail: None,
            fix: None,
        }
    }

    /// With what it means for demux.
    fn meaning(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With what to do about it.
    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Something that could not be looked at, for this reason.
    fn unknown(area: Area, id: &'static str, what: &str, reason: &str) -> Self {
        Self::new(
            area,
            id,
            Severity::Note,
            format!("{what}: could not be looked at"),
        )
        .meaning(reason)
    }
}

/// Judges all facts. Areas come in their order, and in each of them what was found in the order in
/// which demux depends on it.
#[must_use]
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = kernel::judge(&facts.kernel);
    findings.extend(bpffs::judge(&facts.bpffs));
    findings.extend(cgroups::judge(&facts.cgroups));
    findings.extend(rights::judge(&facts.rights));
    findings.extend(security::judge(&facts.security));
    for interface in &facts.interfaces {
        findings.extend(interfaces::judge(interface));
    }
    findings.extend(state::judge(&facts.state));
    findings
}

/// The worst of all.
#[must_use]
pub fn worst(findings: &[Finding]) -> Severity {
    findings
        .iter()
        .map(|finding| finding.severity)
        .max()
        .unwrap_or(Severity::Ok)
}

/// The only finding with this id, for tests of judgements.
#[cfg(test)]
fn only<'a>(findings: &'a [Finding], id: &str) -> &'a Finding {
    let mut with_id = findings.iter().filter(|finding| finding.id == id);
    match (with_id.next(), with_id.next()) {
        (Some(finding), None) => finding,
        found => panic!("{id}: {found:?} in {findings:?}"),
    }
}
