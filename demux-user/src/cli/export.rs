//! `demux export`: the running state as a configuration file.

use super::{
    Outcome,
    context::{Context, cannot_write},
};
use crate::{
    Error, Result,
    apply::{
        self,
        state::{State, names},
    },
    render::{ExportRow, write_toml},
};

/// Write the running state as a file for demux apply
///
/// Interfaces, settings and bindings, the bindings in the order in which they were made. Applied to the
/// same state it changes nothing. What is measured, connections and reservations are no part of it, and
/// a default on probation is written as what it is now.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {}

const EXAMPLES: &str = "\
EXAMPLES:
  demux export > /etc/demux/demux.toml     keep what runs
  demux export | demux apply --diff -      says: no change
  demux export -j | jq '.items[0].binding'";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let Self {} = self;
        let state = State::read_present(Some(&context.bpffs()?), &names()?)?;
        if !state.is_loaded {
            return Err(Error::NotLoaded);
        }
        let (file, gone) = apply::export(&state)?;
        for name in &gone {
            context.warn(format!(
                "binding {name:?} is left out: the interface it is bound to is gone"
            ));
        }
        if context.is_json() {
            let mut list = context.list::<ExportRow>();
            list.push(&ExportRow(file)).map_err(cannot_write)?;
            list.finish().map_err(cannot_write)?;
            return Ok(Outcome::Done);
        }
        let comment = [
            format!("Written by demux {} export.", env!("CARGO_PKG_VERSION")),
            "Make it so with: demux apply FILE; see what would change with: demux apply --diff FILE"
                .to_owned(),
        ];
        write_toml(&file, &comment, context.out()).map_err(cannot_write)?;
        Ok(Outcome::Done)
    }
}
