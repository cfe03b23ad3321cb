//! Commands that go on until they have enough, or are interrupted.

use std::time::Duration;

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval},
};

use super::context::reactor;
use crate::{Error, Result, listen::LOOK};

/// When such a command ends by itself.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Until {
    /// End after so many rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) duration: Option<Duration>,
}

/// Whether a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Goes,
    Ends,
}

/// Calls `step` every [`LOOK`], until it says that it has enough, the time is over, or the process is
/// asked to end. Signals come between two steps, so what a step holds is given back.
pub(super) fn stream(until: &Until, mut step: impl FnMut() -> Result<Flow>) -> Result<()> {
    let runtime = reactor()?;
    runtime.block_on(async {
        let watch = |kind| signal(kind).map_err(|source| Error::io("wait for signals", source));
        let mut interrupted = watch(SignalKind::interrupt())?;
        let mut terminated = watch(SignalKind::terminate())?;
        let mut hung_up = watch(SignalKind::hangup())?;
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = until.duration.map(|duration| Instant::now() + duration);
        loop {
            tokio::select! {
                biased;
                _ = interrupted.recv() => break,
                _ = terminated.recv() => break,
                _ = hung_up.recv() => break,
                _ = ticks.tick() => {}
            }
            if step()? == Flow::Ends || end.is_some_and(|end| Instant::now() >= end) {
                break;
            }
        }
        Ok(())
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.01..=31_536_000.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "a duration is 0.01 to 31536000 seconds".into())
}
