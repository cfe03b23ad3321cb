//! `demux metrics`: the state as metrics, on standard output or in a file.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process,
};

use super::{
    Outcome,
    context::{Context, cannot_write},
};
use crate::{
    Error, Result,
    metrics::{self, Scrape},
};

/// Write metrics as OpenMetrics text, as the daemon serves them
///
/// Packets by interface, verdict and reason, connections by state, bindings, how full maps and sets of
/// sockets are. Counters that are zero for an interface are left out. No daemon is needed: a textfile
/// collector can read what --output writes, which is never half a file.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Write to this file, all at once
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave out the series of each binding
    #[arg(long)]
    no_bindings: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux metrics | grep demux_connections
  demux metrics --output /var/lib/prometheus/node-exporter/demux.prom

  /etc/demux/demux.toml, for the daemon to serve them:
    [daemon]
    metrics = \"127.0.0.1:9478\"";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let opened = context.open()?;
        let scrape = Scrape {
            bindings: !self.no_bindings,
            ..Scrape::default()
        };
        let metrics = metrics::of(&opened.tables, &opened.paths, scrape);
        match &self.output {
            Some(path) => replace(path, &metrics.text)?,
            None => context
                .out()
                .write_all(metrics.text.as_bytes())
                .map_err(cannot_write)?,
        }
        if metrics.errors > 0 {
            context.warn(format!(
                "{} parts could not be read, and are left out",
                metrics.errors
            ));
        }
        Ok(Outcome::Done)
    }
}

/// Writes a file that has the old text until it has all of the new one.
fn replace(path: &Path, text: &str) -> Result<()> {
    let failed = |source| Error::io(format!("write {}", path.display()), source);
    // Collectors take only what is called as they want it.
    let mut beside: OsString = path.into();
    beside.push(format!(".{}.new", process::id()));
    let beside = PathBuf::from(beside);
    let write = || {
        let mut file = File::create_new(&beside)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| {
        // What stays is of no use to anybody.
        let _ = fs::remove_file(&beside);
        failed(source)
    })
}
