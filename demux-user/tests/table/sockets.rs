//! The sockets that the host of every test has: a table, which the kernel's are made from.

use std::net::SocketAddr;

use demux_common::{connection::ConnectionKey, protocol::Protocol, tables::KernelSocket};
use demux_user::bindings::pattern::to_ip;

use super::frames::socket;

/// What a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Takes whatever comes to its address and port.
    Listener,
    /// The same, of both families.
    DualStackListener,
    /// Connected, both sides may send.
    Connected,
    /// The host has closed, then the remote.
    TimeWait,
    /// The handshake is not finished: the remote has not answered.
    Request,
    /// The host's own SYN is not answered.
    SynSent,
}

/// A socket of the host. Those that nobody is connected to have an unspecified remote.
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    pub protocol: Protocol,
    pub local: &'static str,
    pub remote: &'static str,
    pub kind: Kind,
}

const NOBODY: &str = "0.0.0.0:0";

const fn listener(protocol: Protocol, local: &'static str) -> Socket {
    Socket {
        protocol,
        local,
        remote: NOBODY,
        kind: Kind::Listener,
    }
}

const fn dual_stack(protocol: Protocol, local: &'static str) -> Socket {
    Socket {
        kind: Kind::DualStackListener,
        ..listener(protocol, local)
    }
}

const fn connection(
    protocol: Protocol,
    remote: &'static str,
    local: &'static str,
    kind: Kind,
) -> Socket {
    Socket {
        protocol,
        local,
        remote,
        kind,
    }
}

use Protocol::{Tcp, Udp};

/// All of them; those that connections come to stand before the connections.
pub const SOCKETS: &[Socket] = &[
    listener(Tcp, "0.0.0.0:22"),
    listener(Tcp, "[2001:db8::2]:22"),
    listener(Tcp, "10.0.0.3:8080"),
    listener(Tcp, "[2001:db8::3]:8080"),
    dual_stack(Tcp, "[::]:2222"),
    listener(Tcp, "[::]:6022"),
    connection(Tcp, "10.0.0.1:40001", "10.0.0.2:22", Kind::Connected),
    connection(
        Tcp,
        "[2001:db8::1]:40001",
        "[2001:db8::2]:22",
        Kind::Connected,
    ),
    connection(Tcp, "10.0.0.1:40002", "10.0.0.2:22", Kind::TimeWait),
    connection(
        Tcp,
        "[2001:db8::1]:40002",
        "[2001:db8::2]:22",
        Kind::TimeWait,
    ),
    connection(Tcp, "10.0.0.77:40003", "10.0.0.2:22", Kind::Request),
    connection(
        Tcp,
        "[2001:db8::77]:40003",
        "[2001:db8::2]:22",
        Kind::Request,
    ),
    connection(Tcp, "10.0.0.77:443", "10.0.0.2:40004", Kind::SynSent),
    connection(
        Tcp,
        "[2001:db8::77]:443",
        "[2001:db8::2]:40004",
        Kind::SynSent,
    ),
    listener(Udp, "0.0.0.0:53"),
    listener(Udp, "[2001:db8::2]:53"),
    listener(Udp, "10.0.0.3:5000"),
    listener(Udp, "[2001:db8::3]:5000"),
    dual_stack(Udp, "[::]:5353"),
    listener(Udp, "[::]:6053"),
    connection(Udp, "10.0.0.1:53", "10.0.0.2:40053", Kind::Connected),
    connection(
        Udp,
        "[2001:db8::1]:53",
        "[2001:db8::2]:40053",
        Kind::Connected,
    ),
];

impl Socket {
    pub fn local(&self) -> SocketAddr {
        socket(self.local)
    }

    pub fn remote(&self) -> SocketAddr {
        socket(self.remote)
    }

    fn is_listener(&self) -> bool {
        matches!(self.kind, Kind::Listener | Kind::DualStackListener)
    }

    pub fn listens_at(&self, local: SocketAddr) -> bool {
        let own = self.local();
        self.is_listener()
            && own.port() == local.port()
            && match self.kind {
                Kind::DualStackListener => true,
                _ if own.ip().is_unspecified() => own.is_ipv4() == local.is_ipv4(),
                _ => own.ip() == local.ip(),
            }
    }
}

/// What the kernel would answer.
pub fn kernel_socket(key: &ConnectionKey) -> KernelSocket {
    let local = SocketAddr::new(to_ip(&key.local_address), key.local_port);
    let remote = SocketAddr::new(to_ip(&key.remote_address), key.remote_port);
    let of_protocol = || {
        SOCKETS
            .iter()
            .filter(|other| other.protocol == key.protocol)
    };
    let connected = of_protocol()
        .find(|other| !other.is_listener() && (other.local(), other.remote()) == (local, remote));
    match (connected, key.protocol) {
        (Some(_), Udp)
        | (
            Some(Socket {
                kind: Kind::TimeWait,
                ..
            }),
            Tcp,
        ) => KernelSocket::Listener,
        (
            Some(Socket {
                kind: Kind::Request,
                ..
            }),
            Tcp,
        ) => KernelSocket::Request,
        (Some(_), Tcp) => KernelSocket::Connected,
        (None, _) if of_protocol().any(|other| other.listens_at(local)) => KernelSocket::Listener,
        (None, _) => KernelSocket::None,
    }
}
