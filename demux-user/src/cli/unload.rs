//! `demux unload`: detach from interfaces.

use super::{
    Outcome,
    context::{Context, cannot_write},
};
use crate::{
    Result, load,
    render::{List, NameRow, Row as _},
};

/// Detach demux from interfaces
///
/// Detaching keeps the bindings, the connections and the settings for the next load.
/// An interface that is gone is forgotten: the daemon does not attach it again when it returns.
/// `--all` detaches from every interface of the network namespace and removes them too.
///
/// Without demux, what `demux status` says under removal does the same: `rm -r` of a directory, and
/// on kernels before 6.6 a `tc filter del` for each interface.
/// `ip link set … xdp off` does not: the program is held by a link.
///
/// It needs CAP_BPF and CAP_NET_ADMIN, and CAP_DAC_OVERRIDE where another user, such as root, has loaded.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The interfaces
    #[arg(
        value_name = "IFACE",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    interfaces: Vec<String>,
    /// Detach from all, and remove bindings, connections and settings
    #[arg(long)]
    all: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux unload eth0      detach from eth0; bindings stay
  demux unload --all     as if demux had never been loaded";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let bpffs = context.bpffs()?;
        let names = if self.all {
            load::unload_all(&bpffs)?;
            Vec::new()
        } else {
            load::unload(&bpffs, &self.interfaces)?
        };
        if context.is_json() {
            let format = context.format();
            let mut list = List::new(context.out(), format, "unload", NameRow::COLUMNS);
            for name in &names {
                list.push(&NameRow { name: name.clone() })
                    .map_err(cannot_write)?;
            }
            list.finish().map_err(cannot_write)?;
        }
        if self.all {
            context.note("detached from every interface; everything is removed");
        }
        for name in &names {
            context.note(format!(
                "{name}: detached; the bindings and settings are kept"
            ));
        }
        Ok(Outcome::Done)
    }
}
