//! What the daemon does at the moment, in a line, and what it has done.

use std::{cell::Cell, fmt};

use super::Event;
use crate::{load::Followed, metrics::DaemonCounts};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct State {
    interfaces: Option<usize>,
    sets: usize,
}

impl State {
    /// Takes an event into account; whether that changes the line.
    pub(super) fn see(&mut self, event: &Event, counts: &Cell<DaemonCounts>) -> bool {
        let mut counted = counts.get();
        match event {
            Event::Loaded { interfaces, .. } => self.interfaces = Some(*interfaces),
            Event::Unloaded => self.interfaces = None,
            Event::Opened { .. } => self.sets += 1,
            Event::Closed { .. } => self.sets = self.sets.saturating_sub(1),
            Event::Swept(swept) => {
                counted.sweeps += 1;
                counted.swept += swept.expired;
            }
            Event::Followed(Followed::Attached { .. }) => counted.attached += 1,
            _ => {}
        }
        counted.sets = self.sets as u64;
        counts.set(counted);
        matches!(
            event,
            Event::Loaded { .. } | Event::Unloaded | Event::Opened { .. } | Event::Closed { .. }
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.interfaces {
            Some(count) => write!(formatter, "{count} interfaces, {} socket sets", self.sets),
            None => write!(formatter, "waiting for demux load"),
        }
    }
}
