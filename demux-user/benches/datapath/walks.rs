//! The walks of the benchmark, and how they are written into the map.

use std::mem::offset_of;

use crate::walk::Walk;

impl Walk {
    /// Every index in its turn, from 0 on.
    pub(crate) const fn in_order(count: u32) -> Self {
        Self {
            index: u32::MAX,
            multiplier: 1,
            increment: 1,
            mask: count.wrapping_sub(1),
            misses: 0,
            found: 0,
        }
    }

    /// Every index once before any comes again, in an order that no prefetcher sees through; a
    /// count of 0 stands for all indexes that there are.
    pub(crate) const fn shuffled(count: u32) -> Self {
        Self {
            index: 0,
            // Those of Numerical Recipes, with the full period in any power of two.
            multiplier: 1_664_525,
            increment: 1_013_904_223,
            mask: count.wrapping_sub(1),
            misses: 0,
            found: 0,
        }
    }

    /// The value in the map.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let Self {
            index,
            multiplier,
            increment,
            mask,
            misses,
            found,
        } = self;
        [index, multiplier, increment, mask, misses, found]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect()
    }

    /// How many lookups have missed, of a value in the map.
    pub(crate) fn misses_of(value: &[u8; size_of::<Self>()]) -> u32 {
        word(value, offset_of!(Self, misses))
    }

    /// The index, of a value in the map.
    pub(crate) fn index_of(value: &[u8; size_of::<Self>()]) -> u32 {
        word(value, offset_of!(Self, index))
    }
}

fn word(value: &[u8; size_of::<Walk>()], at: usize) -> u32 {
    u32::from_ne_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]])
}
