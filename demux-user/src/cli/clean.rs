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
    tables::{Access, Control, Swept, Tables},
};

/// Remove the state of network namespaces that are gone
///
/// Also what commands left behind that were killed while they loaded. The state of a namespace that
/// is alive stays, loaded or not; of its connection table, rows that have expired are swept out. They
/// are absent anyway, and their place is taken when it is needed.
///
/// It needs CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_OVERRIDE, to see which namespaces are alive.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:\n  demux clean")]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let Self {} = self;
        let Cleaned { removed, swept } = match context.bpffs() {
            Ok(bpffs) => clean(&bpffs)?,
            // Where nothing can be, nothing is to be removed.
            Err(Error::NoBpfFs(_)) => Cleaned::default(),
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
        if swept.expired > 0 {
            context.note(format!("swept out {} expired rows", swept.expired));
        }
        if swept.given_back > 0 {
            context.note(format!(
                "gave back {} lines that a program had left half-written",
                swept.given_back
            ));
        }
        if removed.is_empty() && swept == Swept::default() {
            context.note("nothing to remove");
        }
        Ok(Outcome::Done)
    }
}

/// What was done.
#[derive(Default)]
struct Cleaned {
    /// The directories that were removed.
    removed: Vec<String>,
    swept: Swept,
}

fn clean(bpffs: &BpfFs) -> Result<Cleaned> {
    // The instances first: a namespace that is made afterwards is then not taken for a dead one.
    let ids = state::list(bpffs)?;
    let mut removed = Vec::new();
    let mut swept = Swept::default();
    if !ids.is_empty() {
        let alive = all_cookies()?;
        for id in ids {
            match Instance::open_within(bpffs, id, Lock::Exclusive, Duration::ZERO) {
                Ok(instance) if alive.contains(&id) && !is_stale(&instance)? => {
                    // One of another layout is its owner's to sweep.
                    if let Ok(tables) = Tables::open_unchecked(instance.paths(), Access::ReadWrite)
                    {
                        let more = Control::open(instance.paths())?.sweep(&tables)?;
                        swept.expired += more.expired;
                        swept.given_back += more.given_back;
                    }
                }
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
    Ok(Cleaned { removed, swept })
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
