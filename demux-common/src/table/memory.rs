//! The memory that the table lies in: map values in the kernel, a mapping or plain atomics elsewhere.

use super::claim::{self, Choice};
use super::line::Head;
use crate::{connection::State, event::Happening};

/// The words of the table. Offsets are bytes within a line; each is always read and written in the
/// same width.
///
/// Loads and stores are whole and happen in program order; the read-modify-writes are full barriers.
/// A memory that must not be changed may do nothing for the stores, and let every
/// compare-and-exchange succeed.
pub trait Memory {
    /// A handle to a line.
    type Line: Copy;

    /// The hot line at an index; `None` beyond the end.
    fn line(&self, index: u32) -> Option<Self::Line>;
    /// The cold line at an index.
    fn cold(&self, index: u32) -> Option<Self::Line>;

    /// Reads four bytes.
    fn load32<const AT: usize>(&self, line: Self::Line) -> u32;
    /// Reads eight bytes.
    fn load64<const AT: usize>(&self, line: Self::Line) -> u64;
    /// Writes four bytes.
    fn store32<const AT: usize>(&self, line: Self::Line, value: u32);
    /// Writes eight bytes.
    fn store64<const AT: usize>(&self, line: Self::Line, value: u64);
    /// Writes `new` where `old` stands; returns whether it did.
    fn exchange32<const AT: usize>(&self, line: Self::Line, old: u32, new: u32) -> bool;
    /// Writes `new` where `old` stands; returns whether it did.
    fn exchange64<const AT: usize>(&self, line: Self::Line, old: u64, new: u64) -> bool;
    /// Clears the bits that are not set in `mask`.
    fn and32<const AT: usize>(&self, line: Self::Line, mask: u32);
    /// Adds to four bytes.
    fn add32<const AT: usize>(&self, line: Self::Line, addend: u32);

    /// How many connections are still to be entered without looking for an empty line all through
    /// the window; see [`claim::choose`].
    #[inline(always)]
    fn pressure(&self) -> u32 {
        0
    }

    /// Sets what [`Memory::pressure`] returns.
    #[inline(always)]
    fn set_pressure(&self, pressure: u32) {
        let _ = pressure;
    }

    /// Counts an unconfirmed connection that had to go for one that was not entered after all.
    #[inline(always)]
    fn displaced_in_vain(&self) {}

    /// Tells whoever listens what became of the connection in a line, whose head is or was `head`. Of
    /// one that comes to its end while the line is the caller's own. A state that is the same as before is no
    /// event. See [`crate::event`].
    #[inline(always)]
    fn tell(&self, what: Happening, index: u32, head: Head, before: State) {
        let _ = (what, index, head, before);
    }

    /// [`claim::fitter`]; the kernel program puts it into a function of its own.
    #[inline(always)]
    fn fitter(
        &self,
        best: u64,
        home: u32,
        hop: u32,
        now: u32,
        unfit: u32,
        lifetimes: &[u32; State::SLOTS],
    ) -> u64 {
        claim::fitter(self, best, home, hop, now, unfit, lifetimes)
    }
    /// [`claim::choose`]; as [`Memory::fitter`].
    #[inline(always)]
    fn choose(&self, home: u32, now: u32, unfit: u32, lifetimes: &[u32; State::SLOTS]) -> Choice {
        claim::choose(self, home, now, unfit, lifetimes)
    }
}
