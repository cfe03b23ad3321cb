//! A ring in plain memory, whose words a test can read and write past both roles.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use demux_user::xsk::{
    mapping::Mapping,
    ring::{Descriptor, Layout, Ring, Slot},
};

const LAYOUT: Layout = Layout {
    producer: 0,
    consumer: 64,
    flags: 128,
    slots: 192,
};

/// What a ring of this type holds, made of a number.
pub(crate) trait Numbered: Slot + PartialEq + std::fmt::Debug {
    fn of(number: u64) -> Self;
}

impl Numbered for u64 {
    fn of(number: u64) -> Self {
        number
    }
}

impl Numbered for Descriptor {
    fn of(number: u64) -> Self {
        Self {
            address: number << 32 | number,
            len: number as u32 ^ 0xffff,
            options: number as u32 & 1,
        }
    }
}

/// A ring whose indices begin at `start`.
pub(crate) struct Board {
    mapping: Arc<Mapping>,
    size: u32,
}

impl Board {
    pub(crate) fn new(size: u32, start: u32) -> Self {
        let len = 192 + 16 * size as usize;
        let board = Self {
            mapping: Arc::new(Mapping::anonymous(len).unwrap()),
            size,
        };
        board.producer().store(start, Ordering::Relaxed);
        board.consumer().store(start, Ordering::Relaxed);
        board
    }

    pub(crate) fn ring<T: Slot>(&self) -> Ring<T> {
        Ring::new(&self.mapping, LAYOUT, self.size).unwrap()
    }

    pub(crate) fn producer(&self) -> &AtomicU32 {
        self.word(LAYOUT.producer)
    }

    pub(crate) fn consumer(&self) -> &AtomicU32 {
        self.word(LAYOUT.consumer)
    }

    pub(crate) fn flags(&self) -> &AtomicU32 {
        self.word(LAYOUT.flags)
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        let word = self.mapping.slice(offset, 1).unwrap();
        // SAFETY: it lies within the mapping, which lives as long as the board, and is accessed by atomic
        // operations only.
        unsafe { word.as_ref() }
    }
}

#[test]
fn rings_must_lie_within_their_mapping() {
    let mapping = Arc::new(Mapping::anonymous(4096).unwrap());
    let make = |layout, size| Ring::<Descriptor>::new(&mapping, layout, size).is_some();
    let with = |change: fn(&mut Layout)| {
        let mut layout = LAYOUT;
        change(&mut layout);
        layout
    };
    assert!(make(LAYOUT, 128));
    assert!(!make(LAYOUT, 256), "longer than the mapping");
    for size in [0, 3, 100, u32::MAX] {
        assert!(!make(LAYOUT, size), "{size} is no power of two");
    }
    assert!(!make(LAYOUT, 1 << 31));
    assert!(!make(with(|layout| layout.producer = 4096), 8));
    assert!(!make(with(|layout| layout.consumer = u64::MAX), 8));
    assert!(!make(with(|layout| layout.flags = 130), 8), "not aligned");
    assert!(!make(with(|layout| layout.slots = 196), 8), "not aligned");
}
