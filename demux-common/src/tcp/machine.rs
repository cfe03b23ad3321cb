//! The state machine: RFC 9293, section 3.10, from the side of an observer, with what Linux does
//! where the standard leaves a choice (tcp_input.c, tcp_minisocks.c).

use super::{
    Half, Kind, Marks, Seen, Side, Step, Tracked, Visibility,
    half::{WINDOW, is_after, is_between, is_near},
    ingress,
};
use crate::connection::State;

/// How much data may ride on a SYN or SYN,ACK (TCP Fast Open, RFC 7413): acknowledgements of the
/// handshake may fall short of it by so much.
const FAST_OPEN: u32 = 65_535;

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
                ack: 0,
            },
        },
    })
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
    // How far the acknowledgement falls short of all that this host has sent.
    let short = row.local.next.wrapping_sub(seen.acknowledgement);
    match seen.kind {
        Kind::Reset => {
            let is_genuine = match row.state {
                // RFC 9293, section 3.10.7.3: it has to acknowledge the SYN.
                State::SynSent => seen.has_ack && short <= FAST_OPEN,
                State::Listen => seen.sequence == row.remote.next,
                _ if !is_local_known || !is_remote_known => true,
                // RFC 5961, section 3.2: exactly RCV.NXT, which is somewhere between what was
                // acknowledged and what arrived. Linux takes the end of what arrived out of order
                // too (tcp_reset_check), and the number of a FIN that it has received.
                _ => {
                    let fin = has_finished(row.state) as u32;
                    is_between(
                        row.local.ack.wrapping_sub(fin),
                        seen.sequence,
                        row.remote.next,
                    )
                }
            };
            if is_genuine {
                Step::Ends
            } else {
                Step::Ignored
            }
        }
        Kind::Syn => match row.state {
            // Another initial sequence number is another attempt.
            State::Listen | State::SynSent => {
                row.remote = Half { next: end, ack: 0 };
                row.marks = row.marks.with(Marks::REMOTE_SEEN);
                Step::Goes(row)
            }
            State::SynReceived if end == row.remote.next => Step::Goes(row),
            // tcp_timewait_state_process. What it accepts by its timestamps alone shows when this
            // host answers.
            State::TimeWait if !is_remote_known || is_after(seen.sequence, row.remote.next) => {
                Step::Reopened(Tracked {
                    state: State::Listen,
                    marks: Marks(Marks::REMOTE_SEEN),
                    local: Half::UNKNOWN,
                    remote: Half { next: end, ack: 0 },
                })
            }
            // The owner answers with a challenge ACK (RFC 5961, section 4): nothing is proved.
            _ => Step::Ignored,
        },
        Kind::SynAck => match row.state {
            State::SynSent | State::SynReceived if is_local_known && short <= FAST_OPEN => {
                row.state = State::Established;
                row.remote = Half {
                    next: end,
                    ack: seen.acknowledgement,
                };
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
                State::SynReceived if short > FAST_OPEN => return Step::Ignored,
                _ => {}
            }
            if is_local_known && !is_credible(row.local, seen) {
                return Step::Ignored;
            }
            let is_beyond = !is_remote_known || is_after(end, row.remote.next);
            if is_beyond && has_finished(row.state) && row.marks.has(Marks::REMOTE_FIN) {
                // There is nothing behind a FIN that this host has taken.
                return Step::Ignored;
            }
            let mut remote = if is_remote_known && !completes {
                row.remote.after(end, seen.acknowledgement)
            } else {
                Half {
                    next: if is_beyond { end } else { row.remote.next },
                    ack: seen.acknowledgement,
                }
            };
            if matches!(seen.kind, Kind::Fin) && !has_finished(row.state) {
                // The latest one counts: an earlier one may have been a forgery.
                remote.next = end;
                row.marks = row.marks.with(Marks::REMOTE_FIN);
            } else if is_beyond && !has_finished(row.state) {
                // So what seemed to be the FIN was none.
                row.marks = row.marks.without(Marks::REMOTE_FIN);
            }
            row.remote = remote;
            row.marks = row.marks.with(Marks::REMOTE_SEEN);
            if completes {
                row.state = State::Established;
            }
            settle(row, completes)
        }
    }
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
                State::Listen => true,
                // Where it answers a segment that acknowledges what was never sent, it carries that
                // acknowledgement (RFC 9293, section 3.10.7.1), and the connection goes on.
                _ if !is_local_known => true,
                State::SynSent | State::SynReceived => seen.sequence == row.local.next,
                _ if !row.marks.has(Marks::REMOTE_SEEN) => is_near(seen.sequence, row.local.next),
                _ => is_between(row.remote.ack, seen.sequence, row.local.next),
            };
            if is_abort { Step::Ends } else { Step::Ignored }
        }
        Kind::Syn => match row.state {
            State::SynReceived => Step::Ignored,
            State::Listen | State::SynSent => {
                row.state = State::SynSent;
                row.local = said;
                row.marks = row.marks.with(Marks::LOCAL_SEEN);
                Step::Goes(row)
            }
            // Only a new socket sends a SYN: whatever was here is over (tcp_twsk_unique).
            _ => Step::Reopened(Tracked {
                state: State::SynSent,
                marks: Marks(Marks::LOCAL_SEEN),
                local: said,
                remote: Half::UNKNOWN,
            }),
        },
        Kind::SynAck => match row.state {
            State::Listen | State::SynSent | State::SynReceived => {
                row.state = State::SynReceived;
                row.local = said;
                // What it acknowledges is the SYN that this host goes by.
                row.remote.next = said.ack;
                row.marks = row.marks.with(Marks::LOCAL_SEEN | Marks::REMOTE_SEEN);
                Step::Goes(row)
            }
            // Sent before the acknowledgement that was seen here had come up the stack.
            _ if is_local_known && row.local.next.wrapping_sub(end) <= FAST_OPEN => Step::Ignored,
            _ => Step::Reopened(Tracked {
                state: State::SynReceived,
                marks: Marks(Marks::LOCAL_SEEN | Marks::REMOTE_SEEN),
                local: said,
                remote: Half {
                    next: said.ack,
                    ack: 0,
                },
            }),
        },
        Kind::Ack | Kind::Fin => {
            let is_fin = matches!(seen.kind, Kind::Fin);
            match row.state {
                // The answer to a segment outside of the window, while the handshake goes on
                // (tcp_check_req).
                State::SynReceived if seen.length == 0 => return Step::Ignored,
                // Only a connection acknowledges: its handshake was missed.
                State::Listen | State::SynSent | State::SynReceived => {
                    row.state = State::Established;
                }
                _ => {}
            }
            row.local = if is_local_known {
                row.local.after(end, said.ack)
            } else {
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
    let sent = row.marks.has(Marks::LOCAL_FIN);
    let acknowledged = sent && row.marks.has(both) && !is_after(row.local.next, row.remote.ack);
    let received =
        row.marks.has(both | Marks::REMOTE_FIN) && !is_after(row.remote.next, row.local.ack);
    row.state = match row.state {
        State::Established if sent && received => State::LastAck,
        State::Established if sent && acknowledged => State::FinWait2,
        State::Established if sent => State::FinWait1,
        State::Established if received => State::CloseWait,
        State::CloseWait if sent => State::LastAck,
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
