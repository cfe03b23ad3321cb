//! Sampling in a thread of its own.

use std::{
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use super::{
    sampler::{Sampler, Selection},
    snapshot::Snapshot,
};
use crate::{Error, Result, tables::Tables};

/// What is to be sampled, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which connections.
    pub selection: Selection,
    /// From one sample to the next.
    pub interval: Duration,
    /// Whether there are to be none for now.
    pub is_paused: bool,
}

/// Rates of less than this say nothing.
const SHORTEST: Duration = Duration::from_millis(200);

/// A thread that samples until it is dropped, or until whoever takes the samples has had enough.
///
/// It is never waited for: a walk over a full table may take a second.
#[derive(Debug)]
pub struct Worker(Sender<Wanted>);

impl Worker {
    /// Starts it, in the network namespace of the calling thread. `open` finds the maps, each time anew,
    /// because the instance may be another one by then; `deliver` takes the samples, and returns whether
    /// more are wanted.
    ///
    /// # Errors
    ///
    /// Where no thread can be started.
    pub fn start(
        wanted: Wanted,
        open: impl Fn() -> Result<Tables> + Send + 'static,
        deliver: impl FnMut(Result<Snapshot>) -> bool + Send + 'static,
    ) -> Result<Self> {
        let (sender, receiver) = mpsc::channel();
        thread::Builder::new()
            .name("sampler".into())
            .spawn(move || work(wanted, &receiver, open, deliver))
            .map_err(|source| Error::io("start a thread", source))?;
        Ok(Self(sender))
    }

    /// Wants something else from now on; a change of what is selected is answered soon.
    ///
    /// # Errors
    ///
    /// Where the thread has ended.
    pub fn want(&self, wanted: Wanted) -> Result<()> {
        self.0.send(wanted).map_err(|_closed| {
            Error::io("ask the sampling thread", io::Error::other("it has ended"))
        })
    }
}

fn work(
    mut wanted: Wanted,
    wishes: &Receiver<Wanted>,
    open: impl Fn() -> Result<Tables>,
    mut deliver: impl FnMut(Result<Snapshot>) -> bool,
) {
    let mut sampler = Sampler::default();
    let mut started = Instant::now();
    let mut is_first = true;
    let mut due = started;
    loop {
        let wish = if wanted.is_paused && !is_first {
            wishes
                .recv()
                .map_err(|_closed| RecvTimeoutError::Disconnected)
        } else {
            wishes.recv_timeout(due.saturating_duration_since(Instant::now()))
        };
        match wish {
            Ok(wish) => {
                if wish.interval != wanted.interval {
                    due = started + wish.interval;
                }
                let is_resumed = wanted.is_paused && !wish.is_paused;
                if is_resumed || wish.selection != wanted.selection {
                    due = due.min(started + SHORTEST);
                }
                wanted = wish;
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        started = Instant::now();
        let sample = open().and_then(|tables| sampler.sample(&tables, &wanted.selection));
        if sample.is_err() {
            sampler.reset();
        }
        if !deliver(sample) {
            return;
        }
        is_first = false;
        // Never more than half of the time.
        due = started + wanted.interval.max(2 * started.elapsed());
    }
}
