//! Of several that could take a packet, the binding that `explain` names is the one whose socket the
//! kernel gives it to: both are asked of the same addresses, options and packets, in one namespace.
//!
//! Some rules of the kernel have no case here, because bindings cannot express them:
//! - A socket at `127.0.0.1` comes before one at `::ffff:127.0.0.1`, by its family. To demux these are
//!   one address, so two bindings there are equals and not first and second.
//! - A connected UDP socket comes before one that is not. Bindings are not connected; what is answered
//!   becomes a connection, which comes before every binding anyway.
//! - Of two sockets that share a port by SO_REUSEPORT, one with a device and one without, the kernel
//!   takes the one that it finds first: for IPv4 that was bound last, for IPv6 the one bound first. Demux
//!   takes the one with the device, as the kernel does where SO_REUSEADDR makes them share.
//! - Which `bind` or `listen` is refused is no question of who gets a packet.

mod common;

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    time::Duration,
};

use common::{
    demux::Demux,
    netns::Netns,
    pair::Family,
    sockets::{bind, socket},
    wait::wait_for_some,
};
use nix::sys::socket::{
    Backlog, listen, setsockopt,
    sockopt::{BindToDevice, Ipv6V6Only, ReuseAddr, ReusePort},
};

/// Whether endpoints are shared, as SO_REUSEADDR and SO_REUSEPORT do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    No,
    Address,
    Port,
}

/// A socket, and the binding that stands for it.
#[derive(Clone, Copy, Debug)]
struct Bound {
    name: &'static str,
    address: &'static str,
    sharing: Sharing,
    v6_only: bool,
    on_loopback: bool,
}

const fn bound(name: &'static str, address: &'static str) -> Bound {
    Bound {
        name,
        address,
        sharing: Sharing::Port,
        v6_only: false,
        on_loopback: false,
    }
}

const ANY4: Bound = bound("any4", "0.0.0.0");
const ANY6: Bound = bound("any6", "[::]");
const LO1: Bound = bound("lo1", "127.0.0.1");
const LO6: Bound = bound("lo6", "[::1]");
const MAPPED: Bound = bound("mapped", "[::ffff:127.0.0.1]");
const ONLY6: Bound = Bound {
    sharing: Sharing::No,
    v6_only: true,
    ..ANY6
};
const ALONE6: Bound = Bound {
    sharing: Sharing::No,
    ..ANY6
};
const DEVICE: Bound = Bound {
    name: "device",
    on_loopback: true,
    ..ANY4
};
const DEVICE6: Bound = Bound {
    name: "device6",
    on_loopback: true,
    ..ANY6
};

/// Who is bound, in this order; and for each address a packet goes to, who gets it, which is told here
/// so that the kernel and demux cannot agree on nonsense. Nobody has no name.
type Case = (&'static [Bound], &'static [(&'static str, &'static str)]);

const CASES: &[Case] = &[
    (&[ANY4, LO1], &[("127.0.0.1", "lo1"), ("127.0.0.2", "any4")]),
    (&[LO1, ANY4], &[("127.0.0.1", "lo1"), ("127.0.0.2", "any4")]),
    (&[ANY6, ANY4], &[("127.0.0.1", "any4"), ("[::1]", "any6")]),
    (&[ANY4, ANY6], &[("127.0.0.1", "any4"), ("[::1]", "any6")]),
    (&[ANY6], &[("127.0.0.1", "any6"), ("[::1]", "any6")]),
    (&[ALONE6], &[("127.0.0.1", "any6"), ("[::1]", "any6")]),
    (&[ONLY6], &[("127.0.0.1", ""), ("[::1]", "any6")]),
    (&[ANY6, LO1], &[("127.0.0.1", "lo1"), ("127.0.0.2", "any6")]),
    (&[ANY6, LO6], &[("127.0.0.1", "any6"), ("[::1]", "lo6")]),
    (
        &[ANY4, MAPPED],
        &[("127.0.0.1", "mapped"), ("127.0.0.2", "any4")],
    ),
    (
        &[LO1, DEVICE],
        &[("127.0.0.1", "lo1"), ("127.0.0.2", "device")],
    ),
    (&[ANY4, DEVICE], &[("127.0.0.1", "device"), ("[::1]", "")]),
    (
        &[DEVICE6, ANY6],
        &[("127.0.0.1", "device6"), ("[::1]", "device6")],
    ),
    (
        &[LO6, DEVICE6],
        &[("[::1]", "lo6"), ("127.0.0.1", "device6")],
    ),
    (
        &[LO1],
        &[("127.0.0.1", "lo1"), ("127.0.0.2", ""), ("[::1]", "")],
    ),
];

const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

