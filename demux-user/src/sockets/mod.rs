//! The kernel's own TCP and UDP sockets of the current network namespace, asked of sock_diag.
//!
//! Reading them needs no capability. Nothing here changes a socket.

mod message;
pub mod owner;
mod state;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use demux_common::{
    address::{ANY_V6, Family},
    connection::{ConnectionKey, State},
    protocol::Protocol,
};

use self::message::{Answer, INET, INET6, Request};
pub use self::state::{SocketState, States};
use crate::{
    Error, Result,
    bindings::pattern::{from_ip, to_ip},
    netlink::Netlink,
};

/// A socket of the kernel, as `struct inet_diag_msg` describes it (`net/ipv4/inet_diag.c`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What the socket was made for. One for IPv6 may also carry IPv4: then its addresses are IPv4's.
    pub family: Family,
    /// The state.
    pub state: SocketState,
    /// This host's side. `[::]` also takes IPv4, unless `v6_only`.
    pub local: SocketAddr,
    /// The other side; unspecified, with port 0, where there is none.
    pub remote: SocketAddr,
    /// The interface that the socket is bound to; 0 for any.
    pub ifindex: u32,
    /// The user who made it. The kernel has forgotten those of SYN-RECEIVED and TIME-WAIT, and says 0.
    pub uid: u32,
    /// The inode of its descriptors, by which [`owner::Owners`] finds processes; 0 where there is none.
    pub inode: u64,
    /// Whether an IPv6 socket leaves IPv4 alone. The kernel tells it of listeners and of unconnected
    /// sockets.
    pub v6_only: Option<bool>,
    /// The number that getsockopt(2) has as SO_COOKIE. It is never used again until the next boot, and a
    /// connection keeps it from SYN-RECEIVED to TIME-WAIT.
    pub cookie: u64,
    /// The timer that runs.
    pub timer: Timer,
    /// How long until it ends.
    pub expires: Duration,
    /// How often a segment, a keep-alive or a probe was sent again.
    pub retransmits: u8,
    /// Bytes that the process has not read; for a listener, connections that it has not accepted.
    pub receive_queue: u32,
    /// Bytes that the remote has not acknowledged; for a listener, the longest that the queue may be.
    pub send_queue: u32,
}

/// What a socket waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Nothing.
    Off,
    /// Sending again what was not acknowledged.
    Retransmit,
    /// Asking whether the remote is alive, or giving up a FIN-WAIT-2 that no process holds.
    KeepAlive,
    /// The end of TIME-WAIT, or of a FIN-WAIT-2 that no process holds.
    TimeWait,
    /// Asking whether a closed window has opened.
    Probe,
    /// One that was invented since.
    Other(u8),
}

impl Socket {
    /// The four-tuple of its connection, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<ConnectionKey> {
        self.state.is_connected().then(|| ConnectionKey {
            local_address: from_ip(self.local.ip()),
            remote_address: from_ip(self.remote.ip()),
            local_port: self.local.port(),
            remote_port: self.remote.port(),
            protocol: self.protocol,
        })
    }

    /// The state of its TCP connection, if it has one.
    #[must_use]
    pub fn tcp_state(&self) -> Option<State> {
        match self.protocol {
            Protocol::Tcp => self.state.connection_state(),
            Protocol::Udp => None,
        }
    }

    /// Whether the process has closed it, and the kernel alone finishes the connection.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        self.inode == 0
            && matches!(
                self.state,
                SocketState::FinWait1
                    | SocketState::FinWait2
                    | SocketState::Closing
                    | SocketState::LastAck
                    | SocketState::TimeWait
            )
    }

    /// Whether it is a connection that waits for its listener's process to accept it.
    #[must_use]
    pub fn is_unaccepted(&self) -> bool {
        self.inode == 0
            && self.protocol == Protocol::Tcp
            && matches!(
                self.state,
                SocketState::Established | SocketState::CloseWait
            )
    }

    fn new(protocol: Protocol, answer: &Answer) -> Result<Self> {
        let message = &answer.message;
        let unexpected = |what: &str, number: u8| {
            let operation = operation(protocol);
            Error::unexpected(operation, format!("the kernel knows a {what} {number}"))
        };
        let family = match message.family {
            INET => Family::Ipv4,
            INET6 => Family::Ipv6,
            other => return Err(unexpected("family", other)),
        };
        let state = match (SocketState::from_number(message.state), protocol) {
            // The number 13 is only for asking.
            (Some(SocketState::Unconnected), Protocol::Tcp) => SocketState::Bound,
            (Some(state), _) => state,
            (None, _) => return Err(unexpected("state", message.state)),
        };
        let local = to_ip(&message.local());
        let remote = match message.remote() {
            // An IPv6 socket that is bound to an IPv4 address.
            ANY_V6 if local.is_ipv4() => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            remote => to_ip(&remote),
        };
        Ok(Self {
            protocol,
            family,
            state,
            local: SocketAddr::new(local, message.id.local_port.get()),
            remote: SocketAddr::new(remote, message.id.remote_port.get()),
            ifindex: message.id.ifindex,
            uid: message.uid,
            inode: message.inode.into(),
            v6_only: answer.v6_only,
            cookie: message.id.cookie(),
            timer: Timer::from_number(message.timer),
            expires: Duration::from_millis(message.expires.into()),
            retransmits: message.retransmits,
            receive_queue: message.receive_queue,
            send_queue: message.send_queue,
        })
    }
}

