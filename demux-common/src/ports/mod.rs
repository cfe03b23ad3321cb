//! Source ports for new outgoing connections: which one comes next (RFC 6056), and whether it is free.
//!
//! A port is free for a connection where nothing holds its four-tuple: one port serves many remote
//! endpoints. Who decides is the connection table: the four-tuple is claimed there as a row in state
//! RESERVED, and of two who claim the same one gets it.
//!
//! Two kinds of sets of ports stand beside the table, 65,536 bits each in 1024 words:
//!
//! - *Barred* ports are never handed out ([`Barred`]).
//! - *Hints*, one set for each of [`HINT_SETS`] groups of destinations, say which ports were found in
//!   use towards a destination of the group. They spare the search most of its looks into the table,
//!   and may be wrong: a clear bit is checked by the claim, a set one when nothing else is left.

mod keyed;
mod search;
mod tables;

pub use self::{
    keyed::siphash,
    search::{
        Destination, NO_PORT, allocate, claim, draw, forget, keep, next_free, next_free_in_span,
        open, release, take, verify_from, verify_span, verify_word, with_unused,
    },
    tables::{Counter, PortTables},
};
use crate::{connection::ConnectionKey, protocol::Protocol};

/// Which port comes next.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u8)]
pub enum Algorithm {
    /// The historical one: the lowest free port above 1024.
    Sequential = 0,
    /// RFC 6056, algorithm 2: random, and again where the port is taken.
    Random = 1,
    /// RFC 6056, algorithm 3: a counter behind an offset that is a secret of the destination.
    Hash = 2,
    /// RFC 6056, algorithm 4: as the third, with a counter for each of many groups of destinations.
    #[default]
    DoubleHash = 3,
    /// RFC 6056, algorithm 5: on by random steps.
    RandomIncrements = 4,
}

/// The first port that the historical algorithm hands out, and the last.
pub const SEQUENTIAL: (u16, u16) = (1025, u16::MAX);

/// The longest step of [`Algorithm::RandomIncrements`]: N of RFC 6056.
pub const LONGEST_STEP: u32 = 500;

/// How many random ports are tried before the search goes on from the last one.
pub const RANDOM_TRIES: u32 = 16;

impl Algorithm {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Sequential,
        Self::Random,
        Self::Hash,
        Self::DoubleHash,
        Self::RandomIncrements,
    ];

    /// The name that users write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Random => "random",
            Self::Hash => "hash",
            Self::DoubleHash => "double-hash",
            Self::RandomIncrements => "random-increments",
        }
    }

    /// The algorithm with a number; the default where there is none.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Sequential),
            1 => Some(Self::Random),
            2 => Some(Self::Hash),
            3 => Some(Self::DoubleHash),
            4 => Some(Self::RandomIncrements),
            _ => None,
        }
    }
}

/// The settings of the allocator, and the counters of its algorithms.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Ephemeral {
    /// The first port of the range.
    pub first_port: u16,
    /// The last port of the range.
    pub last_port: u16,
    /// The algorithm where a request names none.
    pub algorithm: Algorithm,
    /// 1 where the range was set, and is not the kernel's `ip_local_port_range`.
    pub is_range_set: u8,
    /// 1 where the reserved ports were set, and are not the kernel's `ip_local_reserved_ports`.
    pub is_reserved_set: u8,
    /// Zero.
    pub reserved: u8,
    /// The counter of [`Algorithm::Hash`].
    pub next: u32,
    /// Where [`Algorithm::RandomIncrements`] stands.
    pub position: u32,
    /// How many random numbers were drawn.
    pub draws: u64,
}

const _: () = assert!(size_of::<Ephemeral>() == 24);

/// How many counters [`Algorithm::DoubleHash`] has; a power of two.
pub const PERTURBATIONS: usize = 4096;

/// Words of a set of ports.
pub const SET_WORDS: usize = 1024;

/// How many sets of hints there are; a power of two.
pub const HINT_SETS: usize = 64;

/// Words of all sets of hints, and behind them one for each set: when it was last verified, in units
/// of [`crate::clock`] from 1 on.
pub const HINT_WORDS: usize = HINT_SETS * SET_WORDS + HINT_SETS;

/// Why ports are never handed out. For each protocol and each of these there is a set; its first
/// word stands at [`Barred::offset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// Reserved by the settings.
    Reserved = 0,
    /// Bound in demux.
    Bound = 1,
    /// Held by a socket of the kernel when they were last looked at.
    Held = 2,
}

impl Barred {
    /// Words of all sets together.
    pub const WORDS: usize = 8 * SET_WORDS;

    /// The index of the first word of a set.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self, protocol: Protocol) -> u32 {
        ((protocol as u32) << 2 | self as u32) * SET_WORDS as u32
    }
}

/// A control group whose outgoing connections take their source ports from here.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct ExecCgroup {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Zero.
    pub reserved: [u8; 7],
}

/// A port to be reserved.
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
// On the stack of a BPF program everything must be aligned.
#[repr(C, align(8))]
pub struct Request {
    /// The connection to come. Its local port is 0, or the only one that will do.
    pub key: ConnectionKey,
    /// The number of the [`Algorithm`]; any other number stands for that of the settings.
    pub algorithm: u32,
    /// How long the port stays reserved without a packet, in units of [`crate::clock`].
    pub lifetime: u32,
    /// Index of the binding that is to own the connection; 0 for none.
    pub binding: u32,
    /// [`Request::SKIP_HELD`], or 0.
    pub flags: u32,
}

impl Request {
    /// In `algorithm`: that of the settings.
    pub const DEFAULT_ALGORITHM: u32 = u32::MAX;

    /// In `flags`: whoever asks finds out by himself whether a socket of the kernel holds the port.
    pub const SKIP_HELD: u32 = 1;

    /// For a connection, with nothing else said.
    #[must_use]
    pub const fn of(key: ConnectionKey) -> Self {
        Self {
            key,
            algorithm: Self::DEFAULT_ALGORITHM,
            lifetime: 0,
            binding: 0,
            flags: 0,
        }
    }
}

/// What becomes of a request, as one number: a port, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The port is reserved for the connection.
    Port(u16),
    /// Every port of the range is in use towards the destination, or barred.
    Exhausted,
    /// The port that was asked for is in use towards the destination.
    Taken,
    /// The connection table has no room.
    Full,
    /// There are no settings: nobody has made the instance.
    None,
}

impl Answer {
    const EXHAUSTED: u64 = 1 << 16;
    const TAKEN: u64 = 1 << 17;
    const FULL: u64 = 1 << 18;

    /// As functions of BPF programs hand it on.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        match self {
            Self::Port(port) => port as u64,
            Self::Exhausted => Self::EXHAUSTED,
            Self::Taken => Self::TAKEN,
            Self::Full => Self::FULL,
            Self::None => 0,
        }
    }

    /// What [`Answer::pack`] has packed.
    #[inline(always)]
    #[must_use]
    pub const fn unpack(packed: u64) -> Self {
        match packed {
            Self::EXHAUSTED => Self::Exhausted,
            Self::TAKEN => Self::Taken,
            Self::FULL => Self::Full,
            port @ 1..=0xffff => Self::Port(port as u16),
            _ => Self::None,
        }
    }
}