#[test]
fn explain_names_the_winner_that_the_kernel_names() {
    let netns = Netns::new();
    let demux = load(&netns);
    let mut port = 20_000;
    for protocol in PROTOCOLS {
        for (who, packets) in CASES {
            port += 1;
            let sockets: Vec<_> = who
                .iter()
                .map(|bound| (bound.name, Socket::open(&netns, protocol, bound, port)))
                .collect();
            for bound in *who {
                demux.ok(&bound.command(protocol, port));
            }
            for (address, expected) in *packets {
                let at: SocketAddr = format!("{address}:{port}").parse().unwrap();
                let text = format!("{protocol} to {at} among {who:?}");
                assert_eq!(
                    kernels_winner(&netns, &sockets, at),
                    *expected,
                    "kernel: {text}"
                );
                let explained = explain(&demux, protocol, 40_000, at);
                assert_eq!(explained, *expected, "explain: {text}");
            }
            for bound in *who {
                demux.ok(&format!("unbind {}", bound.name));
            }
        }
    }
}

#[test]
fn a_device_comes_first_whoever_was_bound_last() {
    let netns = Netns::new();
    let demux = load(&netns);
    let by_address = |bound| Bound {
        sharing: Sharing::Address,
        ..bound
    };
    let cases = [
        ("udp", [ANY4, DEVICE].map(by_address), "device"),
        ("udp", [DEVICE, ANY4].map(by_address), "device"),
        ("udp", [ANY6, DEVICE6].map(by_address), "device6"),
        ("udp", [DEVICE6, ANY6].map(by_address), "device6"),
        // Here the kernel's answer depends on the order, and demux's does not.
        ("udp", [DEVICE, ANY4], "any4"),
        ("tcp", [DEVICE, ANY4], "any4"),
        ("udp", [ANY6, DEVICE6], "any6"),
        ("tcp", [ANY6, DEVICE6], "any6"),
    ];
    for (port, (protocol, who, of_kernel)) in (20_000..).zip(cases) {
        let sockets = who.map(|bound| {
            demux.ok(&bound.command(protocol, port));
            (bound.name, Socket::open(&netns, protocol, &bound, port))
        });
        let address = if who[0].address == ANY4.address {
            "127.0.0.1"
        } else {
            "[::1]"
        };
        let at: SocketAddr = format!("{address}:{port}").parse().unwrap();
        let text = format!("{protocol}: {who:?}");
        assert_eq!(kernels_winner(&netns, &sockets, at), of_kernel, "{text}");
        let with_device = who.iter().find(|bound| bound.on_loopback).unwrap().name;
        assert_eq!(explain(&demux, protocol, 40_000, at), with_device, "{text}");
        for bound in who {
            demux.ok(&format!("unbind {}", bound.name));
        }
    }
}

/// Of two sockets with one address and SO_REUSEADDR, the kernel takes the one bound last.
#[test]
fn of_two_equals_the_one_bound_last_wins() {
    let netns = Netns::new();
    let demux = load(&netns);
    let at: SocketAddr = "127.0.0.1:20000".parse().unwrap();
    let equals = ["first", "second"].map(|name| Bound {
        name,
        sharing: Sharing::Address,
        ..LO1
    });
    let sockets: Vec<_> = equals
        .iter()
        .map(|bound| (bound.name, Socket::open(&netns, "udp", bound, at.port())))
        .collect();
    for bound in equals {
        demux.ok(&bound.command("udp", at.port()));
    }
    assert_eq!(kernels_winner(&netns, &sockets, at), "second");
    assert_eq!(explain(&demux, "udp", 40_000, at), "second");
}

/// Members of a group with SO_REUSEPORT share by a hash. The kernel's and demux's are different ones, so
/// who gets a flow is not compared; but that it always is the same one, and that everybody gets some.
#[test]
fn the_members_of_a_group_share_and_each_flow_keeps_its_member() {
    const FLOWS: u16 = 200;
    let netns = Netns::new();
    let demux = load(&netns);
    let at: SocketAddr = "127.0.0.1:20000".parse().unwrap();
    let members = ["a", "b", "c", "d"].map(|name| Bound { name, ..LO1 });
    let sockets: Vec<_> = members
        .iter()
        .map(|bound| (bound.name, Socket::open(&netns, "udp", bound, at.port())))
        .collect();
    for bound in members {
        demux.ok(&bound.command("udp", at.port()));
    }
    let (mut of_kernel, mut of_demux) = (BTreeSet::new(), BTreeSet::new());
    for flow in 0..FLOWS {
        let port = 30_000 + flow;
        let client = client(&netns, at, port);
        let first = winner_of(&sockets, || client.send(b"x").map(drop));
        let second = winner_of(&sockets, || client.send(b"x").map(drop));
        assert_eq!(first, second, "kernel: the flow from {port}");
        of_kernel.insert(first);
        let first = explain(&demux, "udp", port + 1000, at);
        let second = explain(&demux, "udp", port + 1000, at);
        assert_eq!(first, second, "explain: the flow from {port}");
        of_demux.insert(first);
    }
    assert_eq!((of_kernel.len(), of_demux.len()), (4, 4));
}

