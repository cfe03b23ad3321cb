//! The connection table: one cache line for each connection, shared by every CPU, both directions
//! and the controller without a lock.
//!
//! A connection lives in a [`Line`] of an array. Its key hashes to a *home*, and it stands in one of
//! the [`WINDOW`] lines from its home on. The home's line keeps, besides whatever connection stands
//! in it, which lines of its window hold connections of this home ([`Line::hops`]): a lookup reads
//! the home and the lines named there, and nothing else, whether it hits or misses. There are no
//! tombstones and nothing is ever moved.
//!
//! # The protocol
//!
//! Words are written whole, and only like this:
//!
//! - Whoever changes a line's [`Head`] from [`Occupancy::Empty`] or [`Occupancy::Live`] to
//!   [`Occupancy::Busy`] by compare-and-exchange owns the line until it is live or empty again.
//!   Owning it moves the generation on.
//! - The owner of a line that was live first takes the line out of its old home's hops.
//! - A connection is written while its line is busy, the counters with the new generation first.
//!   Then the line is made live, and last it is entered into the hops of its home by one
//!   compare-and-exchange, which succeeds only where no connection was entered since the home was
//!   searched for the same key. That is the moment at which the connection exists.
//! - What belongs to a live line is changed by compare-and-exchange: the head and the counters carry
//!   the generation; the sequence numbers are compared whole, with what was read while the
//!   generation was still the same.
//! - A lookup that has found its key looks at the hops again: the line may have been given to a
//!   connection of the same key that is not entered yet.
//!
//! So there are never two connections of one key; nobody acts on a half-written one, because it is
//! reached through the hops only; and a line that was given to another connection meanwhile is
//! noticed, because its generation differs. A confirmed connection is displaced by nobody: the
//! exchange that takes a line names the head that was looked at.
//!
//! A writer that stops half-way leaves at worst a line that is busy for ever, or live and not
//! reached. [`sweep`] gives both back; the datapath steps over them.
//!
//! What is left to chance: numbers of 8 and 16 bits that come round while one program runs; sequence
//! numbers that equal those of the line's next connection, and the time and the epoch, which anybody
//! who still holds the line writes; a carry into the cold line that is on its way while the line
//! changes hands; a packet at the very moment at which its connection expires.
//!
//! `tests/table` searches through the schedules of two and three threads.
//!
//! The order of stores and loads is that of a machine with total store order (x86-64), where only
//! the compare-and-exchanges order a store before a later load.

mod claim;
mod find;
mod hash;
mod line;
mod memory;
pub mod sweep;
mod update;

pub use self::{
    claim::{Choice, Inserted, New, choose, fitter, insert, insert_telling, is_expired, remove},
    find::{Addresses, Found, Probe, find, tuple_hash},
    hash::{Numbers, Secret},
    line::{Cold, Flags, Head, Line, Occupancy, Tally},
    memory::Memory,
    update::{
        Counted, Recorded, add_cold, change_head, count, epoch, half, has_cold, head, last_seen,
        put_count, put_epoch, put_half, simple_count, touch,
    },
};

pub(crate) use self::find::{find_v4, find_v6};

/// How many lines a connection may stand in: those from its home on.
pub const WINDOW: u32 = 16;

/// The lines of a table for so many connections: half of them stay empty, so that hardly a window
/// is ever full.
#[must_use]
pub const fn lines(connections: u32) -> u32 {
    homes(connections) + WINDOW - 1
}

/// The homes of a table for so many connections.
#[must_use]
pub const fn homes(connections: u32) -> u32 {
    2 * connections
}

/// The connections that a table of so many lines is for.
#[must_use]
pub const fn connections(lines: u32) -> u32 {
    (lines + 1 - WINDOW) / 2
}
