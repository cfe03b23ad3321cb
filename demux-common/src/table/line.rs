//! What stands in a line of the table, and its words.

use core::mem::offset_of;

use crate::{
    address::Address,
    connection::{Direction, State},
    protocol::Protocol,
    tcp::Half,
};

/// Who has a line.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u8)]
pub enum Occupancy {
    /// Nobody.
    Empty = 0,
    /// A writer.
    Busy = 1,
    /// A connection.
    Live = 2,
}

/// Packets and bytes of one direction, as far as they fit, and the generation of the line.
/// What does not fit is in the [`Cold`] line.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Tally {
    /// The low 32 bits of the number of bytes.
    pub bytes: u32,
    /// The low 24 bits of the number of packets, and above them the low 8 bits of the generation.
    pub packets_and_generation: u32,
}

impl Tally {
    /// Where the packets begin in the word.
    pub(crate) const PACKETS: u32 = 32;
    /// Where the generation begins in the word.
    pub(crate) const GENERATION: u32 = 56;
    /// The bits of the number of packets, at their place in the word.
    pub(crate) const PACKETS_MASK: u64 = 0x00ff_ffff << Self::PACKETS;

    /// The word of a new line.
    #[inline(always)]
    #[must_use]
    pub const fn word(generation: u16, packets: u32, bytes: u32) -> u64 {
        (generation as u64) << Self::GENERATION
            | ((packets as u64) << Self::PACKETS) & Self::PACKETS_MASK
            | bytes as u64
    }

    /// The packets that the tally itself counts.
    #[must_use]
    pub const fn packets(self) -> u32 {
        self.packets_and_generation & 0x00ff_ffff
    }

    /// The low 8 bits of the line's generation.
    #[must_use]
    pub const fn generation(self) -> u8 {
        (self.packets_and_generation >> 24) as u8
    }
}

/// The hot part of a connection: what every packet reads or writes.
///
/// Whoever takes the line changes the head first, then the tallies, then the rest. The head is the
/// first word and the tallies are the last, so that a copy, which is made from the first word to the
/// last, shows by them whether it is of one connection.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C, align(64))]
pub struct Line {
    /// Who has the line. Of the connection that stands here, as all but `hops` and `version`.
    pub occupancy: Occupancy,
    /// The state.
    pub state: State,
    /// [`Flags`].
    pub flags: u8,
    /// How far this line is from the connection's home.
    pub hop: u8,
    /// Moves on whenever the line is taken.
    pub generation: u16,
    /// Index of the binding that owns the connection; 0 for none.
    pub binding: u16,
    /// The other host's IPv4 address; with `local_address` 64 bits of a keyed hash for IPv6, whose
    /// addresses are in the [`Cold`] line. In the order of a header that arrives.
    pub remote_address: [u8; 4],
    /// This host's IPv4 address.
    pub local_address: [u8; 4],
    /// This host's port.
    pub local_port: u16,
    /// The other host's port.
    pub remote_port: u16,
    /// When a packet last proved the connection alive, in units of [`crate::clock`].
    pub last_seen: u32,
    /// What the remote has said.
    pub remote: Half,
    /// What this host has said.
    pub local: Half,
    /// The configuration epoch for which `binding` was looked up.
    pub epoch: u32,
    /// Of the home that this line is: bit *i* is set where the line *i* further on holds a
    /// connection of this home.
    pub hops: u16,
    /// Moves on whenever a bit is set in `hops`.
    pub version: u16,
    /// What arrived.
    pub rx: Tally,
    /// What left.
    pub tx: Tally,
}

const _: () = assert!(size_of::<Line>() == 64);

