//! Packets that wait for their next hop to be resolved: few, and the oldest give way to new ones.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{hop::Hop, neighbour::Key};

/// How many packets may wait in all.
const CAPACITY: usize = 256;

/// How many may wait for the same next hop.
const PER_NEIGHBOUR: usize = 16;

/// For how long a packet waits. The kernel gives up after three probes, a second apart.
const PATIENCE: Duration = Duration::from_secs(5);

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) key: Key,
    pub(super) hop: Hop,
    pub(super) packet: Vec<u8>,
    since: Instant,
}

/// The packets that wait, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    packets: VecDeque<Waiting>,
}

impl Queue {
    /// Adds a packet; returns how many others had to go.
    pub(super) fn push(&mut self, key: Key, hop: Hop, packet: &[u8], now: Instant) -> u64 {
        let mut dropped = 0;
        let is_like = |waiting: &Waiting| waiting.key == key;
        if self
            .packets
            .iter()
            .filter(|waiting| is_like(waiting))
            .count()
            >= PER_NEIGHBOUR
            && let Some(oldest) = self.packets.iter().position(is_like)
        {
            self.packets.remove(oldest);
            dropped += 1;
        }
        if self.packets.len() >= CAPACITY {
            self.packets.pop_front();
            dropped += 1;
        }
        self.packets.push_back(Waiting {
            key,
            hop,
            packet: packet.to_vec(),
            since: now,
        });
        dropped
    }

    /// Takes out the oldest packet whose next hop `ready` has something for, with that.
    pub(super) fn take<T>(
        &mut self,
        mut ready: impl FnMut(Key) -> Option<T>,
    ) -> Option<(Waiting, T)> {
        let mut found = None;
        let position = self.packets.iter().position(|waiting| {
            found = ready(waiting.key);
            found.is_some()
        })?;
        Some((self.packets.remove(position)?, found?))
    }

    /// Removes the packets for a next hop, and returns how many there were.
    pub(super) fn remove(&mut self, key: Key) -> u64 {
        let before = self.packets.len();
        self.packets.retain(|waiting| waiting.key != key);
        (before - self.packets.len()) as u64
    }

    /// Removes the packets that have waited for too long, and returns how many there were.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        let before = self.packets.len();
        self.packets
            .retain(|waiting| now.duration_since(waiting.since) < PATIENCE);
        (before - self.packets.len()) as u64
    }

    /// When the first of them will have waited for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(self.packets.front()?.since + PATIENCE)
    }

    /// The next hops that are waited for, each once.
    pub(super) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.packets.iter().map(|waiting| waiting.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// How many packets wait.
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(last: u8) -> Key {
        (1, [10, 0, 0, last].into())
    }

    fn push(queue: &mut Queue, to: u8, packet: u8, now: Instant) -> u64 {
        queue.push(key(to), Hop::example(), &[packet], now)
    }

    #[test]
    fn the_oldest_packets_for_a_next_hop_give_way() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert_eq!(push(&mut queue, 2, 0, now), 0);
        let dropped: u64 = (1..=20)
            .map(|packet| push(&mut queue, 1, packet, now))
            .sum();
        assert_eq!((dropped, queue.len()), (4, PER_NEIGHBOUR + 1));
        let (first, ()) = queue.take(|other| (other == key(1)).then_some(())).unwrap();
        assert_eq!(first.packet, [5]);
        assert_eq!(queue.remove(key(1)), 15);
        assert_eq!(queue.keys(), [key(2)]);
    }

    #[test]
    fn many_next_hops_share_what_room_there_is() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let dropped: u64 = (0..600_u32)
            .map(|packet| push(&mut queue, (packet % 200) as u8, 0, now))
            .sum();
        assert_eq!((dropped, queue.len()), (600 - CAPACITY as u64, CAPACITY));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert_eq!(queue.deadline(), None);
        push(&mut queue, 1, 0, now);
        push(&mut queue, 1, 1, now + PATIENCE / 2);
        assert_eq!(queue.deadline(), Some(now + PATIENCE));
        assert_eq!(queue.expire(now + PATIENCE), 1);
        assert_eq!(queue.len(), 1);
    }
}
