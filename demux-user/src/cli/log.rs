//! `demux log`: what the datapath logs, where it was built to log.

use std::io::Write as _;

use aya_log::EbpfLogger;
use demux_common::layout::program;
use log::{LevelFilter, Log, Metadata, Record};
use tokio::{io::unix::AsyncFd, signal};

use super::{
    Outcome,
    context::{Context, reactor},
};
use crate::{Error, Result, bpf, object::chain};

/// Print what the datapath logs, until it is interrupted
///
/// Only in a demux that was built with the feature log, whose datapath pays for every line.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:\n  demux log | grep 'verdict 1'")]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let Self {} = self;
        let path = context.open()?.paths.program(program::INGRESS);
        let failed = |source| Error::io(format!("open {}", path.display()), source);
        let fd = bpf::object_get(&path, false).map_err(failed)?;
        let id = bpf::program_info(std::os::fd::AsFd::as_fd(&fd))
            .map_err(failed)?
            .id;
        log::set_max_level(LevelFilter::Trace);
        let logger = EbpfLogger::init_from_id_with_logger(id, Lines)
            .map_err(|error| Error::unexpected("read the log of the datapath", chain(&error)))?;
        reactor()?.block_on(print(logger))?;
        Ok(Outcome::Done)
    }
}

async fn print(logger: EbpfLogger<Lines>) -> Result<()> {
    let failed = |source| Error::io("wait for the log of the datapath", source);
    // SAFETY: the logger owns its descriptor and keeps it open for as long as it lives.
    let mut logger =
        unsafe { AsyncFd::register(logger) }.map_err(|error| failed(error.into_parts().1))?;
    loop {
        tokio::select! {
            ready = logger.readable_mut() => {
                let mut ready = ready.map_err(failed)?;
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
            interrupted = signal::ctrl_c() => return interrupted.map_err(failed),
        }
    }
}

/// Writes each record as a line.
struct Lines;

impl Log for Lines {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // A reader that has gone away ends the command with the next signal.
        let _ = writeln!(std::io::stdout(), "{}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}
