//! What the remote's segments alone show, where this host's own cannot be seen.

use super::{
    Half, Kind, Marks, Seen, Step, Tracked,
    half::{is_after, is_near},
};
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
            state => goes(row, state, latest(row, seen), seen),
        },
        Kind::Ack | Kind::Fin => {
            let is_fin = matches!(seen.kind, Kind::Fin);
            // A guess changes no state; the numbers follow it, and the next genuine segment.
            let is_credible = !is_known || is_near(end, next);
            let state = match row.state {
                // Whoever has sent the SYN knows where it ends; whether this host has answered is
                // for the kernel to say.
                State::Listen | State::SynReceived if is_known && seen.sequence != next => {
                    return Step::Ignored;
                }
                State::SynSent => return Step::Ignored,
                State::Listen | State::SynReceived | State::Established
                    if is_fin && is_credible =>
                {
                    State::CloseWait
                }
                State::Listen | State::SynReceived => State::Established,
                // Nothing follows a FIN, so it was none.
                State::CloseWait if !is_fin && is_known && is_credible && is_after(end, next) => {
                    State::Established
                }
                State::FinWait1 | State::FinWait2 if is_fin && is_credible => State::TimeWait,
                state => state,
            };
            goes(row, state, latest(row, seen), seen)
        }
    }
}

/// Retransmissions do not move the expectation back.
#[inline(always)]
const fn latest(row: Tracked, seen: &Seen) -> u32 {
    if row.marks.has(Marks::REMOTE_SEEN) {
        row.remote.after(seen.end(), row.remote.ack).next
    } else {
        seen.end()
    }
}

#[inline(always)]
const fn goes(row: Tracked, state: State, next: u32, seen: &Seen) -> Step {
    let ack = if !seen.has_ack {
        row.remote.ack
    } else if row.marks.has(Marks::REMOTE_SEEN) {
        row.remote.after(next, seen.acknowledgement).ack
    } else {
        seen.acknowledgement
    };
    Step::Goes(Tracked {
        state,
        marks: row.marks.with(Marks::REMOTE_SEEN),
        local: row.local,
        remote: Half { next, ack },
    })
}
