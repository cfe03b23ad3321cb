//! Amounts a second.

use demux_common::reason::Count;

/// What a connection moves a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Packets that arrive.
    pub rx_packets: f64,
    /// Bytes that arrive.
    pub rx_bytes: f64,
    /// Packets that leave.
    pub tx_packets: f64,
    /// Bytes that leave.
    pub tx_bytes: f64,
}

impl Rates {
    /// Packets in both directions.
    #[must_use]
    pub fn packets(&self) -> f64 {
        self.rx_packets + self.tx_packets
    }
}

/// What a counter grew by in a second; one that was set back counts from zero.
pub(super) fn per_second(now: u64, before: u64, seconds: f64) -> f64 {
    now.checked_sub(before).unwrap_or(now) as f64 / seconds
}

/// Packets and bytes a second.
pub(super) fn pair(now: Count, before: Count, seconds: f64) -> (f64, f64) {
    (
        per_second(now.packets, before.packets, seconds),
        per_second(now.bytes, before.bytes, seconds),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_a_second() {
        let count = |packets, bytes| Count { packets, bytes };
        assert_eq!(pair(count(30, 900), count(10, 100), 2.0), (10.0, 400.0));
        assert_eq!(pair(count(4, 40), count(10, 100), 2.0), (2.0, 20.0));
    }
}
