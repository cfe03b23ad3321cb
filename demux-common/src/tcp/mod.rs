//! TCP (RFC 9293) as an observer at this host sees it, who reads every segment in either direction
//! and must know the state of this host's end.
//!
//! [`opens`] makes a row of a segment, [`step`] applies a segment to a row, and [`advance`] is what
//! most segments come to. Everything is computed from four numbers, what each side has sent and what
//! each has acknowledged ([`Half`]), and four marks ([`Marks`]).
//!
//! This host is believed: its segments come from its own kernel. The remote is not, because anybody
//! can forge its segments; they count where a receiver would take them.

mod flags;
mod half;
mod ingress;
mod machine;

pub use self::{
    flags::{Flags, Kind, is_plain},
    half::{Half, WINDOW, is_after},
    machine::{advance, opens, step},
};
use crate::connection::State;

/// Who sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This host.
    Local,
    /// The other one.
    Remote,
}

/// Which segments can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Those of both sides.
    Both,
    /// Those of the remote.
    IngressOnly,
}

/// What a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it asks for.
    pub kind: Kind,
    /// SEG.SEQ.
    pub sequence: u32,
    /// SEG.ACK, where there is one.
    pub acknowledgement: u32,
    /// Whether there is one.
    pub has_ack: bool,
    /// SEG.LEN: data bytes, and one each for SYN and FIN.
    pub length: u32,
}

impl Seen {
    /// The sequence number behind the segment.
    #[inline(always)]
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.length)
    }
}

/// What was seen of the two sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(pub u8);

impl Marks {
    /// This host has sent, so that its [`Half`] is known.
    pub const LOCAL_SEEN: u8 = 0x01;
    /// The remote has sent, so that its [`Half`] is known.
    pub const REMOTE_SEEN: u8 = 0x02;
    /// This host has sent its FIN, which ends where its half says.
    pub const LOCAL_FIN: u8 = 0x04;
    /// The remote has sent its FIN.
    pub const REMOTE_FIN: u8 = 0x08;

    /// Whether all of the bits are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    /// With more bits set.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, bits: u8) -> Self {
        Self(self.0 | bits)
    }

    /// With bits cleared.
    #[inline(always)]
    #[must_use]
    pub const fn without(self, bits: u8) -> Self {
        Self(self.0 & !bits)
    }
}

/// A connection as far as segments show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// On the stack of the kernel program everything must be aligned.
#[repr(C, align(8))]
pub struct Tracked {
    /// The state of this host's end.
    pub state: State,
    /// What was seen.
    pub marks: Marks,
    /// What this host has said.
    pub local: Half,
    /// What the remote has said.
    pub remote: Half,
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The row goes on like this.
    Goes(Tracked),
    /// The row goes on like this, and this host has consented to the connection.
    Confirmed(Tracked),
    /// A new connection with the same four-tuple has begun.
    Reopened(Tracked),
    /// The row ends.
    Ends,
    /// The segment proves nothing; the row stays as it is, and is not refreshed.
    Ignored,
}
