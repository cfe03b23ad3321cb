//! Real threads at one table.

use std::{
    collections::HashMap,
    sync::{
        Barrier,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
};

use demux_common::{
    connection::{Connection, ConnectionKey},
    table::{self, Cold, Flags, Inserted, Line, Memory, Occupancy, Recorded, WINDOW, sweep},
};
use zerocopy::{FromBytes as _, IntoBytes as _, TryFromBytes as _};

use super::names::{BYTES, Kind, LONG, NOW, Names, is_of_one, new, random};

/// Lines of atomic words: hot ones, then cold ones.
pub(crate) struct Flat {
    words: Vec<AtomicU64>,
    lines: usize,
}

impl Flat {
    pub(crate) fn new(lines: u32) -> Self {
        let lines = lines as usize;
        Self {
            words: (0..lines * 16).map(|_| AtomicU64::new(0)).collect(),
            lines,
        }
    }

    /// The row in a line, if it is live and reached from its home; while nobody writes.
    pub(crate) fn reached(&self, index: u32) -> Option<(ConnectionKey, Connection)> {
        let line = self.hot(index);
        if line.occupancy != Occupancy::Live {
            return None;
        }
        let home = self.hot(index - u32::from(line.hop));
        (home.hops >> line.hop & 1 != 0).then(|| self.copy(index).expect("a row that can be read"))
    }

    fn hot(&self, index: u32) -> Line {
        let words = self.copied(self.line(index).expect("a line"));
        Line::try_read_from_bytes(words.as_bytes()).expect("a line")
    }

    /// A copy of a row, word by word.
    fn copy(&self, index: u32) -> Option<(ConnectionKey, Connection)> {
        let line = self.hot(index);
        let cold = self.copied(self.cold(index).expect("a line"));
        let cold = Cold::read_from_bytes(cold.as_bytes()).expect("a line");
        Connection::read(&line, &cold)
    }

    fn copied(&self, line: usize) -> [u64; 8] {
        std::array::from_fn(|word| self.words[line + word].load(Ordering::Acquire))
    }

    fn wide(&self, line: usize, at: usize) -> &AtomicU64 {
        &self.words[line + at / 8]
    }

    fn narrow(&self, line: usize, at: usize) -> &AtomicU32 {
        let word = self.wide(line, at).as_ptr().cast::<u32>();
        // SAFETY: half of an aligned word that lives as long as this memory, and is never accessed
        // but as atomics. (x86-64 knows what to do with atomics of two sizes in one place.)
        unsafe { AtomicU32::from_ptr(word.add(at / 4 % 2)) }
    }
}

impl Memory for Flat {
    type Line = usize;

    fn line(&self, index: u32) -> Option<usize> {
        let index = index as usize;
        (index < self.lines).then(|| index * 8)
    }

    fn cold(&self, index: u32) -> Option<usize> {
        let index = index as usize;
        (index < self.lines).then(|| (self.lines + index) * 8)
    }

    fn load32<const AT: usize>(&self, line: usize) -> u32 {
        self.narrow(line, AT).load(Ordering::Acquire)
    }

    fn load64<const AT: usize>(&self, line: usize) -> u64 {
        self.wide(line, AT).load(Ordering::Acquire)
    }

    fn store32<const AT: usize>(&self, line: usize, value: u32) {
        self.narrow(line, AT).store(value, Ordering::Release);
    }

    fn store64<const AT: usize>(&self, line: usize, value: u64) {
        self.wide(line, AT).store(value, Ordering::Release);
    }

    fn exchange32<const AT: usize>(&self, line: usize, old: u32, new: u32) -> bool {
        let word = self.narrow(line, AT);
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn exchange64<const AT: usize>(&self, line: usize, old: u64, new: u64) -> bool {
        let word = self.wide(line, AT);
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn and32<const AT: usize>(&self, line: usize, mask: u32) {
        self.narrow(line, AT).fetch_and(mask, Ordering::SeqCst);
    }

    fn add32<const AT: usize>(&self, line: usize, addend: u32) {
        self.narrow(line, AT).fetch_add(addend, Ordering::SeqCst);
    }
}

const THREADS: usize = 4;
const STEPS: u32 = 400_000;

/// Sends a packet; returns whether it is counted in a row.
fn packet(names: &Names, memory: &Flat, name: u32) -> bool {
    if let Some(found) = names.find(memory, name)
        && table::count::<{ Line::RX }, _>(memory, &found, 1, BYTES) == Recorded::Yes
    {
        return true;
    }
    match names.insert(memory, name, &new(name)) {
        Inserted::Present(found) => {
            table::count::<{ Line::RX }, _>(memory, &found, 1, BYTES) == Recorded::Yes
        }
        Inserted::Full => false,
        _ => true,
    }
}

/// By name, how many packets its one row has; every line is empty or has such a row, and every hop
/// leads to one.
fn rows(names: &Names, memory: &Flat) -> HashMap<u32, u64> {
    let mut rows = HashMap::new();
    let mut hops = 0;
    for index in 0..names.lines() {
        let line = memory.hot(index);
        hops += line.hops.count_ones();
        match memory.reached(index) {
            Some((key, row)) => {
                let name = is_of_one(&key, &row).expect("a row");
                assert_eq!(row.rx_bytes, row.rx_packets * u64::from(BYTES));
                assert_eq!(rows.insert(name, row.rx_packets), None, "{name} twice");
            }
            None => assert_eq!(line.occupancy, Occupancy::Empty, "line {index}"),
        }
    }
    assert_eq!(hops as usize, rows.len());
    rows
}

#[test]
fn threads_enter_each_key_once_and_count_every_packet() {
    let mut names = Names::new(32);
    let all: Vec<u32> = (0..32)
        .map(|n| {
            names.at(
                n % 8 * 4,
                if n % 3 == 0 {
                    Kind::Confirmed6
                } else {
                    Kind::Confirmed
                },
            )
        })
        .collect();
    let names = &names;
    for round in 0..20u64 {
        let memory = &Flat::new(names.lines());
        let barrier = &Barrier::new(THREADS);
        let sent: Vec<HashMap<u32, u64>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS as u64)
                .map(|thread| {
                    let all = &all;
                    scope.spawn(move || {
                        let mut chance = round << 8 | thread;
                        let mut counted = HashMap::new();
                        barrier.wait();
                        for _ in 0..STEPS / 20 {
                            let name = all[random(&mut chance) as usize % all.len()];
                            if packet(names, memory, name) {
                                *counted.entry(name).or_default() += 1;
                            }
                        }
                        counted
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a thread"))
                .collect()
        });
        let mut sum: HashMap<u32, u64> = HashMap::new();
        for (name, packets) in sent.into_iter().flatten() {
            *sum.entry(name).or_default() += packets;
        }
        assert_eq!(rows(names, memory), sum);
    }
}

#[test]
fn threads_that_enter_remove_displace_sweep_and_read_agree() {
    let mut names = Names::new(4);
    let kinds = [
        Kind::Unconfirmed,
        Kind::Confirmed6,
        Kind::Unconfirmed6,
        Kind::Confirmed,
    ];
    let all: Vec<u32> = (0..40)
        .map(|n| names.at(n % 4, kinds[n as usize / 4 % 4]))
        .collect();
    let names = &names;
    let memory = &Flat::new(names.lines());
    let barrier = &Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            let all = &all;
            scope.spawn(move || {
                let mut chance = thread + 1000;
                barrier.wait();
                for _ in 0..STEPS {
                    let choice = random(&mut chance);
                    let name = all[(choice >> 8) as usize % all.len()];
                    match choice % 16 {
                        0..8 => {
                            packet(names, memory, name);
                        }
                        8..11 => {
                            if let Some(found) = names.find(memory, name) {
                                table::remove(memory, &found);
                            }
                        }
                        11 => {
                            if let Some(found) = names.find(memory, name) {
                                let flags = Flags(found.head.flags().0 | Flags::CONFIRMED);
                                let next = found.head.with_flags(flags);
                                table::change_head(memory, found.line, found.head, next);
                            }
                        }
                        12 => {
                            if let Some(found) = names.find(memory, name)
                                && !table::has_cold(memory, &found)
                            {
                                table::add_cold(memory, &found, new(name).now);
                            }
                        }
                        13 => {
                            let mut old = new(name);
                            old.now = old.now.wrapping_sub(LONG);
                            names.insert(memory, name, &old);
                        }
                        _ => {
                            let index = (choice >> 16) as u32 % names.lines();
                            sweep::visit(memory, index, NOW, &names.lifetimes);
                        }
                    }
                }
            });
        }
        scope.spawn(move || {
            let mut chance = 1;
            let mut read = 0;
            barrier.wait();
            for _ in 0..STEPS {
                let index = random(&mut chance) as u32 % names.lines();
                if let Some((key, row)) = memory.copy(index) {
                    is_of_one(&key, &row).expect("a row");
                    read += 1;
                }
            }
            println!("{read} rows read");
        });
    });
    // What is left of races is given back.
    for index in 0..names.lines() {
        if let sweep::Finding::Unreached(head) = sweep::visit(memory, index, NOW, &names.lifetimes)
        {
            println!("line {index} was left");
            assert!(sweep::give_back(memory, index, head));
        }
    }
    rows(names, memory);
    assert!(names.lines() >= WINDOW);
}