impl Timer {
    /// The timer that `idiag_timer` stands for.
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Off,
            1 => Self::Retransmit,
            2 => Self::KeepAlive,
            3 => Self::TimeWait,
            4 => Self::Probe,
            other => Self::Other(other),
        }
    }
}

/// Calls `visit` with every socket of a protocol in these states, as they are read, those for IPv4 first;
/// ends at its first error.
///
/// The kernel walks through its tables while they change. A socket that changes meanwhile may be missed,
/// or visited twice, as it was and as it is: the cookie tells.
///
/// # Errors
///
/// [`Error::Unsupported`] on kernels without sock_diag for the protocol (`CONFIG_INET_TCP_DIAG`,
/// `CONFIG_INET_UDP_DIAG`); where netlink fails; and what `visit` returns.
pub fn for_each(
    protocol: Protocol,
    states: States,
    visit: impl FnMut(Socket) -> Result<()>,
) -> Result<()> {
    for_each_at(protocol, states, 0, visit)
}

/// Every socket of a protocol that has this local port, once, whatever its state.
///
/// # Errors
///
/// As [`for_each`].
pub fn at_port(protocol: Protocol, port: u16) -> Result<Vec<Socket>> {
    // No socket has port 0, which asks for all of them.
    if port == 0 {
        return Ok(Vec::new());
    }
    distinct(|visit| for_each_at(protocol, States::ALL, port, visit))
}

fn for_each_at(
    protocol: Protocol,
    states: States,
    port: u16,
    mut visit: impl FnMut(Socket) -> Result<()>,
) -> Result<()> {
    let mut netlink = Netlink::sock_diag().map_err(|source| failed(protocol, source))?;
    for family in [INET, INET6] {
        netlink
            .for_each(
                &Request::new(family, protocol, states).at_port(port),
                |answer: Answer| -> Result<(), Stop> {
                    Socket::new(protocol, &answer)
                        .and_then(&mut visit)
                        .map_err(Stop::Visit)
                },
            )
            .map_err(|stop| match stop {
                Stop::Netlink(source) => failed(protocol, source),
                Stop::Visit(error) => error,
            })?;
    }
    Ok(())
}

/// Every socket of a protocol in these states, once, those for IPv4 first.
///
/// A socket that changed meanwhile is there as it was last seen, or may be missing.
///
/// # Errors
///
/// As [`for_each`].
pub fn all(protocol: Protocol, states: States) -> Result<Vec<Socket>> {
    distinct(|visit| for_each(protocol, states, visit))
}

/// Collects sockets, each as it was seen last.
fn distinct(
    walk: impl FnOnce(&mut dyn FnMut(Socket) -> Result<()>) -> Result<()>,
) -> Result<Vec<Socket>> {
    let mut sockets: Vec<Socket> = Vec::new();
    let mut places: HashMap<u64, usize> = HashMap::new();
    walk(&mut |socket| {
        let place = *places.entry(socket.cookie).or_insert(sockets.len());
        match sockets.get_mut(place) {
            Some(known) => *known = socket,
            None => sockets.push(socket),
        }
        Ok(())
    })?;
    Ok(sockets)
}

