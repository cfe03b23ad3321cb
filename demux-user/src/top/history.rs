//! What connections had counted when they were last looked at.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState},
};

use demux_common::connection::{Connection, ConnectionKey};

use super::rates::{Rates, per_second};

/// The counters of every row of the last walk, to compare the next one with.
///
/// A row is known by a hash of its four-tuple and of when it was made: 40 bytes for each are kept, and
/// one chance in 2^64 for any two rows that one of them has a wrong rate for a moment.
#[derive(Debug, Default)]
pub(super) struct History {
    hash: RandomState,
    rows: HashMap<u64, Seen, BuildHasherDefault<Prehashed>>,
    /// The number of the walk, which may wrap.
    walk: u32,
    seconds: Option<f64>,
}

/// The counters of a row; packets wrap.
#[derive(Clone, Copy, Debug)]
struct Seen {
    rx_bytes: u64,
    tx_bytes: u64,
    rx_packets: u32,
    tx_packets: u32,
    walk: u32,
}

impl History {
    /// Begins a walk over all rows, so many seconds after the last one; `None` where there was none that
    /// it can be compared with, and then everything is forgotten.
    pub(super) fn begin(&mut self, seconds: Option<f64>) {
        if seconds.is_none() {
            self.rows.clear();
        }
        self.seconds = seconds;
        self.walk = self.walk.wrapping_add(1);
    }

    /// Notes a row, and tells what it moved a second since the last walk; `None` where that is unknown.
    pub(super) fn visit(
        &mut self,
        key: &ConnectionKey,
        row: &Connection,
        age_ms: u64,
    ) -> Option<Rates> {
        let now = Seen {
            rx_bytes: row.rx_bytes,
            tx_bytes: row.tx_bytes,
            rx_packets: row.rx_packets as u32,
            tx_packets: row.tx_packets as u32,
            walk: self.walk,
        };
        let identity = self.hash.hash_one((key, row.created));
        let before = self.rows.insert(identity, now);
        let seconds = self.seconds?;
        match before {
            Some(before) => Some(now.since(&before, seconds)),
            // What is older was there before, and was missed: rows may move while they are read.
            None if age_ms as f64 > 1000.0 * seconds + GRANULARITY_MS => None,
            None => Some(Rates {
                rx_packets: row.rx_packets as f64 / seconds,
                rx_bytes: row.rx_bytes as f64 / seconds,
                tx_packets: row.tx_packets as f64 / seconds,
                tx_bytes: row.tx_bytes as f64 / seconds,
            }),
        }
    }

    /// Ends a walk: forgets what it has not come by.
    pub(super) fn end(&mut self) {
        let walk = self.walk;
        self.rows.retain(|_, seen| seen.walk == walk);
        // A flood that is over should not be paid for.
        if self.rows.capacity() / 8 > self.rows.len() {
            self.rows.shrink_to(2 * self.rows.len());
        }
    }
}

/// More than a unit of the clock of the table, whatever the kernel's tick is.
const GRANULARITY_MS: f64 = 200.0;

impl Seen {
    fn since(&self, before: &Self, seconds: f64) -> Rates {
        let packets = |now: u32, before: u32| f64::from(now.wrapping_sub(before)) / seconds;
        Rates {
            rx_packets: packets(self.rx_packets, before.rx_packets),
            rx_bytes: per_second(self.rx_bytes, before.rx_bytes, seconds),
            tx_packets: packets(self.tx_packets, before.tx_packets),
            tx_bytes: per_second(self.tx_bytes, before.tx_bytes, seconds),
        }
    }
}

/// Takes a hash as it is.
#[derive(Debug, Default)]
struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only hashes are looked up");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use demux_common::{
        address::Address, connection::State, protocol::Protocol, table::Flags, tcp::Half,
    };

    use super::*;

    const KEY: ConnectionKey = ConnectionKey {
        local_address: Address::from_v4([10, 0, 0, 2]),
        remote_address: Address::from_v4([10, 0, 0, 9]),
        local_port: 80,
        remote_port: 40_000,
        protocol: Protocol::Tcp,
    };

    fn row(created: u32, rx_packets: u64, rx_bytes: u64) -> Connection {
        Connection {
            rx_packets,
            rx_bytes,
            tx_packets: 0,
            tx_bytes: 0,
            created,
            last_seen: created,
            remote: Half::UNKNOWN,
            local: Half::UNKNOWN,
            epoch: 0,
            binding: 0,
            state: State::Established,
            flags: Flags(0),
        }
    }

    fn walk(history: &mut History, seconds: Option<f64>, row: &Connection) -> Option<Rates> {
        history.begin(seconds);
        let rates = history.visit(&KEY, row, 60_000);
        history.end();
        rates
    }

    #[test]
    fn rates_are_those_since_the_last_walk() {
        let mut history = History::default();
        assert_eq!(walk(&mut history, None, &row(1, 10, 1000)), None);
        let rates = walk(&mut history, Some(2.0), &row(1, 20, 1600)).unwrap();
        assert_eq!((rates.rx_packets, rates.rx_bytes), (5.0, 300.0));
        assert_eq!(rates.packets(), 5.0);
        let rates = walk(&mut history, Some(2.0), &row(1, 20, 1600)).unwrap();
        assert_eq!(rates, Rates::default());
    }

    #[test]
    fn a_four_tuple_that_was_used_again_is_another_connection() {
        let mut history = History::default();
        walk(&mut history, None, &row(1, 10, 1000));
        history.begin(Some(1.0));
        let rates = history.visit(&KEY, &row(50, 3, 180), 500).unwrap();
        assert_eq!((rates.rx_packets, rates.rx_bytes), (3.0, 180.0));
        history.end();
        assert_eq!(history.rows.len(), 1);
    }

    #[test]
    fn an_old_row_that_was_missed_has_no_rate() {
        let mut history = History::default();
        history.begin(None);
        history.end();
        assert_eq!(walk(&mut history, Some(1.0), &row(1, 10, 1000)), None);
    }

    #[test]
    fn packets_may_wrap() {
        let mut history = History::default();
        let high = u64::from(u32::MAX);
        walk(&mut history, None, &row(1, high, 1000));
        let rates = walk(&mut history, Some(1.0), &row(1, high + 5, 1000)).unwrap();
        assert_eq!(rates.rx_packets, 5.0);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut history = History::default();
        history.begin(None);
        for created in 0..1000 {
            history.visit(&KEY, &row(created, 1, 60), 60_000);
        }
        history.end();
        assert_eq!(history.rows.len(), 1000);
        history.begin(Some(1.0));
        history.end();
        assert!(history.rows.is_empty());
        assert!(history.rows.capacity() < 10);
    }
}
