//! The memory of the connection table on the host: atomics, which any number of threads may share.

use std::{
    collections::HashMap,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Release, SeqCst},
    },
};

use demux_common::{
    connection::{Connection, ConnectionKey},
    table::{Cold, Line, Memory, Occupancy, WINDOW, lines},
};
use zerocopy::{IntoBytes as _, TryFromBytes as _};

/// Eight words of a hot line: where two of four bytes stand, and where one of eight does.
const HOT: [Width; 8] = [
    Width::Long,  // Head.
    Width::Long,  // Addresses.
    Width::Short, // Ports, last packet.
    Width::Long,  // What the remote has said.
    Width::Long,  // What this host has said.
    Width::Short, // Epoch, hops and version.
    Width::Long,  // What arrived.
    Width::Long,  // What left.
];

/// The same for a cold line.
const COLD: [Width; 8] = [
    Width::Long, // Generation and moment of creation, written last.
    Width::Long, // Local address.
    Width::Long,
    Width::Long, // Remote address.
    Width::Long,
    Width::Short, // What arrived and did not fit.
    Width::Short, // What left and did not fit.
    Width::Short, // Nothing, and generation, written first.
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Short,
    Long,
}

/// Two words of four bytes or one of eight. What is read and written in another width than its own
/// ends the test: no processor promises anything for that.
#[derive(Debug)]
enum Word {
    Short([AtomicU32; 2]),
    Long(AtomicU64),
}

impl Word {
    fn new(width: Width) -> Self {
        match width {
            Width::Short => Self::Short(Default::default()),
            Width::Long => Self::Long(AtomicU64::default()),
        }
    }

    fn bytes(&self) -> [u8; 8] {
        match self {
            Self::Short([first, second]) => {
                let word = [first.load(Acquire), second.load(Acquire)];
                word.as_bytes().try_into().expect("eight bytes")
            }
            Self::Long(word) => word.load(Acquire).to_ne_bytes(),
        }
    }
}

/// The lines of a table.
#[derive(Debug)]
pub struct Lines {
    hot: Vec<[Word; 8]>,
    cold: Vec<[Word; 8]>,
}

/// A line, as code that runs on any memory knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    index: usize,
    is_cold: bool,
}

impl Lines {
    /// Those of a table for so many connections.
    pub fn new(connections: u32) -> Self {
        let all = |widths: [Width; 8]| (0..lines(connections)).map(move |_| widths.map(Word::new));
        Self {
            hot: all(HOT).collect(),
            cold: all(COLD).collect(),
        }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.hot.len() as u32
    }

    /// A copy of a hot line, word by word.
    pub fn hot(&self, index: u32) -> Line {
        let bytes: Vec<u8> = self.hot[index as usize]
            .iter()
            .flat_map(Word::bytes)
            .collect();
        Line::try_read_from_bytes(&bytes).expect("a line")
    }

    /// A copy of a cold line, word by word.
    pub fn cold_line(&self, index: u32) -> Cold {
        let bytes: Vec<u8> = self.cold[index as usize]
            .iter()
            .flat_map(Word::bytes)
            .collect();
        Cold::try_read_from_bytes(&bytes).expect("a cold line")
    }

    /// Every connection that is reached from its home, whole, and expired or not.
    pub fn rows(&self) -> HashMap<ConnectionKey, Connection> {
        let mut rows = HashMap::new();
        for index in 0..self.count() {
            let line = self.hot(index);
            if line.occupancy != Occupancy::Live || !self.is_reached(index, &line) {
                continue;
            }
            if let Some((key, connection)) = Connection::read(&line, &self.cold_line(index)) {
                assert!(
                    rows.insert(key, connection).is_none(),
                    "two rows of {key:?}"
                );
            }
        }
        rows
    }

    fn is_reached(&self, index: u32, line: &Line) -> bool {
        let home = index.checked_sub(u32::from(line.hop));
        home.is_some_and(|home| self.hot(home).hops >> line.hop & 1 != 0)
    }

    /// Ends the test if anything stands in the table that nobody who is at rest leaves there: a line
    /// that is busy, or live and not reached, a home that names a line without a connection of its
    /// own, or two rows of one four-tuple.
    pub fn assert_sound(&self) {
        for index in 0..self.count() {
            let line = self.hot(index);
            match line.occupancy {
                Occupancy::Empty => {}
                Occupancy::Busy => panic!("line {index} is busy: {line:?}"),
                Occupancy::Live => {
                    assert!(self.is_reached(index, &line), "line {index}: {line:?}");
                    assert!(line.is_whole(), "line {index}: {line:?}");
                }
            }
            for hop in (0..WINDOW).filter(|hop| line.hops >> hop & 1 != 0) {
                let named = self.hot(index + hop);
                assert_eq!(
                    (named.occupancy, u32::from(named.hop)),
                    (Occupancy::Live, hop),
                    "home {index} names {}",
                    index + hop
                );
            }
        }
        self.rows();
    }

    fn word(&self, line: Handle, at: usize) -> &Word {
        let lines = if line.is_cold { &self.cold } else { &self.hot };
        &lines[line.index][at / 8]
    }

    fn short(&self, line: Handle, at: usize) -> &AtomicU32 {
        match self.word(line, at) {
            Word::Short(pair) if at.is_multiple_of(4) => &pair[at % 8 / 4],
            _ => panic!("no four bytes at {at} of {line:?}"),
        }
    }

    fn long(&self, line: Handle, at: usize) -> &AtomicU64 {
        match self.word(line, at) {
            Word::Long(word) if at.is_multiple_of(8) => word,
            _ => panic!("no eight bytes at {at} of {line:?}"),
        }
    }

    fn handle(&self, index: u32, is_cold: bool) -> Option<Handle> {
        (index < self.count()).then_some(Handle {
            index: index as usize,
            is_cold,
        })
    }
}

// Loads and stores as x86-64 makes them of volatile ones, and its locked instructions.
impl Memory for Lines {
    type Line = Handle;

    fn line(&self, index: u32) -> Option<Handle> {
        self.handle(index, false)
    }

    fn cold(&self, index: u32) -> Option<Handle> {
        self.handle(index, true)
    }

    fn load32<const AT: usize>(&self, line: Handle) -> u32 {
        self.short(line, AT).load(Acquire)
    }

    fn load64<const AT: usize>(&self, line: Handle) -> u64 {
        self.long(line, AT).load(Acquire)
    }

    fn store32<const AT: usize>(&self, line: Handle, value: u32) {
        self.short(line, AT).store(value, Release);
    }

    fn store64<const AT: usize>(&self, line: Handle, value: u64) {
        self.long(line, AT).store(value, Release);
    }

    fn exchange32<const AT: usize>(&self, line: Handle, old: u32, new: u32) -> bool {
        let word = self.short(line, AT);
        word.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }

    fn exchange64<const AT: usize>(&self, line: Handle, old: u64, new: u64) -> bool {
        let word = self.long(line, AT);
        word.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }

    fn and32<const AT: usize>(&self, line: Handle, mask: u32) {
        self.short(line, AT).fetch_and(mask, SeqCst);
    }

    fn add32<const AT: usize>(&self, line: Handle, addend: u32) {
        self.short(line, AT).fetch_add(addend, SeqCst);
    }
}
