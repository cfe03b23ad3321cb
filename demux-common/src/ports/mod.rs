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

/// How an algorithm is chosen where several are known.
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

/// Why ports are never handed out. For each protocol and each of these there is a set; its first
/// word stands at [`Barred::offset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// Reserved by the settings, or bound in demux.
    Reserved = 0,
    /// Held by a socket of the kernel when they were last looked at.
    Held = 1,
}

impl Barred {
    /// Words of all sets together.
    pub const WORDS: usize = 4 * SET_WORDS;

    /// The index of the first word of a set.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self, protocol: crate::protocol::Protocol) -> u32 {
        ((protocol as u32) << 1 | self as u32) * SET_WORDS as u32
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
