//! What the allocator needs of the tables.

use super::{Barred, Destination, Ephemeral, Request, search};
use crate::{protocol::Protocol, tables::Tables};

/// A counter of an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// [`Ephemeral::next`].
    Next,
    /// [`Ephemeral::position`].
    Position,
    /// The entry at an index of the perturbation table.
    Perturbation(u32),
}

/// The settings, the counters and the sets of ports of the allocator.
///
/// Counters and sets are shared by all CPUs; their changes are atomic.
pub trait PortTables: Tables {
    /// The settings.
    fn ephemeral(&self) -> Option<&Ephemeral>;
    /// The key of the keyed functions.
    fn ports_key(&self) -> [u64; 2];
    /// Where a counter stands.
    fn counter(&self, counter: Counter) -> u32;
    /// Moves a counter on.
    fn advance(&self, counter: Counter, by: u32);
    /// Moves [`Ephemeral::draws`] on by one, and returns where it stood.
    fn next_draw(&self) -> u64;
    /// A word of the ports that are barred for a reason.
    fn barred(&self, why: Barred, protocol: Protocol, word: u32) -> u64;
    /// A word of the hints: see [`super::HINT_WORDS`].
    fn hints(&self, index: u32) -> u64;
    /// Sets bits of a word of the hints.
    fn set_hints(&self, index: u32, bits: u64);
    /// Clears bits of a word of the hints.
    fn clear_hints(&self, index: u32, bits: u64);
    /// Writes a word of the hints.
    fn put_hints(&self, index: u32, word: u64);

    /// What is computed of a destination; the kernel program puts this step, like those below, into
    /// a function of its own.
    #[inline(always)]
    fn destination(&self, request: &Request) -> Destination {
        Destination::new(self, request)
    }
    /// A random number.
    #[inline(always)]
    fn draw(&self) -> u64 {
        search::draw(self)
    }
    /// [`search::next_free`].
    #[inline(always)]
    fn next_free(&self, set: u32, protocol: Protocol, from: u32, last: u32) -> u32 {
        search::next_free(self, set, protocol, from, last)
    }
    /// [`search::claim`].
    #[inline(always)]
    fn claim(&self, request: &Request, port: u32) -> u32 {
        search::claim(self, request, port)
    }
    /// [`search::with_unused`].
    #[inline(always)]
    fn with_unused(&self, unused: u64, request: &Request, port: u32) -> u64 {
        search::with_unused(self, unused, request, port)
    }
    /// [`search::verify_word`].
    #[inline(always)]
    fn verify_word(&self, request: &Request, set: u32, word: u32, range: u32) -> u64 {
        search::verify_word(self, request, set, word, range)
    }
    /// [`search::open`].
    #[inline(always)]
    fn open(&self, set: u32, protocol: Protocol, word: u32) -> u64 {
        search::open(self, set, protocol, word)
    }
}
