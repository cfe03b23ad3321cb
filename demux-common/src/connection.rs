//! Four-tuples, the states of connections, and the rows of the connection table as they are read.

use crate::{
    address::Address,
    protocol::Protocol,
    table::{Cold, Flags, Line, Occupancy},
    tcp::Half,
};

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

            /// More than the highest number; a power of two.
            pub const SLOTS: usize = TIMEOUT_SLOTS;

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
    5 CloseWait close_wait "CLOSE-WAIT" 8000 "The remote has finished; this host may still send."
    6 Closing closing "CLOSING" 60 "Both have finished; this host's FIN is not acknowledged."
    7 LastAck last_ack "LAST-ACK" 60 "The remote finished first; this host's FIN is not acknowledged."
    8 TimeWait time_wait "TIME-WAIT" 60 "Both have finished; late segments are waited out."
    9 Unreplied unreplied "UNREPLIED" 30 "UDP: one side has sent."
    10 Replied replied "REPLIED" 30 "UDP: both sides have sent."
    11 Assured assured "ASSURED" 120 "UDP: the remote has sent again after an answer."
    12 Listen listen "LISTEN" 60 "A SYN came in, and this host has not answered it."
    13 Reserved reserved_row "RESERVED" 60 "No packet yet: the local port was allocated for the connection to come."
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

/// A row of the connection table, put together from its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Packets that arrived.
    pub rx_packets: u64,
    /// Bytes of the frames that arrived.
    pub rx_bytes: u64,
    /// Packets that left: segments, where the kernel hands over several in one.
    pub tx_packets: u64,
    /// Bytes of the frames that left.
    pub tx_bytes: u64,
    /// When the row was made, in units of [`crate::clock`].
    pub created: u32,
    /// When a packet last proved the connection alive, in units of [`crate::clock`].
    pub last_seen: u32,
    /// What the remote has said; zero for UDP.
    pub remote: Half,
    /// What this host has said; zero for UDP.
    pub local: Half,
    /// The configuration epoch for which `binding` was looked up.
    pub epoch: u32,
    /// Index of the binding that owns the row; 0 for none.
    pub binding: u16,
    /// The state.
    pub state: State,
    /// Who opened it, whether it is confirmed, and what was seen of it.
    pub flags: Flags,
}

impl Connection {
    /// The row that two lines are, and its four-tuple; `None` where the first is not of a
    /// connection, or was copied while it changed hands.
    ///
    /// Whether the line is reached from its home is not asked here.
    #[must_use]
    pub fn read(line: &Line, cold: &Cold) -> Option<(ConnectionKey, Self)> {
        let flags = Flags(line.flags);
        if line.occupancy != Occupancy::Live || !line.is_whole() {
            return None;
        }
        let is_v6 = flags.has(Flags::IPV6);
        let has_cold = cold.belongs_to(line.generation);
        if is_v6 && !has_cold {
            return None;
        }
        let (local_address, remote_address) = if is_v6 {
            (
                Address::from_v6(cold.local_address),
                Address::from_v6(cold.remote_address),
            )
        } else {
            (
                Address::from_v4(line.local_address),
                Address::from_v4(line.remote_address),
            )
        };
        let high = |part: u32, bits: u32| {
            if has_cold { u64::from(part) << bits } else { 0 }
        };
        let key = ConnectionKey {
            local_address,
            remote_address,
            local_port: line.local_port,
            remote_port: line.remote_port,
            protocol: flags.protocol(),
        };
        let connection = Self {
            rx_packets: high(cold.rx_packets, 24) + u64::from(line.rx.packets()),
            rx_bytes: high(cold.rx_bytes, 32) + u64::from(line.rx.bytes),
            tx_packets: high(cold.tx_packets, 24) + u64::from(line.tx.packets()),
            tx_bytes: high(cold.tx_bytes, 32) + u64::from(line.tx.bytes),
            created: if has_cold {
                cold.created
            } else {
                line.last_seen
            },
            last_seen: line.last_seen,
            remote: line.remote,
            local: line.local,
            epoch: line.epoch,
            binding: line.binding,
            state: line.state,
            flags,
        };
        Some((key, connection))
    }

    /// How long ago a packet proved it alive, in units of [`crate::clock`].
    #[must_use]
    pub const fn idle(&self, now: u32) -> u32 {
        since(self.last_seen, now)
    }

    /// Whether the row is absent at `now`, swept or not.
    #[must_use]
    pub fn is_expired(&self, lifetimes: &[u32; State::SLOTS], now: u32) -> bool {
        self.idle(now) >= lifetimes[self.state as usize]
    }

    /// Whether this host has consented to the connection.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        self.flags.has(Flags::CONFIRMED)
    }
}

/// From one moment to a later one of a clock that wraps; rows are touched while they are looked at,
/// so the later moment may seem to come first, and then nothing has passed.
#[inline(always)]
#[must_use]
pub const fn since(moment: u32, now: u32) -> u32 {
    let passed = now.wrapping_sub(moment);
    if (passed as i32) < 0 { 0 } else { passed }
}

/// Whether a moment of a clock in nanoseconds, which may wrap, has come.
#[inline(always)]
#[must_use]
pub const fn is_past(moment: u64, now: u64) -> bool {
    moment.wrapping_sub(now) as i64 <= 0
}
