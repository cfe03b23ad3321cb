//! What the service manager is told, if there is one: `Type=notify-reload` with a watchdog.

use std::{env, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The service manager.
#[derive(Debug)]
pub(super) struct Manager {
    is_there: bool,
    /// Half of the time within which it wants to hear of us.
    watchdog: Option<Interval>,
}

impl Manager {
    /// The one that has started this process, if one has.
    pub(super) fn find() -> Self {
        let is_there = env::var_os("NOTIFY_SOCKET").is_some();
        let watchdog = sd_notify::watchdog_enabled()
            .filter(|within| is_there && *within > Duration::ZERO)
            .map(|within| {
                let mut ticks = interval((within / 2).max(Duration::from_millis(1)));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                ticks
            });
        Self { is_there, watchdog }
    }

    /// Owners can connect.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is read again; [`Manager::ready`] says when that is done.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// The daemon ends.
    pub(super) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// What it does, in a line.
    pub(super) fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(status)]);
    }

    /// Waits until it is time to say that the main thread is alive, and says so.
    pub(super) async fn alive(&mut self) {
        match &mut self.watchdog {
            Some(ticks) => {
                ticks.tick().await;
                self.tell(&[NotifyState::Watchdog]);
            }
            None => std::future::pending().await,
        }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if self.is_there {
            // A manager that does not listen finds out by itself.
            let _ = sd_notify::notify(states);
        }
    }
}