impl Line {
    pub(crate) const HOPS: usize = offset_of!(Self, hops);
    pub(crate) const EPOCH: usize = offset_of!(Self, epoch);
    pub(crate) const HEAD: usize = offset_of!(Self, occupancy);
    pub(crate) const ADDRESSES: usize = offset_of!(Self, remote_address);
    pub(crate) const PORTS: usize = offset_of!(Self, local_port);
    pub(crate) const LAST_SEEN: usize = offset_of!(Self, last_seen);
    /// The offset of [`Line::rx`].
    pub const RX: usize = offset_of!(Self, rx);
    /// The offset of [`Line::tx`].
    pub const TX: usize = offset_of!(Self, tx);
    /// The offset of [`Line::remote`].
    pub const REMOTE: usize = offset_of!(Self, remote);
    /// The offset of [`Line::local`].
    pub const LOCAL: usize = offset_of!(Self, local);

    /// The word of the head.
    #[must_use]
    pub fn head(&self) -> Head {
        Head(u64::from_le_bytes([
            self.occupancy as u8,
            self.state as u8,
            self.flags,
            self.hop,
            self.generation.to_le_bytes()[0],
            self.generation.to_le_bytes()[1],
            self.binding.to_le_bytes()[0],
            self.binding.to_le_bytes()[1],
        ]))
    }

    /// Whether the line, copied word by word from the first to the last, belonged to one connection
    /// meanwhile: else the tallies are of another generation than the head.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let generation = self.generation as u8;
        self.rx.generation() == generation && self.tx.generation() == generation
    }
}

/// What is seldom touched: of every connection when it was made and what its [`Tally`]s could not
/// hold, of an IPv6 connection its addresses. It belongs to the line of the same index while its
/// generations are those of the line.
///
/// A copy is made from the first word to the last, after the line was copied. So the generation that
/// is written first is the last word, and the one that is written last is the first word.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C, align(64))]
pub struct Cold {
    /// The generation of the line, written after the rest.
    pub generation: u32,
    /// When the connection was made, in units of [`crate::clock`].
    pub created: u32,
    /// This host's IPv6 address.
    pub local_address: [u8; 16],
    /// The other host's IPv6 address.
    pub remote_address: [u8; 16],
    /// Arrived packets in units of 2^24.
    pub rx_packets: u32,
    /// Arrived bytes in units of 2^32.
    pub rx_bytes: u32,
    /// Packets that left, in units of 2^24.
    pub tx_packets: u32,
    /// Bytes that left, in units of 2^32.
    pub tx_bytes: u32,
    /// Zero.
    pub reserved: u32,
    /// The generation of the line, written before the rest.
    pub begun: u32,
}

const _: () = assert!(size_of::<Cold>() == 64 && offset_of!(Cold, created) == 4);

impl Cold {
    /// With [`Cold::created`] one word.
    pub(crate) const GENERATION: usize = offset_of!(Self, generation);
    pub(crate) const LOCAL: usize = offset_of!(Self, local_address);
    pub(crate) const REMOTE: usize = offset_of!(Self, remote_address);
    pub(crate) const RX: usize = offset_of!(Self, rx_packets);
    pub(crate) const TX: usize = offset_of!(Self, tx_packets);
    pub(crate) const BEGUN: usize = offset_of!(Self, begun);

    /// Whether this belongs to a line of that generation, and was copied whole.
    #[must_use]
    pub fn belongs_to(&self, generation: u16) -> bool {
        self.generation == stamp(generation) && self.begun == stamp(generation)
    }
}

/// How a cold line names a generation: never 0, which is a line that was never written.
#[inline(always)]
pub(crate) const fn stamp(generation: u16) -> u32 {
    generation as u32 | 1 << 16
}