fn load(netns: &Netns) -> Demux<'_> {
    let demux = Demux::new(netns);
    demux.ok("load lo --max-connections 1024");
    demux
}

/// The name of the binding that decides about a new packet, if any does.
fn explain(demux: &Demux<'_>, protocol: &str, from: u16, to: SocketAddr) -> String {
    let source = if to.is_ipv4() { "127.0.0.9" } else { "[::1]" };
    let explained = demux.item(&format!("explain {protocol} from {source}:{from} to {to}"));
    let binding = explained["binding"].as_str().unwrap_or_default();
    let stage = if binding.is_empty() {
        "default"
    } else {
        "binding"
    };
    assert_eq!(explained["stage"], stage, "{explained}");
    binding.to_owned()
}

impl Bound {
    fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.address)
    }

    /// The command that makes the binding.
    fn command(&self, protocol: &str, port: u16) -> String {
        let mut line = format!("bind {protocol} {} --name {}", self.at(port), self.name);
        line += match self.sharing {
            Sharing::No => "",
            Sharing::Address => " --reuse-addr",
            Sharing::Port => " --reuse-port",
        };
        if self.v6_only {
            line += " --v6-only";
        }
        if self.on_loopback {
            line += " --dev lo";
        }
        line
    }
}

/// A socket that takes what comes, and never waits for it.
enum Socket {
    Listener(TcpListener),
    Receiver(UdpSocket),
}

impl Socket {
    fn open(netns: &Netns, protocol: &str, bound: &Bound, port: u16) -> Self {
        let at: SocketAddr = bound.at(port).parse().unwrap();
        let domain = if at.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let kind = match protocol {
            "tcp" => libc::SOCK_STREAM,
            _ => libc::SOCK_DGRAM,
        };
        let fd: OwnedFd = netns.enter(|| socket(domain, kind | libc::SOCK_NONBLOCK, 0));
        match bound.sharing {
            Sharing::No => {}
            Sharing::Address => setsockopt(&fd, ReuseAddr, &true).unwrap(),
            Sharing::Port => setsockopt(&fd, ReusePort, &true).unwrap(),
        }
        if at.is_ipv6() {
            setsockopt(&fd, Ipv6V6Only, &bound.v6_only).unwrap();
        }
        if bound.on_loopback {
            setsockopt(&fd, BindToDevice, &"lo".into()).unwrap();
        }
        bind(&fd, at);
        if kind == libc::SOCK_STREAM {
            listen(&fd, Backlog::new(16).unwrap()).unwrap();
            Self::Listener(fd.into())
        } else {
            Self::Receiver(fd.into())
        }
    }

    /// Whether something has come; takes it.
    fn takes(&self) -> bool {
        match self {
            Self::Listener(listener) => listener.accept().is_ok(),
            Self::Receiver(socket) => socket.recv(&mut [0; 16]).is_ok(),
        }
    }
}

/// Which of the sockets the kernel gives a new packet to, if any.
fn kernels_winner(
    netns: &Netns,
    sockets: &[(&'static str, Socket)],
    at: SocketAddr,
) -> &'static str {
    match sockets[0].1 {
        Socket::Listener(_) => winner_of(sockets, || {
            netns.enter(|| TcpStream::connect_timeout(&at, Duration::from_secs(20)).map(drop))
        }),
        Socket::Receiver(_) => {
            let client = client(netns, at, 0);
            winner_of(sockets, || {
                client.send(b"x")?;
                // A refusal is told by the next call, at once on this interface.
                client.take_error()?.map_or(Ok(()), Err)
            })
        }
    }
}

/// Which of the sockets gets what `send` sends; none if that is refused.
fn winner_of(
    sockets: &[(&'static str, Socket)],
    send: impl FnOnce() -> std::io::Result<()>,
) -> &'static str {
    match send() {
        Ok(()) => wait_for_some("a socket that takes the packet", || {
            let taker = sockets.iter().find(|(_, socket)| socket.takes());
            taker.map(|(name, _)| *name)
        }),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            ""
        }
    }
}

/// A UDP socket with this port that hears whether it is refused.
fn client(netns: &Netns, to: SocketAddr, port: u16) -> UdpSocket {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let socket = netns.enter(|| UdpSocket::bind(family.any(port))).unwrap();
    socket.connect(to).unwrap();
    socket
}
