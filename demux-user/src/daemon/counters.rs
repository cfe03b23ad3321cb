//! What has happened on a queue of a set, counted by its hub and read by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};

use super::protocol::Statistics;

/// The counters of a queue of a set; see [`Statistics`] for what each counts.
///
/// One thread writes them, so they are added to without a locked instruction.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) rx_packets: Counter,
    pub(super) rx_bytes: Counter,
    pub(super) tx_packets: Counter,
    pub(super) tx_bytes: Counter,
    pub(super) rx_dropped: Counter,
    pub(super) rx_invalid: Counter,
    pub(super) rx_ring_full: Counter,
    pub(super) fill_ring_empty: Counter,
    pub(super) tx_invalid: Counter,
    pub(super) tx_refused: Counter,
}

/// A number that one thread counts.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        let now = self.0.load(Ordering::Relaxed).wrapping_add(count);
        self.0.store(now, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// What they stand at.
    #[must_use]
    pub(super) fn read(&self) -> Statistics {
        Statistics {
            rx_packets: self.rx_packets.read(),
            rx_bytes: self.rx_bytes.read(),
            tx_packets: self.tx_packets.read(),
            tx_bytes: self.tx_bytes.read(),
            rx_dropped: self.rx_dropped.read(),
            rx_invalid: self.rx_invalid.read(),
            rx_ring_full: self.rx_ring_full.read(),
            fill_ring_empty: self.fill_ring_empty.read(),
            tx_invalid: self.tx_invalid.read(),
            tx_refused: self.tx_refused.read(),
        }
    }
}
