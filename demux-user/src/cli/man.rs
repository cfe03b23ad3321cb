//! `demux man`: manual pages.

use std::path::PathBuf;

use super::{Outcome, context::Context};
use crate::{Error, Result};

/// Write manual pages, one for each command
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:\n  demux man /usr/local/share/man/man1\n  man -l demux-load.1")]
pub(super) struct Args {
    /// The directory to write them to, which must exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        clap_mangen::generate_to(super::command(), &self.directory).map_err(|source| {
            Error::io(
                format!("write manual pages to {}", self.directory.display()),
                source,
            )
        })?;
        context.note(format!(
            "manual pages are in {}; read one with: man -l {}",
            self.directory.display(),
            self.directory.join("demux.1").display()
        ));
        Ok(Outcome::Done)
    }
}
