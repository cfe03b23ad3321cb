//! The connection table's keys and rows, and when a row expires.

use crate::{address::Address, protocol::Protocol};

/// A four-tuple: one conversation, whichever way a packet travels.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C, align(8))]
pub struct ConnectionKey {
    /// This host's address.
    pub local_address: Address,
    /// The other host's address.
    pub remote_address: Address,
    /// This host's port.
    pub local_port: u16,
    /// The other host's port.
    pub remote_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

const _: () = assert!(size_of::<ConnectionKey>() == 40);

/// How many states [`Timeouts`] has room for.
const TIMEOUT_SLOTS: usize = 16;

macro_rules! states {
    ($($number:literal $variant:ident $field:ident $name:literal $seconds:literal $doc:literal)*) => {
        /// The state of a connection, seen from this host.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[derive(zerocopy::TryFromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)]
        #[repr(u8)]
        pub enum State {
            $(#[doc = $doc] $variant = $number,)*
        }

        impl State {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The state with a number; no state has another number than those listed, and the
            /// fallback keeps a reader of shared memory within bounds.
            #[inline(always)]
            #[must_use]
            pub const fn from_number(number: u8) -> Self {
                match number & (TIMEOUT_SLOTS as u8 - 1) { $($number => Self::$variant,)* _ => Self::Established }
            }

            /// The name that users read: for TCP that of RFC 9293.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        /// Seconds without a packet after which a row of each state is absent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)]
        #[repr(C)]
        pub struct Timeouts {
            $(#[doc = $doc] pub $field: u32,)*
            /// Zero. Fills the structure up to a power of two, as far as the compiler's index for
            /// a state can reach in the verifier's eyes.
            pub reserved: [u32; TIMEOUT_SLOTS - State::ALL.len()],
        }

        impl Default for Timeouts {
            fn default() -> Self {
                Self { $($field: $seconds,)* reserved: [0; TIMEOUT_SLOTS - State::ALL.len()] }
            }
        }

        impl Timeouts {
            /// The timeout of a state, in seconds.
            #[inline(always)]
            #[must_use]
            pub const fn of(&self, state: State) -> u32 {
                match state { $(State::$variant => self.$field,)* }
            }

            /// The timeout of a state, to be set.
            pub const fn of_mut(&mut self, state: State) -> &mut u32 {
                match state { $(State::$variant => &mut self.$field,)* }
            }
        }
    };
}

states! {
    0 SynSent syn_sent "SYN-SENT" 60 "A SYN was sent, and nothing came back yet."
    1 SynReceived syn_received "SYN-RECEIVED" 60 "A SYN came in; the handshake is not finished."
    2 Established established "ESTABLISHED" 8000 "Both sides may send."
    3 FinWait1 fin_wait_1 "FIN-WAIT-1" 8000 "This host has finished; its FIN is not acknowledged."
    4 FinWait2 fin_wait_2 "FIN-WAIT-2" 60 "This host has finished; the remote may still send."
    5 CloseWait close_wait "CLOSE-WAIT" 60 "The remote has finished; this host may still send."
    6 Closing closing "CLOSING" 60 "Both have finished; this host's FIN is not acknowledged."
    7 LastAck last_ack "LAST-ACK" 60 "The remote finished first; this host's FIN is not acknowledged."
    8 TimeWait time_wait "TIME-WAIT" 60 "Both have finished; late segments are waited out."
    9 Unreplied unreplied "UNREPLIED" 30 "UDP: one side has sent."
    10 Replied replied "REPLIED" 30 "UDP: both sides have sent."
    11 Assured assured "ASSURED" 120 "UDP: the remote has sent again after an answer."
    12 Listen listen "LISTEN" 60 "A SYN came in, and this host has not answered it."
}

/// Which side opened the connection.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u8)]
pub enum Direction {
    /// The remote.
    In = 0,
    /// This host.
    Out = 1,
}

impl Direction {
    /// The name that users read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// A row of the connection table.
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
#[repr(C)]
pub struct Connection {
    /// Packets that arrived.
    pub rx_packets: u64,
    /// Bytes of the frames that arrived.
    pub rx_bytes: u64,
    /// Packets that left; 0 while only ingress is seen.
    pub tx_packets: u64,
    /// Bytes of the frames that left; 0 while only ingress is seen.
    pub tx_bytes: u64,
    /// When the row was made: nanoseconds of the coarse monotonic clock.
    pub created: u64,
    /// When a packet last proved the connection alive: nanoseconds of the coarse monotonic clock.
    pub last_seen: u64,
    /// The sequence number that the remote sends next; 0 for UDP.
    pub remote_next: u32,
    /// The configuration epoch for which `binding` was looked up.
    pub epoch: u32,
    /// Index of the binding that owns the row; 0 for none.
    pub binding: u16,
    /// The state.
    pub state: State,
    /// Which side opened it.
    pub direction: Direction,
    /// [`Connection::CONFIRMED`].
    pub flags: u32,
}

const _: () = assert!(size_of::<Connection>() == 64);

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

impl Connection {
    /// In `flags`: the handshake was seen to complete, or the kernel holds a connected socket.
    pub const CONFIRMED: u32 = 1;

    /// When the row expires, in nanoseconds of the coarse monotonic clock (which may wrap).
    #[must_use]
    pub fn expires(&self, timeouts: &Timeouts) -> u64 {
        timeouts.expiry(self.state, self.last_seen)
    }

    /// Whether the row is absent at `now`, swept or not.
    #[must_use]
    pub fn is_expired(&self, timeouts: &Timeouts, now: u64) -> bool {
        is_past(self.expires(timeouts), now)
    }
}

impl Timeouts {
    /// When a row in `state`, last seen at `last_seen`, expires.
    #[inline(always)]
    #[must_use]
    pub const fn expiry(&self, state: State, last_seen: u64) -> u64 {
        last_seen.wrapping_add(self.of(state) as u64 * NANOSECONDS_PER_SECOND)
    }
}

/// Whether a moment of a clock that may wrap has come.
#[inline(always)]
#[must_use]
pub const fn is_past(moment: u64, now: u64) -> bool {
    moment.wrapping_sub(now) as i64 <= 0
}
