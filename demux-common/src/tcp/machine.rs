//! The state machine: RFC 9293, section 3.10, from the side of an observer, with what Linux does
//! where the standard leaves a choice (tcp_input.c, tcp_minisocks.c).

use super::{
    Half, Kind, Marks, Seen, Side, Step, Tracked, Visibility,
    half::{WINDOW, is_after, is_between, is_near},
    ingress,
};
use crate::connection::State;

/// How much data may follow a SYN,ACK before its acknowledgement (TCP Fast Open, RFC 7413): one that
/// is sent again may fall behind what this host has sent by so much.
const FAST_OPEN: u32 = 65_535;

/// In SYN-RECEIVED Linux believes a reset anywhere in the window that the SYN,ACK offered, which is
/// never scaled (tcp_check_req, tcp_synack_window).
const SYN_ACK_WINDOW: u32 = 65_535;

/// The row that a segment makes; `None` where it makes none.
#[inline(always)]
#[must_use]
pub const fn opens(side: Side, seen: &Seen, visibility: Visibility) -> Option<Tracked> {
    let said = Half {
        next: seen.end(),
        ack: if seen.has_ack {
            seen.acknowledgement
        } else {
            0
        },
    };
    let state = match (side, seen.kind) {
        (_, Kind::Reset) => return None,
        // May be the last of a connection that was seen to end before this host knew, or come from
        // TIME-WAIT; if not, the remote's next segment makes the row.
        (Side::Local, Kind::Ack) if seen.length == 0 => return None,
        (Side::Remote, Kind::Syn) => State::Listen,
        (Side::Local, Kind::Syn) => State::SynSent,
        (Side::Local, Kind::SynAck) => State::SynReceived,
        (Side::Remote, Kind::Fin) if matches!(visibility, Visibility::IngressOnly) => {
            State::CloseWait
        }
        (Side::Local, Kind::Fin) => State::FinWait1,
        _ => State::Established,
    };
    let is_fin = matches!(seen.kind, Kind::Fin);
    Some(match side {
        Side::Remote => Tracked {
            state,
            marks: Marks(Marks::REMOTE_SEEN | if is_fin { Marks::REMOTE_FIN } else { 0 }),
            local: Half::UNKNOWN,
            remote: said,
        },
        Side::Local => Tracked {
            state,
            marks: Marks(
                Marks::LOCAL_SEEN
                    | if is_fin { Marks::LOCAL_FIN } else { 0 }
                    // A SYN,ACK tells where the SYN ended.
                    | if matches!(seen.kind, Kind::SynAck) { Marks::REMOTE_SEEN } else { 0 },
            ),
            local: said,
            remote: Half {
                next: said.ack,
                ack: seen.sequence,
            },
        },
    })
}

/// A new connection in the place of the old one.
#[inline(always)]
const fn reopens(side: Side, seen: &Seen) -> Step {
    match opens(side, seen, Visibility::Both) {
        Some(row) => Step::Reopened(row),
        None => Step::Ignored,
    }
}

/// Applies a segment to a row.
#[inline(always)]
#[must_use]
pub const fn step(row: Tracked, side: Side, seen: &Seen, visibility: Visibility) -> Step {
    match (side, visibility) {
        (Side::Remote, Visibility::IngressOnly) => ingress::step(row, seen),
        (Side::Remote, Visibility::Both) => arrives(row, seen),
        (Side::Local, _) => departs(row, seen),
    }
}

/// What the sender of a plain segment has said after it, on an established connection without a FIN;
/// `None` where the segment might mean more, and [`step`] must look at it.
#[inline(always)]
#[must_use]
pub const fn advance(
    sender: Half,
    receiver: Half,
    marks: Marks,
    side: Side,
    seen: &Seen,
) -> Option<Half> {
    let (sender_seen, receiver_seen) = match side {
        Side::Local => (Marks::LOCAL_SEEN, Marks::REMOTE_SEEN),
        Side::Remote => (Marks::REMOTE_SEEN, Marks::LOCAL_SEEN),
    };
    if marks.0 & (sender_seen | Marks::LOCAL_FIN | Marks::REMOTE_FIN) != sender_seen {
        return None;
    }
    if matches!(side, Side::Remote) && marks.has(receiver_seen) && !is_credible(receiver, seen) {
        return None;
    }
    Some(sender.after(seen.end(), seen.acknowledgement))
}

