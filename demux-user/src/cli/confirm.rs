//! `demux confirm`: keep what --try put on probation.

use super::{
    Outcome,
    context::{Context, cannot_write},
};
use crate::{
    Result, load,
    render::{List, NameRow, Row as _},
};

/// Keep the default that --try put on probation
///
/// Run it from a new connection: that you could make one is what there is to confirm.
///
/// It needs CAP_DAC_OVERRIDE where another user, such as root, has loaded.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:\n  demux set default=drop --try 60\n  demux confirm")]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let Self {} = self;
        let names = load::confirm(&context.bpffs()?)?;
        if context.is_json() {
            let format = context.format();
            let mut list = List::new(context.out(), format, "confirm", NameRow::COLUMNS);
            for name in &names {
                list.push(&NameRow { name: name.clone() })
                    .map_err(cannot_write)?;
            }
            list.finish().map_err(cannot_write)?;
        }
        if names.is_empty() {
            context.note("nothing is on probation");
        }
        for name in &names {
            context.note(format!("{name}: the default is confirmed"));
        }
        Ok(Outcome::Done)
    }
}