/// Bits of [`Line::flags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// What a TCP connection knows of its two sides: see [`crate::tcp::Marks`], whose bits these are.
    /// For UDP see [`crate::udp`].
    pub const MARKS: u8 = 0x0f;
    /// UDP; else TCP.
    pub const UDP: u8 = 0x10;
    /// IPv6; else IPv4.
    pub const IPV6: u8 = 0x20;
    /// This host opened it; else the remote did.
    pub const OUT: u8 = 0x40;
    /// This host has consented to it.
    pub const CONFIRMED: u8 = 0x80;

    /// Whether any of the bits is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    /// The protocol.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        if self.has(Self::UDP) {
            Protocol::Udp
        } else {
            Protocol::Tcp
        }
    }

    /// Who opened the connection.
    #[must_use]
    pub const fn direction(self) -> Direction {
        if self.has(Self::OUT) {
            Direction::Out
        } else {
            Direction::In
        }
    }
}

/// The word that says what a line is: occupancy, state, flags, hop, generation, binding, each where
/// [`Line`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head(pub u64);

impl Head {
    /// The bits that a lookup compares: who has the line, and for which protocol and family.
    pub(crate) const KIND: u64 = 0xff | ((Flags::UDP | Flags::IPV6) as u64) << 16;

    /// A head.
    #[inline(always)]
    #[must_use]
    pub const fn new(occupancy: Occupancy, generation: u16) -> Self {
        Self(occupancy as u64 | (generation as u64) << 32)
    }

    /// What a lookup expects of a live line.
    #[inline(always)]
    pub(crate) const fn live(protocol: Protocol, is_v6: bool) -> u64 {
        let udp = match protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => Flags::UDP as u64,
        };
        let v6 = if is_v6 { Flags::IPV6 as u64 } else { 0 };
        Occupancy::Live as u64 | (udp | v6) << 16
    }

    /// Whether it has such an occupant.
    #[inline(always)]
    #[must_use]
    pub const fn is(self, occupancy: Occupancy) -> bool {
        self.0 as u8 == occupancy as u8
    }

    /// The state.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        State::from_number((self.0 >> 8) as u8)
    }

    /// The flags.
    #[inline(always)]
    #[must_use]
    pub const fn flags(self) -> Flags {
        Flags((self.0 >> 16) as u8)
    }

    /// How far the line is from the home of its connection.
    #[inline(always)]
    #[must_use]
    pub const fn hop(self) -> u32 {
        (self.0 >> 24) as u32 & (super::WINDOW - 1)
    }

    /// The generation of the line.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The index of the binding; 0 for none.
    #[inline(always)]
    #[must_use]
    pub const fn binding(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The same with another occupancy.
    #[inline(always)]
    #[must_use]
    pub const fn with_occupancy(self, occupancy: Occupancy) -> Self {
        Self(self.0 & !0xff | occupancy as u64)
    }

    /// The same with another state.
    #[inline(always)]
    #[must_use]
    pub const fn with_state(self, state: State) -> Self {
        Self(self.0 & !0xff00 | (state as u64) << 8)
    }

    /// The same with other flags.
    #[inline(always)]
    #[must_use]
    pub const fn with_flags(self, flags: Flags) -> Self {
        Self(self.0 & !(0xff << 16) | (flags.0 as u64) << 16)
    }

    /// The same at another distance from the home.
    #[inline(always)]
    #[must_use]
    pub const fn with_hop(self, hop: u32) -> Self {
        Self(self.0 & !(0xff << 24) | (hop as u64 & (super::WINDOW as u64 - 1)) << 24)
    }

    /// The same with another binding.
    #[inline(always)]
    #[must_use]
    pub const fn with_binding(self, binding: u16) -> Self {
        Self(self.0 & !(0xffff << 48) | (binding as u64) << 48)
    }

    /// Whether the connection is one that this host has consented to.
    #[inline(always)]
    #[must_use]
    pub const fn is_confirmed(self) -> bool {
        self.flags().has(Flags::CONFIRMED)
    }
}

/// An IPv4 pair of addresses as [`Line::remote_address`] and what follows it.
#[inline(always)]
pub(crate) const fn v4_pair(local: &Address, remote: &Address) -> u64 {
    u32::from_le_bytes(remote.v4()) as u64 | (u32::from_le_bytes(local.v4()) as u64) << 32
}