/// Whether a segment of the remote, with an acknowledgement, fits what this host has said.
#[inline(always)]
const fn is_credible(local: Half, seen: &Seen) -> bool {
    is_near(seen.end(), local.ack) && local.next.wrapping_sub(seen.acknowledgement) <= WINDOW
}

/// Applies a segment of the remote.
#[inline(always)]
const fn arrives(mut row: Tracked, seen: &Seen) -> Step {
    let end = seen.end();
    let is_local_known = row.marks.has(Marks::LOCAL_SEEN);
    let is_remote_known = row.marks.has(Marks::REMOTE_SEEN);
    match seen.kind {
        Kind::Reset => {
            if is_genuine_reset(row, seen) {
                Step::Ends
            } else {
                Step::Ignored
            }
        }
        Kind::Syn => match row.state {
            // Another initial sequence number is another attempt.
            State::Listen | State::SynSent => {
                row.remote.next = end;
                row.marks = row.marks.with(Marks::REMOTE_SEEN);
                Step::Goes(row)
            }
            State::SynReceived if end == row.remote.next => Step::Goes(row),
            // tcp_timewait_state_process. What it accepts by its timestamps alone shows when this
            // host answers.
            State::TimeWait if !is_remote_known || is_after(seen.sequence, row.remote.next) => {
                reopens(Side::Remote, seen)
            }
            // The owner answers with a challenge ACK (RFC 5961, section 4): nothing is proved.
            _ => Step::Ignored,
        },
        Kind::SynAck => match row.state {
            State::SynSent | State::SynReceived
                if is_local_known
                    && acknowledges_syn(row, seen)
                    // Of a simultaneous open (tcp_validate_incoming).
                    && (matches!(row.state, State::SynSent) || end == row.remote.next) =>
            {
                row.state = State::Established;
                row.remote = Half {
                    next: end,
                    ack: seen.acknowledgement,
                };
                // What follows may arrive before this host has said so.
                row.local.ack = end;
                row.marks = row.marks.with(Marks::REMOTE_SEEN);
                Step::Confirmed(row)
            }
            _ => Step::Ignored,
        },
        Kind::Ack | Kind::Fin => {
            let completes = matches!(row.state, State::SynReceived);
            match row.state {
                // This host has not answered, or goes by another way.
                State::Listen | State::SynSent => return Step::Ignored,
                State::SynReceived if is_local_known && !acknowledges_syn(row, seen) => {
                    return Step::Ignored;
                }
                _ => {}
            }
            if is_local_known && !is_credible(row.local, seen) {
                return Step::Ignored;
            }
            let is_beyond = !is_remote_known || is_after(end, row.remote.next);
            let has_finished = has_finished(row.state);
            if is_beyond && has_finished && row.marks.has(Marks::REMOTE_FIN) {
                // There is nothing behind a FIN that this host has taken.
                return Step::Ignored;
            }
            row.remote = if is_remote_known {
                row.remote.after(end, seen.acknowledgement)
            } else {
                Half {
                    next: end,
                    ack: seen.acknowledgement,
                }
            };
            if matches!(seen.kind, Kind::Fin) && !has_finished {
                // The latest one counts: an earlier one may have been a forgery.
                row.remote.next = end;
                row.marks = row.marks.with(Marks::REMOTE_FIN);
            } else if is_beyond && !has_finished {
                // So what seemed to be the FIN was none.
                row.marks = row.marks.without(Marks::REMOTE_FIN);
            }
            row.marks = row.marks.with(Marks::REMOTE_SEEN);
            if completes {
                row.state = State::Established;
            }
            settle(row, completes)
        }
    }
}

