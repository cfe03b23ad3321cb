//! `demux set`: change settings.

use std::time::Duration;

use super::{Outcome, context::Context};
use crate::{
    Result,
    settings::{self, Assignment},
};

/// Change settings
///
/// Several at once are all changed, or none. Keys are default, default@IFACE (pass, drop, reject),
/// track (local, bound), kernel-sockets (on, off), timeout.STATE (seconds), and for `demux allocate`
/// and `demux exec` ephemeral.range (FIRST-LAST, kernel), ephemeral.algorithm (sequential, random,
/// hash, double-hash, random-increments) and ephemeral.reserved (such as 8080,9000-9010, kernel,
/// none).
///
/// `--try SECONDS` puts a default on probation, as with `demux load`.
///
/// It needs CAP_DAC_OVERRIDE where another user, such as root, has loaded; and CAP_NET_ADMIN for a default
/// other than pass, to look for what it could break.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What to change
    #[arg(required = true, value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Fall back to pass after so many seconds, unless demux confirm runs
    #[arg(long = "try", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    probation: Option<u32>,
    /// Change the default although it could drop wanted packets
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux set default@eth0=drop --try 60    drop what nothing claims, for a minute
  demux set track=bound kernel-sockets=on
  demux set timeout.established=3600
  demux set ephemeral.range=40000-49999 ephemeral.algorithm=random";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let assignments = self
            .assignments
            .iter()
            .map(|text| Assignment::parse(text))
            .collect::<Result<Vec<_>>>()?;
        let probation = self.probation.map(|time| Duration::from_secs(time.into()));
        settings::set(&context.bpffs()?, &assignments, self.force, probation)?;
        if context.is_json() {
            super::settings::list(context)?;
        }
        if let Some(seconds) = self.probation {
            context.note(format!(
                "the default is on probation: pass again in {seconds} s unless you run: demux confirm"
            ));
        }
        Ok(Outcome::Done)
    }
}
