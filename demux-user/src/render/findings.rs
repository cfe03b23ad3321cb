//! What `doctor` found, grouped by area.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    list::{Column, Row, left},
    printable,
};
use crate::doctor::{Finding, Severity};

/// Something that was found.
#[derive(Clone, Debug, Serialize)]
pub struct FindingRow {
    /// A stable word that names it.
    pub id: &'static str,
    /// `kernel`, `bpffs`, `cgroups`, `rights`, `security`, `interfaces` or `state`.
    pub area: &'static str,
    /// The interface it is about.
    pub interface: Option<String>,
    /// `ok`, `note`, `warning` or `failure`.
    pub severity: &'static str,
    /// What was found.
    pub summary: String,
    /// What that means for demux.
    pub detail: Option<String>,
    /// What to do about it.
    pub fix: Option<String>,
}

impl From<&Finding> for FindingRow {
    fn from(finding: &Finding) -> Self {
        Self {
            id: finding.id,
            area: finding.area.name(),
            interface: finding.interface.clone(),
            severity: finding.severity.name(),
            summary: finding.summary.clone(),
            detail: finding.detail.clone(),
            fix: finding.fix.clone(),
        }
    }
}

impl Row for FindingRow {
    const NOUN: &'static str = "doctor";
    const COLUMNS: &'static [Column] = &[left("AREA"), left("SEVERITY"), left("SUMMARY")];

    fn cells(&self) -> Vec<String> {
        vec![self.area.into(), self.severity.into(), self.summary.clone()]
    }
}

/// Writes what was found, a paragraph for each area, and a line about all of it. What is as it should be
/// is counted, unless `all` is wanted.
///
/// # Errors
///
/// Where the writer fails.
pub fn write_findings(
    findings: &[Finding],
    all: bool,
    styled: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    for area in findings.chunk_by(|one, next| one.area == next.area) {
        writeln!(out, "{}", area[0].area.name())?;
        let is_shown = |finding: &&Finding| all || finding.severity > Severity::Ok;
        for finding in area.iter().filter(is_shown) {
            write_finding(finding, styled, out)?;
        }
        let well = area.iter().filter(|finding| !is_shown(finding)).count();
        if well > 0 {
            let count = if well == 1 {
                "1 check".to_owned()
            } else {
                format!("{well} checks")
            };
            writeln!(out, "  {} {count}", word(Severity::Ok, styled))?;
        }
    }
    writeln!(out, "{}", verdict(findings))
}

fn write_finding(finding: &Finding, styled: bool, out: &mut dyn Write) -> io::Result<()> {
    let word = word(finding.severity, styled);
    writeln!(out, "  {word} {}", printable(&finding.summary))?;
    if let Some(detail) = &finding.detail {
        writeln!(out, "          {}", printable(detail))?;
    }
    if let Some(fix) = &finding.fix {
        writeln!(out, "          fix: {}", printable(fix))?;
    }
    Ok(())
}

/// The word for a severity, as wide as the longest.
fn word(severity: Severity, styled: bool) -> String {
    let word = format!("{:<7}", severity.name());
    let colour = match severity {
        Severity::Failure => "1;31",
        Severity::Warning => "1;33",
        Severity::Note | Severity::Ok => return word,
    };
    if styled {
        format!("\x1b[{colour}m{word}\x1b[0m")
    } else {
        word
    }
}

fn verdict(findings: &[Finding]) -> String {
    let count = |severity, name: &str| {
        let count = findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count();
        match count {
            0 => None,
            1 => Some(format!("1 {name}")),
            count => Some(format!("{count} {name}s")),
        }
    };
    let found: Vec<String> = [
        count(Severity::Failure, "failure"),
        count(Severity::Warning, "warning"),
        count(Severity::Note, "note"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if found.is_empty() {
        "all is well".to_owned()
    } else {
        format!("found: {}", found.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Area;

    fn finding(area: Area, severity: Severity, summary: &str) -> Finding {
        Finding {
            id: "some",
            area,
            interface: None,
            severity,
            summary: summary.into(),
            detail: (severity > Severity::Ok).then(|| "it matters".into()),
            fix: (severity > Severity::Note).then(|| "mend it".into()),
        }
    }

    fn written(findings: &[Finding], all: bool, styled: bool) -> String {
        let mut out = Vec::new();
        write_findings(findings, all, styled, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_well_is_counted_and_the_rest_told_with_its_fix() {
        let findings = [
            finding(Area::Kernel, Severity::Ok, "new"),
            finding(Area::Kernel, Severity::Ok, "fast"),
            finding(Area::BpfFs, Severity::Failure, "read-only"),
            finding(Area::BpfFs, Severity::Ok, "mounted"),
            finding(Area::State, Severity::Note, "\x1b[31m"),
        ];
        assert_eq!(
            written(&findings, false, false),
            "kernel\n  ok      2 checks\nbpffs\n  failure read-only\n          it matters\n          \
             fix: mend it\n  ok      1 check\nstate\n  note    \\u{1b}[31m\n          it matters\n\
             found: 1 failure, 1 note\n"
        );
        let all = written(&findings, true, true);
        assert!(all.contains("  ok      fast\n") && !all.contains("checks"));
        assert!(all.contains("\x1b[1;31mfailure\x1b[0m read-only"));
        assert!(written(&findings[..1], false, false).ends_with("all is well\n"));
    }
}
