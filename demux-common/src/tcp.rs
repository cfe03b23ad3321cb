//! What arriving TCP segments show of a connection (RFC 9293).
//!
//! Only the remote side's half of the conversation is seen here, so the states are those that
//! arriving segments can prove: a SYN that nobody refused, an established exchange, a remote that
//! has finished.

use crate::connection::State;

/// The control bits of a TCP header, in the order of the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// No more data from the sender.
    pub const FIN: u32 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u32 = 0x02;
    /// Reset the connection.
    pub const RST: u32 = 0x04;
    /// Push.
    pub const PSH: u32 = 0x08;
    /// The acknowledgement number is valid.
    pub const ACK: u32 = 0x10;
    /// The urgent pointer is valid.
    pub const URG: u32 = 0x20;

    /// Whether any of the given bits is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// Sequence numbers that the control bits themselves take up: one each for SYN and FIN.
    #[inline(always)]
    #[must_use]
    pub const fn sequence_space(self) -> u32 {
        (self.0 & 1) + ((self.0 >> 1) & 1)
    }

    /// What the combination of bits asks for, or `None` where no sane sender would send it
    /// (the table of `tcp_valid_flags` in the kernel's nf_conntrack).
    #[inline(always)]
    #[must_use]
    pub const fn kind(self) -> Option<Kind> {
        const FIN_ACK: u32 = Flags::FIN | Flags::ACK;
        const SYN_ACK: u32 = Flags::SYN | Flags::ACK;
        const RST_ACK: u32 = Flags::RST | Flags::ACK;
        // PSH says nothing about the state, and URG goes with anything but a reset.
        match self.0 & (Self::FIN | Self::SYN | Self::RST | Self::ACK | Self::URG) {
            Self::SYN | 0x22 => Some(Kind::Syn),
            SYN_ACK => Some(Kind::SynAck),
            Self::RST | RST_ACK => Some(Kind::Reset),
            FIN_ACK | 0x31 => Some(Kind::Fin),
            Self::ACK | 0x30 => Some(Kind::Ack),
            _ => None,
        }
    }
}

/// What a segment asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Open a connection.
    Syn,
    /// The answer to our own SYN.
    SynAck,
    /// Data, or an acknowledgement.
    Ack,
    /// The remote has no more to send.
    Fin,
    /// The remote knows nothing of this connection.
    Reset,
}

/// How far beyond the next expected sequence number a reset is still believed:
/// the largest window without scaling. Beyond it, it may be a guess.
const RESET_WINDOW: u32 = 65_535;

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The row goes on, in this state, and expects this sequence number next.
    Goes(State, u32),
    /// A new connection with the same four-tuple has begun.
    Reopened,
    /// The row ends.
    Ends,
    /// The segment proves nothing; the row stays as it is, and is not refreshed.
    Ignored,
}

/// The state and the next expected sequence number of a row made by this segment,
/// or `None` where such a segment makes none.
#[inline(always)]
#[must_use]
pub const fn opens(kind: Kind, sequence: u32, length: u32) -> Option<(State, u32)> {
    let state = match kind {
        Kind::Syn => State::SynReceived,
        Kind::SynAck | Kind::Ack => State::Established,
        Kind::Fin => State::CloseWait,
        Kind::Reset => return None,
    };
    Some((state, sequence.wrapping_add(length)))
}

/// Applies an arriving segment to a row in `state` that expects `next` from the remote.
#[inline(always)]
#[must_use]
pub const fn step(state: State, next: u32, kind: Kind, sequence: u32, length: u32) -> Step {
    let end = sequence.wrapping_add(length);
    // Retransmissions do not move the expectation back.
    let next_after = if is_after(end, next) { end } else { next };
    match kind {
        Kind::Reset => {
            if sequence.wrapping_sub(next) <= RESET_WINDOW {
                Step::Ends
            } else {
                Step::Ignored
            }
        }
        Kind::Syn => match state {
            State::SynReceived if end == next => Step::Goes(State::SynReceived, next),
            // The owner answers with a challenge ACK (RFC 5961, section 4): nothing is proved.
            State::Established => Step::Ignored,
            _ if is_after(end, next) => Step::Reopened,
            _ => Step::Ignored,
        },
        Kind::SynAck => Step::Goes(state, next_after),
        Kind::Ack => match state {
            State::SynReceived => Step::Goes(State::Established, next_after),
            _ => Step::Goes(state, next_after),
        },
        Kind::Fin => Step::Goes(State::CloseWait, next_after),
    }
}

/// Whether sequence number `a` comes after `b` (modulo 2^32, RFC 9293 section 3.4).
#[inline(always)]
const fn is_after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}
