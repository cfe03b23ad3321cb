//! `demux clean`: remove what nobody can use any more.

use std::time::Duration;

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
    tables::{Access, Tables},
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
        for id in ids {
            match Instance::open_within(bpffs, id, Lock::Exclusive, Duration::ZERO) {
                Ok(instance) if alive.contains(&id) && !is_stale(&instance)? => {}
                Ok(instance) => {
                    let path = instance.paths().directory().display().to_string();
                    instance.remove()?;
                    removed.push(path);
                }
                // Somebody else was faster, or is using it.
                Err(Error::NotLoaded | Error::Locked { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    let leftovers = state::remove_leftovers(bpffs)?;
    removed.extend(leftovers.iter().map(|path| path.display().to_string()));
    Ok(removed)
}

/// Whether an instance is not that of the namespace whose name it has.
fn is_stale(instance: &Instance) -> Result<bool> {
    match Tables::open(instance, Access::ReadOnly) {
        Err(Error::StaleState { .. }) => Ok(true),
        // One of another layout still has its owner, who may remove it.
        Ok(_) | Err(Error::LayoutMismatch { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
