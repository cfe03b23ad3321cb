//! `demux completions`: completion scripts for shells.

use clap_complete::Shell;

use super::{
    Outcome,
    context::{Context, cannot_write},
};
use crate::Result;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLES:\n  demux completions bash > /usr/share/bash-completion/completions/demux\n  source <(demux completions bash)"
)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        // Into memory first: the generator panics where its writer fails, and a reader may leave.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "demux", &mut script);
        context.out().write_all(&script).map_err(cannot_write)?;
        Ok(Outcome::Done)
    }
}
