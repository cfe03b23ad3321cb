//! What the remote's segments alone show, where this host's own cannot be seen.

use super::{Half, Kind, Marks, Seen, Step, Tracked, half::is_after};
use crate::connection::State;

/// How far beyond the next expected sequence number a reset is still believed:
/// the largest window without scaling. Beyond it, it may be a guess.
const RESET_WINDOW: u32 = 65_535;

/// Applies a segment of the remote.
#[inline(always)]
pub(super) const fn step(row: Tracked, seen: &Seen) -> Step {
    let next = row.remote.next;
    let end = seen.end();
    let is_known = row.marks.has(Marks::REMOTE_SEEN);
    match seen.kind {
        Kind::Reset => {
            if !is_known || seen.sequence.wrapping_sub(next) <= RESET_WINDOW {
                Step::Ends
            } else {
                Step::Ignored
            }
        }
        Kind::Syn => match row.state {
            State::Listen => goes(row, State::Listen, end, seen),
            State::SynReceived if end == next => goes(row, State::SynReceived, end, seen),
            // The owner answers with a challenge ACK (RFC 5961, section 4): nothing is proved.
            State::Established | State::SynReceived => Step::Ignored,
            _ if !is_known || is_after(end, next) => Step::Reopened(Tracked {
                state: State::Listen,
                marks: Marks(Marks::REMOTE_SEEN),
                local: Half::UNKNOWN,
                remote: Half { next: end, ack: 0 },
            }),
            _ => Step::Ignored,
        },
        Kind::SynAck => match row.state {
            State::SynSent => goes(row, State::Established, end, seen),
            State::Listen => Step::Ignored,
            state => goes(row, state, latest(is_known, next, end), seen),
        },
        Kind::Ack | Kind::Fin => {
            let state = match row.state {
                // Whoever has sent the SYN knows where it ends; whether this host has answered is
                // for the kernel to say.
                State::Listen | State::SynReceived if seen.sequence != next => {
                    return Step::Ignored;
                }
                State::SynSent => return Step::Ignored,
                _ if matches!(seen.kind, Kind::Fin) => State::CloseWait,
                State::Listen | State::SynReceived => State::Established,
                state => state,
            };
            goes(row, state, latest(is_known, next, end), seen)
        }
    }
}

/// Retransmissions do not move the expectation back.
#[inline(always)]
const fn latest(is_known: bool, next: u32, end: u32) -> u32 {
    if !is_known || is_after(end, next) {
        end
    } else {
        next
    }
}

#[inline(always)]
const fn goes(row: Tracked, state: State, next: u32, seen: &Seen) -> Step {
    Step::Goes(Tracked {
        state,
        marks: row.marks.with(Marks::REMOTE_SEEN),
        local: row.local,
        remote: Half {
            next,
            ack: if seen.has_ack {
                seen.acknowledgement
            } else {
                row.remote.ack
            },
        },
    })
}
