//! The states of the kernel's sockets, and sets of them.

use demux_common::connection::State;

/// The state of a socket, numbered as in the kernel (`net/tcp_states.h`).
///
/// UDP sockets are only ever [`Established`](Self::Established), which is connected, and
/// [`Unconnected`](Self::Unconnected).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SocketState {
    /// Both sides may send; for UDP: connect(2) has named the remote.
    Established = 1,
    /// A SYN was sent, and nothing came back yet.
    SynSent = 2,
    /// A SYN came in; the handshake is not finished. With TCP_DEFER_ACCEPT it may be, as far as the
    /// remote can see.
    SynReceived = 3,
    /// This host has finished; its FIN is not acknowledged.
    FinWait1 = 4,
    /// This host has finished; the remote may still send. The kernel keeps those that no process holds
    /// among its TIME-WAIT sockets, but reports them as what they are.
    FinWait2 = 5,
    /// Both have finished; late segments are waited out.
    TimeWait = 6,
    /// UDP: datagrams of any remote are taken.
    Unconnected = 7,
    /// The remote has finished; this host may still send.
    CloseWait = 8,
    /// The remote finished first; this host's FIN is not acknowledged.
    LastAck = 9,
    /// Connections are awaited.
    Listen = 10,
    /// Both have finished; this host's FIN is not acknowledged.
    Closing = 11,
    /// TCP: the socket has a local endpoint and neither listens nor connects. Listed since Linux 6.8.
    Bound = 13,
}

/// What the kernel calls the half of SYN-RECEIVED that is not a socket yet. Wanted by this number, it is
/// reported as number 3.
const NEW_SYN_RECV: u32 = 12;

impl SocketState {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Established,
        Self::SynSent,
        Self::SynReceived,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Unconnected,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
        Self::Bound,
    ];

    /// The name that users read: that of RFC 9293 where it has one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::TimeWait => "TIME-WAIT",
            Self::Unconnected => "UNCONNECTED",
            Self::CloseWait => "CLOSE-WAIT",
            Self::LastAck => "LAST-ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::Bound => "BOUND",
        }
    }

    /// Whether a socket in this state has a remote endpoint.
    #[must_use]
    pub const fn is_connected(self) -> bool {
        !matches!(self, Self::Unconnected | Self::Listen | Self::Bound)
    }

    /// The state that the connection of a TCP socket is in, if it has one.
    #[must_use]
    pub const fn connection_state(self) -> Option<State> {
        Some(match self {
            Self::Established => State::Established,
            Self::SynSent => State::SynSent,
            Self::SynReceived => State::SynReceived,
            Self::FinWait1 => State::FinWait1,
            Self::FinWait2 => State::FinWait2,
            Self::TimeWait => State::TimeWait,
            Self::CloseWait => State::CloseWait,
            Self::LastAck => State::LastAck,
            Self::Closing => State::Closing,
            Self::Unconnected | Self::Listen | Self::Bound => return None,
        })
    }

    /// The state with this number.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        if u32::from(number) == NEW_SYN_RECV {
            return Some(Self::SynReceived);
        }
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }
}

/// A set of states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct States(u32);

impl States {
    /// Every state.
    pub const ALL: Self = Self::of(&SocketState::ALL);

    /// Those of sockets that have a remote endpoint.
    pub const CONNECTED: Self = Self(Self::ALL.0 & !Self::UNCONNECTED.0);

    /// Those of sockets that have only a local endpoint.
    pub const UNCONNECTED: Self = Self::of(&[
        SocketState::Listen,
        SocketState::Unconnected,
        SocketState::Bound,
    ]);

    /// The set of these states.
    #[must_use]
    pub const fn of(states: &[SocketState]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < states.len() {
            bits |= 1 << states[index] as u32;
            index += 1;
        }
        Self(bits)
    }

    /// Whether a state is one of the set.
    #[must_use]
    pub const fn contains(self, state: SocketState) -> bool {
        self.0 & 1 << state as u32 != 0
    }

    /// The set as the kernel wants to be asked for it.
    pub(super) const fn request(self) -> u32 {
        if self.contains(SocketState::SynReceived) {
            self.0 | 1 << NEW_SYN_RECV
        } else {
            self.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_the_kernel_is_a_state() {
        for number in 1..=13 {
            assert!(SocketState::from_number(number).is_some(), "{number}");
        }
        for number in [0, 14, u8::MAX] {
            assert_eq!(SocketState::from_number(number), None);
        }
    }

    #[test]
    fn every_state_is_either_connected_or_not() {
        for state in SocketState::ALL {
            assert!(States::ALL.contains(state));
            assert_eq!(States::CONNECTED.contains(state), state.is_connected());
            assert_ne!(
                States::CONNECTED.contains(state),
                States::UNCONNECTED.contains(state)
            );
            assert_eq!(state.connection_state().is_some(), state.is_connected());
            if let Some(connection) = state.connection_state() {
                assert_eq!(connection.name(), state.name());
            }
        }
    }

    #[test]
    fn both_kinds_of_handshakes_are_asked_for() {
        assert_eq!(
            States::of(&[SocketState::SynReceived]).request(),
            1 << 3 | 1 << 12
        );
        assert_eq!(States::of(&[SocketState::Listen]).request(), 1 << 10);
    }
}