/// Whether this host would believe a reset of the remote.
#[inline(always)]
const fn is_genuine_reset(row: Tracked, seen: &Seen) -> bool {
    let is_remote_known = row.marks.has(Marks::REMOTE_SEEN);
    match row.state {
        State::Listen => seen.sequence == row.remote.next,
        // RFC 9293, section 3.10.7.3.
        State::SynSent => {
            seen.has_ack && (!row.marks.has(Marks::LOCAL_SEEN) || acknowledges_syn(row, seen))
        }
        _ if !row.marks.has(Marks::LOCAL_SEEN) => {
            !is_remote_known || is_near(seen.sequence, row.remote.next)
        }
        State::SynReceived => seen.sequence.wrapping_sub(row.local.ack) <= SYN_ACK_WINDOW,
        _ if !is_remote_known => is_near(seen.sequence, row.local.ack),
        // RFC 5961, section 3.2: exactly RCV.NXT, which is what was acknowledged, or what arrived
        // and will be. Linux takes the end of what arrived out of order too, and the number of a FIN
        // (tcp_reset_check).
        state => {
            let has_fin = matches!(state, State::CloseWait | State::Closing | State::LastAck);
            seen.sequence == row.remote.next
                || row.local.ack.wrapping_sub(seen.sequence) <= has_fin as u32
        }
    }
}

/// Whether a segment of the remote acknowledges this host's SYN, and the data that it carried or
/// not, in a state before the first acknowledgement.
#[inline(always)]
const fn acknowledges_syn(row: Tracked, seen: &Seen) -> bool {
    is_between(
        row.remote.ack.wrapping_add(1),
        seen.acknowledgement,
        row.local.next,
    )
}

/// Applies a segment of this host.
#[inline(always)]
const fn departs(mut row: Tracked, seen: &Seen) -> Step {
    let end = seen.end();
    let is_local_known = row.marks.has(Marks::LOCAL_SEEN);
    let said = Half {
        next: end,
        ack: if seen.has_ack {
            seen.acknowledgement
        } else {
            0
        },
    };
    match seen.kind {
        Kind::Reset => {
            let is_abort = match row.state {
                // With an acknowledgement of its own it aborts, or refuses a SYN.
                _ if seen.has_ack || !is_local_known => true,
                // Otherwise it answers a segment that acknowledges what was never sent, carries that
                // number (RFC 9293, section 3.10.7.1), and the attempt goes on.
                State::SynSent | State::SynReceived => seen.sequence == row.local.next,
                State::Listen => true,
                // A connection answers so to nothing: it is gone.
                _ if !row.marks.has(Marks::REMOTE_SEEN) => is_near(seen.sequence, row.local.next),
                _ => is_between(row.remote.ack, seen.sequence, row.local.next),
            };
            if is_abort { Step::Ends } else { Step::Ignored }
        }
        Kind::Syn => match row.state {
            State::SynReceived => Step::Ignored,
            State::Listen | State::SynSent => {
                let is_again = matches!(row.state, State::SynSent)
                    && is_local_known
                    && row.remote.ack == seen.sequence;
                // Sent again, it no longer carries data.
                if !(is_again && is_after(row.local.next, end)) {
                    row.local = said;
                }
                row.state = State::SynSent;
                row.remote.ack = seen.sequence;
                row.marks = row.marks.with(Marks::LOCAL_SEEN);
                Step::Goes(row)
            }
            // Only a new socket sends a SYN: whatever was here is over (tcp_twsk_unique).
            _ => reopens(Side::Local, seen),
        },
        Kind::SynAck => match row.state {
            State::Listen | State::SynSent | State::SynReceived => {
                row.state = State::SynReceived;
                row.local = said;
                // What it acknowledges is the SYN that this host goes by.
                row.remote = Half {
                    next: said.ack,
                    ack: seen.sequence,
                };
                row.marks = row.marks.with(Marks::LOCAL_SEEN | Marks::REMOTE_SEEN);
                Step::Goes(row)
            }
            State::TimeWait => reopens(Side::Local, seen),
            // Sent before the acknowledgement that was seen here had come up the stack, or the queue
            // of accepted connections is full.
            _ if is_local_known && row.local.next.wrapping_sub(end) <= FAST_OPEN => Step::Ignored,
            _ => reopens(Side::Local, seen),
        },
        Kind::Ack | Kind::Fin => {
            let is_fin = matches!(seen.kind, Kind::Fin);
            match row.state {
                // The answer to a segment outside of the window, while the handshake goes on
                // (tcp_check_req).
                State::SynReceived
                    if seen.length == 0 && is_local_known && said.ack == row.local.ack =>
                {
                    return Step::Ignored;
                }
                State::SynReceived => row.state = State::Established,
                // Of another connection, in TIME-WAIT, or one that is not known here: a SYN that
                // nobody listens for.
                State::Listen if seen.length == 0 && said.ack != row.remote.next => {
                    return Step::Ignored;
                }
                // Only a connection acknowledges: its handshake was missed.
                State::Listen | State::SynSent => {
                    row.state = State::Established;
                    row.marks = Marks(0);
                }
                _ => {}
            }
            row.local = if row.marks.has(Marks::LOCAL_SEEN) {
                row.local.after(end, said.ack)
            } else {
                // Whoever forged what was seen of the remote before did not know this.
                if is_after(row.remote.ack, end) {
                    row.remote.ack = seen.sequence;
                }
                said
            };
            row.marks = row.marks.with(Marks::LOCAL_SEEN);
            if is_fin {
                row.local.next = end;
                row.marks = row.marks.with(Marks::LOCAL_FIN);
            }
            settle(row, true)
        }
    }
}

