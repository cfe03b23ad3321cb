//! `demux doctor`: what this machine lacks for demux, and how to mend it.

use super::{
    Outcome,
    context::{Context, cannot_write},
    status,
};
use crate::{
    Result,
    doctor::{self, Severity, facts::Facts},
    render::{FindingRow, Format, write_findings},
};

/// Look for what stands in the way of demux
///
/// Looks at the kernel, the BPF file system, control groups, the caller's rights, security modules, the
/// interfaces and what is loaded, and changes nothing: programs and maps that ask the kernel what it can do
/// are gone when it ends. Without interfaces it looks at those that demux is attached to, or else at
/// those that it could be.
///
/// Each finding is ok, a note (worth knowing), a warning (demux does less than it could) or a failure
/// (demux cannot work), and says what it means and how to mend it. What is ok is only counted, unless
/// --verbose is given. The exit status is 7 where there is a warning or a failure.
///
/// It works without root, and says what it could not look at. With CAP_BPF, CAP_NET_ADMIN and
/// CAP_SYS_ADMIN it sees everything.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The interfaces
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux doctor
  demux doctor eth0 -v                             what is as it should be, too
  demux doctor -j | jq '.items[] | select(.severity == \"failure\")'";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let mut facts = Facts::gather(context.bpffs_path(), &self.interfaces)?;
        // What cannot be read is a finding already.
        if let Ok(status) = context.open().and_then(|opened| status::status(&opened)) {
            facts.state.warnings = status.warnings;
        }
        let findings = doctor::examine(&facts);
        match context.format() {
            Format::Table { styled, .. } => {
                let all = context.is_verbose();
                write_findings(&findings, all, styled, context.out()).map_err(cannot_write)?;
            }
            Format::Json { .. } | Format::JsonLines => {
                let mut list = context.list::<FindingRow>();
                for finding in &findings {
                    list.push(&FindingRow::from(finding))
                        .map_err(cannot_write)?;
                }
                list.finish().map_err(cannot_write)?;
            }
        }
        Ok(if doctor::worst(&findings) < Severity::Warning {
            Outcome::Done
        } else {
            Outcome::Found
        })
    }
}