/// Why a dump ended early.
enum Stop {
    Netlink(io::Error),
    Visit(Error),
}

impl From<io::Error> for Stop {
    fn from(source: io::Error) -> Self {
        Self::Netlink(source)
    }
}

fn failed(protocol: Protocol, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT) => Error::Unsupported {
            operation: operation(protocol),
            reason: format!("the kernel has no {}_diag", protocol.name()),
        },
        _ => Error::io(operation(protocol), source),
    }
}

fn operation(protocol: Protocol) -> String {
    format!("list the kernel's {} sockets", protocol.name())
}

#[cfg(test)]
mod tests {
    use super::{message::tests::answer, *};

    const V4: [u8; 4] = [10, 0, 0, 2];
    const V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2];

    fn tcp(family: u8, state: u8, ends: [(&[u8], u16); 2]) -> Socket {
        Socket::new(Protocol::Tcp, &answer(family, state, ends)).unwrap()
    }

    #[test]
    fn mapped_addresses_are_those_of_ipv4() {
        let mapped = tcp(INET6, 1, [(&MAPPED, 80), (&MAPPED, 4000)]);
        let plain = tcp(INET, 1, [(&V4, 80), (&V4, 4000)]);
        assert_eq!(mapped.local, "10.0.0.2:80".parse().unwrap());
        assert_eq!(mapped.key(), plain.key());
        assert_eq!((mapped.family, plain.family), (Family::Ipv6, Family::Ipv4));
        let other = tcp(INET6, 1, [(&V6, 80), (&V6, 4000)]);
        assert_eq!(other.remote, "[fd00::2]:4000".parse().unwrap());
    }

    #[test]
    fn both_ends_of_a_socket_are_of_one_version() {
        let remote = |family, local: &[u8]| tcp(family, 10, [(local, 80), (&[], 0)]).remote;
        assert_eq!(remote(INET, &V4), "0.0.0.0:0".parse().unwrap());
        assert_eq!(remote(INET6, &MAPPED), "0.0.0.0:0".parse().unwrap());
        assert_eq!(remote(INET6, &[]), "[::]:0".parse().unwrap());
    }

    #[test]
    fn only_connected_sockets_have_a_key_and_only_those_of_tcp_a_state() {
        let listener = tcp(INET, 10, [(&V4, 80), (&[], 0)]);
        assert_eq!((listener.key(), listener.tcp_state()), (None, None));
        let waiting = tcp(INET, 5, [(&V4, 80), (&V4, 4000)]);
        assert_eq!(waiting.tcp_state(), Some(State::FinWait2));
        let udp = Socket::new(Protocol::Udp, &answer(INET, 1, [(&V4, 53), (&V4, 4000)])).unwrap();
        assert_eq!(udp.key().unwrap().remote_port, 4000);
        assert_eq!(udp.tcp_state(), None);
    }

    #[test]
    fn a_closed_tcp_socket_that_is_listed_is_a_bound_one() {
        let ends: [(&[u8], u16); 2] = [(&V4, 80), (&[], 0)];
        assert_eq!(tcp(INET, 7, ends).state, SocketState::Bound);
        let udp = Socket::new(Protocol::Udp, &answer(INET, 7, ends)).unwrap();
        assert_eq!(udp.state, SocketState::Unconnected);
    }

    #[test]
    fn what_the_kernel_should_not_say_is_an_error() {
        for (family, state) in [(1, 1), (INET, 14)] {
            let answer = answer(family, state, [(&V4, 80), (&V4, 4000)]);
            let error = Socket::new(Protocol::Tcp, &answer).unwrap_err();
            assert_eq!(error.code(), "unexpected");
        }
    }

    #[test]
    fn a_kernel_without_the_module_is_told_from_other_failures() {
        for errno in [libc::ENOENT, libc::EOPNOTSUPP, libc::EPROTONOSUPPORT] {
            let error = failed(Protocol::Udp, io::Error::from_raw_os_error(errno));
            assert_eq!((error.code(), error.exit_status()), ("unsupported", 6));
            assert_eq!(
                error.to_string(),
                "cannot list the kernel's udp sockets: the kernel has no udp_diag"
            );
        }
        let error = failed(Protocol::Udp, io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(error.code(), "permission_denied");
    }
}
