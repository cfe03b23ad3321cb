//! `demux clean`: remove what nobody can use any more.

use super::{
    Outcome,
    context::{Context, cannot_write},
};
use crate::{
    Error, Result,
    bpffs::BpfFs,
    netns::all_cookies,
    render::{List, NameRow, Row as _},
    state::{self, Instance, Lock},
};

/// Remove the state of network namespaces that are gone
///
/// Also what commands left behind that were killed while they loaded. The state of a namespace that
/// is alive is left alone, loaded or not.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:\n  demux clean")]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let Self {} = self;
        let removed = match context.bpffs() {
            Ok(bpffs) => clean(&bpffs)?,
            // Where nothing can be, nothing is to be removed.
            Err(Error::NoBpfFs(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        if context.is_json() {
            let format = context.format();
            let mut list = List::new(context.out(), format, "clean", NameRow::COLUMNS);
            for name in &removed {
                list.push(&NameRow { name: name.clone() })
                    .map_err(cannot_write)?;
            }
            list.finish().map_err(cannot_write)?;
        }
        for name in &removed {
            context.note(format!("removed {name}"));
        }
        if removed.is_empty() {
            context.note("nothing to remove");
        }
        Ok(Outcome::Done)
    }
}

/// Removes what can be removed, and returns the directories.
fn clean(bpffs: &BpfFs) -> Result<Vec<String>> {
    // The instances first: a namespace that is made afterwards is then not taken for a dead one.
    let ids = state::list(bpffs)?;
    let mut removed = Vec::new();
    if !ids.is_empty() {
        let alive = all_cookies()?;
        for id in ids.into_iter().filter(|id| !alive.contains(id)) {
            match Instance::open(bpffs, id, Lock::Exclusive) {
                Ok(instance) => {
                    let path = instance.paths().directory().display().to_string();
                    instance.remove()?;
                    removed.push(path);
                }
                // Somebody else was faster.
                Err(Error::NotLoaded) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let leftovers = state::remove_leftovers(bpffs)?;
    removed.extend(leftovers.iter().map(|path| path.display().to_string()));
    Ok(removed)
}
