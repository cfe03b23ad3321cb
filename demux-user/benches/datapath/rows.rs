//! The rows of demux's own table, entered here by its own code and then copied into the map.

use std::cell::Cell;

use demux_common::{
    connection::State,
    table::{self, Flags, Inserted, Memory, New, Probe, Secret},
    tcp::Half,
};
use demux_user::bpf;

use crate::{
    reference::{ROWS, Reference},
    row,
    walk::Walk,
};

/// Puts in a row for each index, which names the next one of the walk.
pub(crate) fn fill(reference: &Reference, walk: Walk) {
    let lines = Lines(vec![Cell::new([0; 8]); row::lines(ROWS as usize)]);
    let secret = Secret {
        numbers: row::NUMBERS,
        ports: [0; 2],
    };
    // Longer than the clock has been running.
    let lifetimes = [u32::MAX / 4; State::SLOTS];
    let mut refused = 0;
    for index in 0..ROWS {
        let key = row::key(index);
        let new = New {
            now: 0,
            epoch: 0,
            remote: Half {
                next: walk.after(index),
                ack: 0,
            },
            local: Half::UNKNOWN,
            rx_packets: 1,
            rx_bytes: 60,
            tx_packets: 0,
            tx_bytes: 0,
            binding: 0,
            state: State::Established,
            // Or another one could take its line.
            flags: Flags(Flags::CONFIRMED),
        };
        let probe = Probe::new(&key, &secret, row::homes(ROWS as usize));
        let inserted = table::insert(&lines, &probe, &key, &new, &lifetimes);
        refused += u32::from(!matches!(inserted, Inserted::Entered(_)));
    }
    // Where too many want to stand in one place, some have to go without.
    assert!(refused <= ROWS / 1000, "{refused} rows found no room");
    let keys: Vec<u8> = (0..lines.0.len() as u32)
        .flat_map(u32::to_ne_bytes)
        .collect();
    let values: Vec<u8> = lines
        .0
        .iter()
        .flat_map(Cell::get)
        .flat_map(u64::to_ne_bytes)
        .collect();
    let count = lines.0.len();
    let (done, result) = bpf::map_update_batch(reference.map("LINES"), &keys, &values, count, 0);
    result.unwrap_or_else(|error| panic!("{error} after {done} lines"));
}

/// Lines that nobody else sees.
struct Lines(Vec<Cell<[u64; 8]>>);

impl Memory for Lines {
    type Line = usize;

    fn line(&self, index: u32) -> Option<usize> {
        let index = index as usize;
        (index < self.0.len()).then_some(index)
    }

    /// IPv4 connections do without.
    fn cold(&self, _index: u32) -> Option<usize> {
        None
    }

    fn load32<const AT: usize>(&self, line: usize) -> u32 {
        (self.0[line].get()[AT / 8] >> (AT % 8 * 8)) as u32
    }

    fn load64<const AT: usize>(&self, line: usize) -> u64 {
        self.0[line].get()[AT / 8]
    }

    fn store32<const AT: usize>(&self, line: usize, value: u32) {
        let shift = AT % 8 * 8;
        let mut words = self.0[line].get();
        words[AT / 8] = words[AT / 8] & !(0xffff_ffff << shift) | u64::from(value) << shift;
        self.0[line].set(words);
    }

    fn store64<const AT: usize>(&self, line: usize, value: u64) {
        let mut words = self.0[line].get();
        words[AT / 8] = value;
        self.0[line].set(words);
    }

    fn exchange32<const AT: usize>(&self, line: usize, old: u32, new: u32) -> bool {
        let is_old = self.load32::<AT>(line) == old;
        if is_old {
            self.store32::<AT>(line, new);
        }
        is_old
    }

    fn exchange64<const AT: usize>(&self, line: usize, old: u64, new: u64) -> bool {
        let is_old = self.load64::<AT>(line) == old;
        if is_old {
            self.store64::<AT>(line, new);
        }
        is_old
    }

    fn and32<const AT: usize>(&self, line: usize, mask: u32) {
        self.store32::<AT>(line, self.load32::<AT>(line) & mask);
    }

    fn add32<const AT: usize>(&self, line: usize, addend: u32) {
        self.store32::<AT>(line, self.load32::<AT>(line).wrapping_add(addend));
    }
}
