//! Real sockets in every state that the table of sockets lists.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use demux_common::protocol::Protocol;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use rustix::{
    io::Errno,
    net::{
        AddressFamily as SocketFamily, SocketFlags, SocketType, accept, bind, connect, listen,
        socket_with, sockopt,
    },
};

use crate::{
    common::netns::Netns,
    table::{
        frames::{SYN, segment},
        sockets::{Kind, SOCKETS, Socket},
    },
};

/// States as `/proc/net/tcp` writes them.
const ESTABLISHED: &str = "01";
const SYN_SENT: &str = "02";
const SYN_RECEIVED: &str = "03";
const TIME_WAIT: &str = "06";

/// Open sockets; they end with the value.
pub(crate) struct Sockets {
    listeners: Vec<(&'static Socket, OwnedFd)>,
    others: Vec<OwnedFd>,
}

impl Sockets {
    /// Opens every socket of the table in `host`, whose interface `v0` leads to `p0` of `peer`.
    pub(crate) fn open(host: &Netns, peer: &Netns) -> Self {
        // Handshakes that nobody finishes are to outlast the tests, so nobody may complain about them.
        host.sysctl("net/ipv4/tcp_synack_retries", "100");
        host.sysctl("net/ipv4/tcp_syn_retries", "100");
        peer.sysctl("net/ipv4/conf/all/forwarding", "0");
        peer.sysctl("net/ipv6/conf/all/forwarding", "0");
        for silent in ["10.0.0.77", "2001:db8::77"] {
            add_neighbour(host, "v0", silent, peer.mac("p0"));
        }
        let mut sockets = Self {
            listeners: Vec::new(),
            others: Vec::new(),
        };
        for socket in SOCKETS {
            match (socket.kind, socket.protocol) {
                (Kind::Listener | Kind::DualStackListener, _) => {
                    sockets.listeners.push((socket, listener(host, socket)));
                }
                (Kind::Connected, Protocol::Tcp) => {
                    let ends = sockets.connection(host, peer, socket);
                    sockets.others.extend(ends);
                    wait_for(host, socket, ESTABLISHED);
                }
                (Kind::Connected, Protocol::Udp) => {
                    let fd = host.enter(|| {
                        let fd = bound(socket.local(), SocketType::DGRAM);
                        connect(&fd, &socket.remote()).unwrap();
                        fd
                    });
                    sockets.others.push(fd);
                }
                (Kind::TimeWait, _) => {
                    let [ours, theirs] = sockets.connection(host, peer, socket);
                    drop(ours);
                    // The remote closes once it has seen that the host has.
                    assert_eq!(rustix::io::read(&theirs, &mut [0; 1]).unwrap(), 0);
                    drop(theirs);
                    wait_for(host, socket, TIME_WAIT);
                }
                (Kind::Request, _) => {
                    let syn =
                        segment(socket.remote, socket.local, SYN, 1, &[]).station(host.mac("v0"));
                    send_frame(peer, "p0", &syn.bytes);
                    wait_for(host, socket, SYN_RECEIVED);
                }
                (Kind::SynSent, _) => {
                    let fd = host.enter(|| {
                        let fd = bound(socket.local(), SocketType::STREAM);
                        rustix::io::ioctl_fionbio(&fd, true).unwrap();
                        assert_eq!(connect(&fd, &socket.remote()), Err(Errno::INPROGRESS));
                        fd
                    });
                    sockets.others.push(fd);
                    wait_for(host, socket, SYN_SENT);
                }
            }
        }
        sockets
    }

    /// A connection that the peer has opened: the host's end, and the peer's.
    fn connection(&self, host: &Netns, peer: &Netns, socket: &Socket) -> [OwnedFd; 2] {
        let theirs = peer.enter(|| {
            let fd = bound(socket.remote(), SocketType::STREAM);
            connect(&fd, &socket.local())
                .unwrap_or_else(|error| panic!("{} to {}: {error}", socket.remote, socket.local));
            fd
        });
        let (_, listener) = self
            .listeners
            .iter()
            .find(|(other, _)| other.protocol == Protocol::Tcp && other.listens_at(socket.local()))
            .expect("its listener");
        [host.enter(|| accept(listener).unwrap()), theirs]
    }
}

fn listener(host: &Netns, socket: &Socket) -> OwnedFd {
    host.enter(|| {
        let kind = match socket.protocol {
            Protocol::Tcp => SocketType::STREAM,
            Protocol::Udp => SocketType::DGRAM,
        };
        let fd = new_socket(socket.local(), kind);
        if socket.local().is_ipv6() {
            sockopt::set_ipv6_v6only(&fd, socket.kind == Kind::Listener).unwrap();
        }
        bind(&fd, &socket.local()).unwrap_or_else(|error| panic!("{}: {error}", socket.local));
        if socket.protocol == Protocol::Tcp {
            listen(&fd, 8).unwrap();
        }
        fd
    })
}

fn bound(local: SocketAddr, kind: SocketType) -> OwnedFd {
    let fd = new_socket(local, kind);
    bind(&fd, &local).unwrap_or_else(|error| panic!("{local}: {error}"));
    fd
}

fn new_socket(address: SocketAddr, kind: SocketType) -> OwnedFd {
    let family = if address.is_ipv4() {
        SocketFamily::INET
    } else {
        SocketFamily::INET6
    };
    socket_with(family, kind, SocketFlags::CLOEXEC, None).expect("a socket")
}

/// Waits until the kernel shows the socket in this state.
fn wait_for(host: &Netns, socket: &Socket, state: &str) {
    let file = if socket.local().is_ipv4() {
        "/proc/thread-self/net/tcp"
    } else {
        "/proc/thread-self/net/tcp6"
    };
    let wanted = format!("{} {} {state}", hex(socket.local()), hex(socket.remote()));
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let shown = host.enter(|| fs::read_to_string(file).unwrap());
        if shown.contains(&wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "no {wanted} in:\n{shown}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// An endpoint as `/proc/net/tcp` writes it: words of four bytes in host order.
fn hex(endpoint: SocketAddr) -> String {
    let bytes = match endpoint.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let words: String = bytes
        .chunks_exact(4)
        .map(|word| {
            let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            format!("{word:08X}")
        })
        .collect();
    format!("{words}:{:04X}", endpoint.port())
}

fn add_neighbour(namespace: &Netns, interface: &str, address: &str, mac: [u8; 6]) {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = namespace.index(interface);
    message.header.state = NeighbourState::Permanent;
    let (family, destination) = match address.parse().unwrap() {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.attributes = vec![
        NeighbourAttribute::Destination(destination),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    namespace.request(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    );
}

/// Puts a frame on the wire, as it is.
fn send_frame(namespace: &Netns, interface: &str, frame: &[u8]) {
    let index = namespace.index(interface);
    namespace.enter(|| {
        let socket = socket_with(
            SocketFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a packet socket (needs root)");
        // SAFETY: all-zero is a value of this structure of integers.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index as i32;
        // SAFETY: the buffers outlive the call and their lengths are right.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    });
}
