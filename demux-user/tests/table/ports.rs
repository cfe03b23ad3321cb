//! The settings, the counters and the sets of the port allocator on the host: plain collections.

use std::cell::{Cell, RefCell};

use demux_common::{
    ports::{Algorithm, Barred, Counter, Ephemeral, HINT_WORDS, PERTURBATIONS, PortTables},
    protocol::Protocol,
};

use super::model::{Model, SECRET};

/// What the allocator has besides the connection table.
#[derive(Debug)]
pub struct Ports {
    /// The counters in it are not used.
    pub settings: Ephemeral,
    pub next: Cell<u32>,
    pub position: Cell<u32>,
    pub draws: Cell<u64>,
    pub perturbation: RefCell<Vec<u32>>,
    pub barred: RefCell<Vec<u64>>,
    pub hints: RefCell<Vec<u64>>,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            settings: Ephemeral {
                first_port: 32768,
                last_port: 60999,
                algorithm: Algorithm::DoubleHash,
                ..Ephemeral::default()
            },
            next: Cell::default(),
            position: Cell::default(),
            draws: Cell::default(),
            perturbation: RefCell::new(vec![0; PERTURBATIONS]),
            barred: RefCell::new(vec![0; Barred::WORDS]),
            hints: RefCell::new(vec![0; HINT_WORDS]),
        }
    }
}

impl Ports {
    /// Bars a port.
    pub fn bar(&self, why: Barred, protocol: Protocol, port: u16) {
        let word = why.offset(protocol) as usize + usize::from(port >> 6);
        self.barred.borrow_mut()[word] |= 1 << (port & 63);
    }
}

impl PortTables for Model {
    fn ephemeral(&self) -> Option<&Ephemeral> {
        Some(&self.ports.settings)
    }

    fn ports_key(&self) -> [u64; 2] {
        SECRET.ports
    }

    fn counter(&self, counter: Counter) -> u32 {
        match counter {
            Counter::Next => self.ports.next.get(),
            Counter::Position => self.ports.position.get(),
            Counter::Perturbation(index) => self.ports.perturbation.borrow()[index as usize],
        }
    }

    fn advance(&self, counter: Counter, by: u32) {
        let to = self.counter(counter).wrapping_add(by);
        match counter {
            Counter::Next => self.ports.next.set(to),
            Counter::Position => self.ports.position.set(to),
            Counter::Perturbation(index) => {
                self.ports.perturbation.borrow_mut()[index as usize] = to;
            }
        }
    }

    fn next_draw(&self) -> u64 {
        let draws = self.ports.draws.get();
        self.ports.draws.replace(draws + 1)
    }

    fn barred(&self, why: Barred, protocol: Protocol, word: u32) -> u64 {
        self.ports.barred.borrow()[(why.offset(protocol) + word) as usize]
    }

    fn hints(&self, index: u32) -> u64 {
        self.ports.hints.borrow()[index as usize]
    }

    fn set_hints(&self, index: u32, bits: u64) {
        self.ports.hints.borrow_mut()[index as usize] |= bits;
    }

    fn clear_hints(&self, index: u32, bits: u64) {
        self.ports.hints.borrow_mut()[index as usize] &= !bits;
    }

    fn put_hints(&self, index: u32, word: u64) {
        self.ports.hints.borrow_mut()[index as usize] = word;
    }
}
