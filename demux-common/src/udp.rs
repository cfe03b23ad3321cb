//! What datagrams show of a UDP conversation.
//!
//! UDP has no handshake, so consent shows in that this host answers, and the remote goes on after
//! the answer: only then the remote is not just a forged source address.

use crate::{connection::State, tcp::Side};

/// A mark in [`crate::table::Flags`]: the remote has sent.
pub const REMOTE_SENT: u8 = 0x01;
/// A mark in [`crate::table::Flags`]: this host has sent after the remote had.
pub const ANSWERED: u8 = 0x02;

/// What a row knows of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Tracked {
    /// [`State::Unreplied`], [`State::Replied`] or [`State::Assured`].
    pub state: State,
    /// [`REMOTE_SENT`] and [`ANSWERED`].
    pub marks: u8,
}

/// The row that a first datagram makes.
#[inline(always)]
#[must_use]
pub const fn opens(side: Side) -> Tracked {
    Tracked {
        state: State::Unreplied,
        marks: match side {
            Side::Remote => REMOTE_SENT,
            Side::Local => 0,
        },
    }
}

/// Applies a datagram; the second value says whether it proves that this host consented: to a
/// conversation that it opened by the first answer, to another one once the remote goes on after
/// this host's answer.
#[inline(always)]
#[must_use]
pub const fn step(row: Tracked, side: Side, opened_here: bool) -> (Tracked, bool) {
    let Tracked { state, marks } = row;
    match side {
        Side::Remote if marks & ANSWERED != 0 => {
            let row = Tracked {
                state: State::Assured,
                marks,
            };
            (row, true)
        }
        Side::Remote if opened_here => {
            let row = Tracked {
                state: replied(state),
                marks: marks | REMOTE_SENT,
            };
            (row, true)
        }
        Side::Local if marks & REMOTE_SENT != 0 => {
            let row = Tracked {
                state: replied(state),
                marks: marks | ANSWERED,
            };
            (row, false)
        }
        _ => (row, false),
    }
}

/// The state once both sides have sent.
#[inline(always)]
const fn replied(state: State) -> State {
    match state {
        State::Unreplied => State::Replied,
        state => state,
    }
}