/// Whether this host has taken the remote's FIN in a state.
#[inline(always)]
const fn has_finished(state: State) -> bool {
    matches!(
        state,
        State::CloseWait | State::Closing | State::LastAck | State::TimeWait
    )
}

/// The state that follows from what was sent and acknowledged.
#[inline(always)]
const fn settle(mut row: Tracked, confirmed: bool) -> Step {
    let both = Marks::LOCAL_SEEN | Marks::REMOTE_SEEN;
    // A row that was entered from the kernel's list tells by its state.
    let sent = row.marks.has(Marks::LOCAL_FIN)
        || matches!(row.state, State::FinWait1 | State::Closing | State::LastAck);
    let acknowledged = sent && row.marks.has(both) && row.remote.ack == row.local.next;
    let is_fin_known = row.marks.has(both | Marks::REMOTE_FIN);
    // Nothing follows a FIN, so where more is acknowledged, it was none.
    let received = is_fin_known && row.remote.next == row.local.ack;
    row.state = match row.state {
        State::Established if sent && received => State::LastAck,
        State::Established if sent && acknowledged => State::FinWait2,
        State::Established if sent => State::FinWait1,
        State::Established if received => State::CloseWait,
        State::CloseWait if sent => State::LastAck,
        State::CloseWait if is_fin_known && is_after(row.local.ack, row.remote.next) => {
            row.marks = row.marks.without(Marks::REMOTE_FIN);
            State::Established
        }
        State::FinWait1 if acknowledged && received => State::TimeWait,
        State::FinWait1 if acknowledged => State::FinWait2,
        State::FinWait1 if received => State::Closing,
        State::FinWait2 if received => State::TimeWait,
        State::Closing if acknowledged => State::TimeWait,
        state => state,
    };
    if acknowledged && matches!(row.state, State::LastAck) {
        return Step::Ends;
    }
    if confirmed {
        Step::Confirmed(row)
    } else {
        Step::Goes(row)
    }
}
