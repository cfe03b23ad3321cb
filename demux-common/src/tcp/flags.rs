//! The control bits of a segment, and what their combination asks for.

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

/// Whether a segment carries data or an acknowledgement and nothing else that matters.
#[inline(always)]
#[must_use]
pub const fn is_plain(flags: Flags) -> bool {
    flags.0 & (Flags::FIN | Flags::SYN | Flags::RST | Flags::ACK) == Flags::ACK
}
