//! `demux upgrade`: replace the programs of a running instance.

use super::{
    Outcome,
    context::{Context, cannot_write},
};
use crate::{
    Result,
    render::{UpgradeRow, build_name},
    upgrade::{self, Upgraded},
};

/// Replace the running programs by those of this demux
///
/// Bindings, connections, settings and counters stay, and no packet is lost: the kernel takes one
/// program for the other, on every interface, on the hooks of bind(2), and under running
/// `demux exec`. Where anything is refused, the old programs go on as before. Killed half-way, old
/// and new programs work side by side until the next upgrade.
///
/// Programs that are of this demux already are left alone. A demux whose maps have another layout
/// cannot be upgraded (exit status 5); the hint says how to carry its bindings over.
///
/// Needs CAP_BPF and CAP_NET_ADMIN; CAP_SYS_ADMIN, too, to reach what runs under `demux exec`.
/// A running daemon should be restarted.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Replace them even by the same ones
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux upgrade           after a new demux was installed
  demux upgrade --force   load the same programs again
  demux status            says of which build the programs are";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let bpffs = context.bpffs()?;
        let upgraded = upgrade::upgrade(&bpffs, self.force)?;
        if context.is_json() {
            let mut list = context.list::<UpgradeRow>();
            list.push(&row(&upgraded)).map_err(cannot_write)?;
            list.finish().map_err(cannot_write)?;
        }
        let build = build_name(upgraded.build);
        if upgraded.changed {
            let before = match upgraded.before {
                0 => "programs of several builds".to_owned(),
                before => format!("build {}", build_name(before)),
            };
            context.note(format!(
                "upgraded from {before} to build {build}: {} programs in {} places",
                upgraded.programs.len(),
                upgraded.places
            ));
        } else {
            context.note(format!("up to date: build {build}"));
        }
        if let Some(note) = &upgraded.note {
            context.warn(note);
        }
        Ok(Outcome::Done)
    }
}

fn row(upgraded: &Upgraded) -> UpgradeRow {
    UpgradeRow {
        changed: upgraded.changed,
        before: (upgraded.before != 0).then(|| build_name(upgraded.before)),
        build: build_name(upgraded.build),
        programs: upgraded.programs.clone(),
        places: upgraded.places as u64,
        note: upgraded.note.clone(),
    }
}
