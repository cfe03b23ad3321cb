//! Signals that would end the process wait until a change is complete.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// SIGTERM, SIGINT and SIGHUP are held back from this thread while the value lives, and come then.
///
/// A change is so completed or not begun, whenever they come. Nothing helps against SIGKILL: what it may
/// leave behind is what a killed `bind` may.
#[derive(Debug)]
pub struct Held {
    before: Option<SigSet>,
}

impl Held {
    /// Holds them back from now on.
    #[must_use]
    pub fn new() -> Self {
        let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
        let signals: SigSet = signals.into_iter().collect();
        Self {
            // It cannot fail with a valid set; if it did, signals would come as ever.
            before: signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok(),
        }
    }
}

impl Default for Held {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = before.thread_set_mask();
        }
    }
}
