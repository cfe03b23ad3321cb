//! What the library says of the kernel's sockets, against sockets made for it in every state.

mod common;

use std::{
    collections::{BTreeSet, HashSet},
    iter,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use common::{
    frames::FrameSocket,
    netns::Netns,
    pair::{FAMILIES, Family, HOST, PEER, Pair, quick_netns},
    sockets::{bind, connect, connect_to, listen, start_connecting, talk, udp, udp_to},
    user::{NOBODY, as_user},
};
use demux_common::{address, protocol::Protocol};
use demux_user::{
    Error,
    kernel::Version,
    sockets::{self, Socket, SocketState, States, Timer, owner::Owners},
};
use etherparse::PacketBuilder;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use rustix::{
    fs::fstat,
    net::{
        AddressFamily as SocketFamily, SocketFlags, SocketType, listen as start_listening,
        socket_with, sockopt,
    },
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use Protocol::{Tcp, Udp};

const PATIENCE: Duration = Duration::from_secs(10);

/// An Ethernet address that nobody has.
const NOWHERE: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// A socket in one line.
fn line(
    protocol: Protocol,
    state: &str,
    local: impl Into<SocketAddr>,
    remote: impl Into<SocketAddr>,
) -> String {
    let (local, remote) = (local.into(), remote.into());
    format!("{} {state} {local} {remote}", protocol.name())
}

/// An established connection, from this end.
fn established(stream: &TcpStream) -> String {
    line(
        Tcp,
        "ESTABLISHED",
        stream.local_addr().unwrap(),
        stream.peer_addr().unwrap(),
    )
}

/// Nobody, as the remote of a socket.
fn nobody(family: Family) -> SocketAddr {
    family.any(0)
}

fn all(netns: &Netns, protocol: Protocol, states: States) -> Vec<Socket> {
    netns.enter(|| sockets::all(protocol, states).unwrap())
}

fn lines(sockets: &[Socket]) -> Vec<String> {
    let mut lines: Vec<String> = sockets
        .iter()
        .map(|socket| {
            line(
                socket.protocol,
                socket.state.name(),
                socket.local,
                socket.remote,
            )
        })
        .collect();
    lines.sort();
    lines
}

/// Waits until these are all the TCP sockets of a namespace that are in one of `states`.
#[track_caller]
fn expect(netns: &Netns, states: States, expected: &[String]) -> Vec<Socket> {
    let mut expected = expected.to_vec();
    expected.sort();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = all(netns, Tcp, states);
        let lines = lines(&found);
        if lines == expected {
            return found;
        }
        if Instant::now() > deadline {
            let without = |these: &[String], those: &[String]| -> Vec<String> {
                let those: HashSet<&String> = those.iter().collect();
                let rest = these.iter().filter(|line| !those.contains(line));
                rest.take(10).cloned().collect()
            };
            panic!(
                "{} sockets, not {}; unexpected {:?}, missing {:?}",
                lines.len(),
                expected.len(),
                without(&lines, &expected),
                without(&expected, &lines),
            );
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The one socket with this local endpoint.
#[track_caller]
fn at(sockets: &[Socket], local: SocketAddr) -> &Socket {
    let mut found = sockets.iter().filter(|socket| socket.local == local);
    let socket = found.next().unwrap_or_else(|| panic!("no {local}"));
    assert_eq!(found.next(), None);
    socket
}

fn inode(socket: impl AsFd) -> u64 {
    fstat(socket).unwrap().st_ino
}

/// A socket with a local endpoint that does nothing.
fn bound(netns: &Netns, kind: SocketType, local: SocketAddr, v6_only: bool) -> OwnedFd {
    let family = match local {
        SocketAddr::V4(_) => SocketFamily::INET,
        SocketAddr::V6(_) => SocketFamily::INET6,
    };
    let socket = netns
        .enter(|| socket_with(family, kind, SocketFlags::CLOEXEC, None))
        .unwrap();
    if local.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, v6_only).unwrap();
    }
    bind(&socket, local);
    socket
}

/// Fixes where the frames for `address` go.
fn set_neighbour(netns: &Netns, interface: &str, address: IpAddr, mac: [u8; 6]) {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = netns.index(interface);
    message.header.state = NeighbourState::Permanent;
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.attributes = vec![
        NeighbourAttribute::Destination(destination),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    netns.request(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    );
}

/// An address that never answers.
fn silent(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 0, 0, 77].into(),
        Family::V6 => [0xfd00, 0, 0, 0, 0, 0, 0, 77].into(),
    }
}

/// The host receives a SYN from an address that never answers.
fn send_syn(pair: &Pair, family: Family, from: u16, to: u16) {
    set_neighbour(&pair.host, HOST, silent(family), NOWHERE);
    let frame = PacketBuilder::ethernet2(NOWHERE, pair.host.mac(HOST));
    let frame = match (silent(family), family.host()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => frame.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => frame.ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!("one family"),
    };
    let frame = frame.tcp(from, to, 1, 64240).syn();
    let mut bytes = Vec::new();
    frame.write(&mut bytes, &[]).unwrap();
    FrameSocket::new(&pair.peer, PEER).send(&bytes);
}

#[test]
fn sockets_without_a_remote() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let [v4, v6] = FAMILIES;
    let plain = listen(&netns, v4.any(80));
    let dual = listen(&netns, v6.any(81));
    let alone = bound(&netns, SocketType::STREAM, v6.any(82), true);
    netns.enter(|| start_listening(&alone, 7)).unwrap();
    let on_device = bound(&netns, SocketType::STREAM, v4.any(83), false);
    setsockopt(&on_device, BindToDevice, &"v0".into()).unwrap();
    netns.enter(|| start_listening(&on_device, 1)).unwrap();
    let mapped = bound(
        &netns,
        SocketType::STREAM,
        "[::ffff:127.0.0.1]:84".parse().unwrap(),
        false,
    );
    netns.enter(|| start_listening(&mapped, 1)).unwrap();

    let listening = States::of(&[SocketState::Listen]);
    let found = expect(
        &netns,
        listening,
        &[
            line(Tcp, "LISTEN", v4.any(80), nobody(v4)),
            line(Tcp, "LISTEN", v6.any(81), nobody(v6)),
            line(Tcp, "LISTEN", v6.any(82), nobody(v6)),
            line(Tcp, "LISTEN", v4.any(83), nobody(v4)),
            line(Tcp, "LISTEN", ([127, 0, 0, 1], 84), nobody(v4)),
        ],
    );
    let v6_only = |local| at(&found, local).v6_only;
    assert_eq!(v6_only(v4.any(80)), None);
    assert_eq!(v6_only(v6.any(81)), Some(false));
    assert_eq!(v6_only(v6.any(82)), Some(true));
    let mapped_found = at(&found, ([127, 0, 0, 1], 84).into());
    assert_eq!(mapped_found.family, address::Family::Ipv6);
    assert_eq!(at(&found, v4.any(80)).ifindex, 0);
    assert_eq!(at(&found, v4.any(83)).ifindex, netns.index("v0"));
    assert_eq!(at(&found, v6.any(82)).send_queue, 7);
    for (socket, local) in [(plain.as_fd(), v4.any(80)), (dual.as_fd(), v6.any(81))] {
        let found = at(&found, local);
        assert_eq!(found.inode, inode(socket));
        assert_eq!(found.cookie, sockopt::socket_cookie(socket).unwrap());
        assert_eq!((found.uid, found.timer), (0, Timer::Off));
        assert_eq!((found.key(), found.tcp_state()), (None, None));
        assert!(!found.is_orphan() && !found.is_unaccepted());
    }

    let _sockets = [
        bound(&netns, SocketType::DGRAM, v4.any(53), false),
        bound(&netns, SocketType::DGRAM, v6.any(54), false),
        bound(&netns, SocketType::DGRAM, v6.any(55), true),
    ];
    let found = all(&netns, Udp, States::ALL);
    assert_eq!(
        lines(&found),
        [
            line(Udp, "UNCONNECTED", v4.any(53), nobody(v4)),
            line(Udp, "UNCONNECTED", v6.any(54), nobody(v6)),
            line(Udp, "UNCONNECTED", v6.any(55), nobody(v6)),
        ]
    );
    assert_eq!(at(&found, v6.any(54)).v6_only, Some(false));
    assert_eq!(at(&found, v6.any(55)).v6_only, Some(true));
    assert!(all(&netns, Udp, States::CONNECTED).is_empty());
}

#[test]
fn a_socket_that_is_only_bound() {
    // Older kernels do not list it.
    if Version::running().unwrap() < (Version { major: 6, minor: 8 }) {
        return;
    }
    let netns = Netns::new();
    let [v4, v6] = FAMILIES;
    let _sockets = [
        bound(&netns, SocketType::STREAM, v4.any(90), false),
        bound(&netns, SocketType::STREAM, v6.any(91), false),
    ];
    let found = expect(
        &netns,
        States::ALL,
        &[
            line(Tcp, "BOUND", v4.any(90), nobody(v4)),
            line(Tcp, "BOUND", v6.any(91), nobody(v6)),
        ],
    );
    assert_eq!(at(&found, v6.any(91)).v6_only, Some(false));
    assert!(all(&netns, Tcp, States::of(&[SocketState::Listen])).is_empty());
}

#[test]
fn connections_being_made() {
    for family in FAMILIES {
        let pair = Pair::new();
        let _listener = listen(&pair.host, family.any(22));
        send_syn(&pair, family, 40_001, 22);
        let to = SocketAddr::new(silent(family), 443);
        let client = start_connecting(&pair.host, to);
        let from = SocketAddr::new(
            family.host(),
            rustix::net::getsockname(&client)
                .map(|address| SocketAddr::try_from(address).unwrap().port())
                .unwrap(),
        );
        let remote = SocketAddr::new(silent(family), 40_001);
        let found = expect(
            &pair.host,
            States::CONNECTED,
            &[
                line(Tcp, "SYN-RECEIVED", family.at_host(22), remote),
                line(Tcp, "SYN-SENT", from, to),
            ],
        );
        let request = at(&found, family.at_host(22));
        assert_eq!((request.inode, request.timer), (0, Timer::Retransmit));
        assert!(!request.is_orphan() && !request.is_unaccepted());
        let client_found = at(&found, from);
        assert_eq!(client_found.inode, inode(&client));
        assert_eq!(client_found.timer, Timer::Retransmit);
        assert!(!client_found.expires.is_zero());
        for socket in &found {
            let state = socket.tcp_state().unwrap();
            assert_eq!(state.name(), socket.state.name());
        }
    }
}

#[test]
fn connections_that_last() {
    for (at, to) in [
        ("127.0.0.1:22", "127.0.0.1:22"),
        ("[::1]:23", "[::1]:23"),
        // IPv4 over a dual-stack listener, and with an IPv6 socket on both sides.
        ("[::]:24", "127.0.0.1:24"),
        ("[::]:25", "[::ffff:127.0.0.1]:25"),
    ] {
        let netns = quick_netns();
        let (at, to): (SocketAddr, SocketAddr) = (at.parse().unwrap(), to.parse().unwrap());
        let listener = listen(&netns, at);
        let (mut client, mut server) = connect(&netns, &listener, to);
        talk(&mut client, &mut server);
        let canonical =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (local, remote) = (
            canonical(client.local_addr().unwrap()),
            canonical(client.peer_addr().unwrap()),
        );
        let found = expect(
            &netns,
            States::CONNECTED,
            &[
                line(Tcp, "ESTABLISHED", local, remote),
                line(Tcp, "ESTABLISHED", remote, local),
            ],
        );
        for (end, stream) in [(local, &client), (remote, &server)] {
            let socket = self::at(&found, end);
            assert_eq!(socket.inode, inode(stream));
            assert_eq!(socket.cookie, sockopt::socket_cookie(stream).unwrap());
            let is_v6 = stream.local_addr().unwrap().is_ipv6();
            assert_eq!(socket.family == address::Family::Ipv6, is_v6);
            let key = socket.key().unwrap();
            assert_eq!(key.local_address.is_mapped(), end.is_ipv4());
            assert_eq!((key.local_port, key.protocol), (end.port(), Tcp));
        }
        drop(client);
        drop(server);
        // What is left of it has the addresses that it had.
        expect(
            &netns,
            States::CONNECTED,
            &[line(Tcp, "TIME-WAIT", local, remote)],
        );
    }
}

#[test]
fn a_connection_that_nobody_has_accepted() {
    let netns = Netns::new();
    let listener = listen(&netns, "127.0.0.1:22".parse().unwrap());
    let client = netns.enter(|| TcpStream::connect("127.0.0.1:22")).unwrap();
    let found = all(&netns, Tcp, States::ALL);
    let server = found
        .iter()
        .find(|socket| socket.remote == client.local_addr().unwrap())
        .unwrap();
    assert!(server.is_unaccepted() && !server.is_orphan());
    let listening = found
        .iter()
        .find(|socket| socket.state == SocketState::Listen)
        .unwrap();
    assert_eq!(listening.receive_queue, 1);

    let (server, _) = listener.accept().unwrap();
    let found = all(&netns, Tcp, States::CONNECTED);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|socket| !socket.is_unaccepted()));
    let owners = Owners::read().unwrap();
    let owner = owners.of(at(&found, server.local_addr().unwrap()).inode);
    assert_eq!(owner.unwrap().pid, std::process::id());
}

#[test]
fn connections_that_end() {
    for family in FAMILIES {
        let pair = Pair::new();
        let listener = listen(&pair.host, family.any(22));
        let new = || connect(&pair.peer, &listener, family.at_host(22));
        let state = |stream: &TcpStream, state: &str| {
            let remote = stream.local_addr().unwrap();
            line(Tcp, state, family.at_host(22), remote)
        };

        let (waits, held) = new();
        held.shutdown(std::net::Shutdown::Write).unwrap();
        let (orphans, closed) = new();
        drop(closed);
        let (finished, closes) = new();
        finished.shutdown(std::net::Shutdown::Write).unwrap();
        let found = expect(
            &pair.host,
            States::CONNECTED,
            &[
                state(&waits, "FIN-WAIT-2"),
                state(&orphans, "FIN-WAIT-2"),
                state(&finished, "CLOSE-WAIT"),
            ],
        );
        let of = |found: &[Socket], stream: &TcpStream| -> Socket {
            let remote = stream.local_addr().unwrap();
            let mut found = found.iter().filter(|socket| socket.remote == remote);
            found.next().unwrap().clone()
        };
        assert_eq!(of(&found, &waits).inode, inode(&held));
        assert!(!of(&found, &waits).is_orphan());
        let orphan = of(&found, &orphans);
        assert!(orphan.is_orphan());
        assert_eq!(orphan.timer, Timer::TimeWait);
        assert!(!orphan.expires.is_zero() && orphan.expires <= Duration::from_secs(60));
        assert!(!of(&found, &finished).is_orphan());
        assert_eq!(
            lines(&all(&pair.peer, Tcp, States::of(&[SocketState::CloseWait]))).len(),
            2
        );
        let (late, waited) = new();
        let cookie = sockopt::socket_cookie(&waited).unwrap();
        drop(waited);
        let late_remote = state(&late, "TIME-WAIT");
        let remote = late.local_addr().unwrap();
        drop(late);
        let time_wait = States::of(&[SocketState::TimeWait]);
        let found = expect(&pair.host, time_wait, &[late_remote]);
        assert_eq!(found[0].cookie, cookie);
        assert_eq!((found[0].remote, found[0].timer), (remote, Timer::TimeWait));
        assert!(found[0].is_orphan() && found[0].expires <= Duration::from_secs(60));

        // Nothing that the host sends arrives any more.
        let (closing, closing_held) = new();
        let (fin_wait_1, fin_wait_1_held) = new();
        set_neighbour(&pair.host, HOST, family.peer(), NOWHERE);
        drop((closes, closing_held, fin_wait_1_held));
        let closing_line = |name| state(&closing, name);
        let ending = States::of(&[
            SocketState::FinWait1,
            SocketState::Closing,
            SocketState::LastAck,
        ]);
        let found = expect(
            &pair.host,
            ending,
            &[
                closing_line("FIN-WAIT-1"),
                state(&fin_wait_1, "FIN-WAIT-1"),
                state(&finished, "LAST-ACK"),
            ],
        );
        assert!(found.iter().all(Socket::is_orphan));
        let closed = closing_line("CLOSING");
        drop(closing);
        let found = expect(
            &pair.host,
            ending,
            &[
                closed,
                state(&fin_wait_1, "FIN-WAIT-1"),
                state(&finished, "LAST-ACK"),
            ],
        );
        assert!(found.iter().all(Socket::is_orphan));
    }
}

#[test]
fn ipv4_requests_of_a_dual_stack_listener() {
    let pair = Pair::new();
    let _listener = listen(&pair.host, Family::V6.any(22));
    send_syn(&pair, Family::V4, 40_001, 22);
    let remote = SocketAddr::new(silent(Family::V4), 40_001);
    let found = expect(
        &pair.host,
        States::of(&[SocketState::SynReceived]),
        &[line(Tcp, "SYN-RECEIVED", Family::V4.at_host(22), remote)],
    );
    assert!(found[0].key().unwrap().remote_address.is_mapped());
}

#[test]
fn connected_udp_sockets() {
    let netns = quick_netns();
    let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let sockets = [
        udp_to(&netns, address("127.0.0.1:53"), address("127.0.0.2:153")),
        udp_to(&netns, address("[::1]:54"), address("[::1]:154")),
    ];
    let mapped = bound(&netns, SocketType::DGRAM, address("[::]:55"), false);
    connect_to(&mapped, address("[::ffff:127.0.0.1]:155"));
    let _unconnected = udp(&netns, address("127.0.0.1:56"));
    let found = all(&netns, Udp, States::CONNECTED);
    let connected = |local, remote| line(Udp, "ESTABLISHED", address(local), address(remote));
    let mut expected = [
        connected("127.0.0.1:53", "127.0.0.2:153"),
        connected("[::1]:54", "[::1]:154"),
        connected("127.0.0.1:55", "127.0.0.1:155"),
    ];
    expected.sort();
    assert_eq!(lines(&found), expected);
    let v4 = at(&found, address("127.0.0.1:53"));
    assert_eq!(v4.inode, inode(&sockets[0]));
    assert_eq!(v4.key().unwrap().protocol, Udp);
    assert_eq!(v4.tcp_state(), None);
    assert_eq!(all(&netns, Udp, States::ALL).len(), 4);
}

#[test]
fn nothing_but_what_was_asked_for_and_no_capability_needed() {
    let netns = quick_netns();
    let listener = listen(&netns, "127.0.0.1:22".parse().unwrap());
    let (client, server) = connect(&netns, &listener, "127.0.0.1:22".parse().unwrap());
    let expected = BTreeSet::from([established(&client), established(&server)]);
    let other = Netns::new();
    netns.enter(|| {
        as_user(NOBODY, || {
            let found = sockets::all(Tcp, States::CONNECTED).unwrap();
            assert_eq!(lines(&found).into_iter().collect::<BTreeSet<_>>(), expected);
            let found = sockets::all(Tcp, States::UNCONNECTED).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].inode, inode(&listener));
            assert!(sockets::all(Udp, States::ALL).unwrap().is_empty());
        });
    });
    assert!(all(&other, Tcp, States::ALL).is_empty());
}

#[test]
fn the_visitor_ends_it() {
    let netns = quick_netns();
    let _listeners: [TcpListener; 2] = [22, 23].map(|port| listen(&netns, Family::V4.any(port)));
    let mut visits = 0;
    let error = netns
        .enter(|| {
            sockets::for_each(Tcp, States::ALL, |_| {
                visits += 1;
                Err(Error::NotLoaded)
            })
        })
        .unwrap_err();
    assert!(matches!(error, Error::NotLoaded));
    assert_eq!(visits, 1);
}

#[test]
fn twenty_thousand_sockets_are_all_there() {
    // More descriptors than these are not to be had everywhere.
    const HELD: usize = 4_000;
    const ENDED: usize = 12_000;
    const DATAGRAM_PORTS: std::ops::Range<u16> = 10_000..18_000;
    allow_descriptors();
    let netns = quick_netns();
    // Every connection is to have a port of its own, and to leave a socket behind.
    netns.sysctl("net/ipv4/tcp_tw_reuse", "0");
    netns.sysctl("net/ipv4/tcp_max_tw_buckets", "100000");
    let to: SocketAddr = "127.0.0.1:22".parse().unwrap();
    let listener = listen(&netns, to);
    let new = || {
        let client = TcpStream::connect(to).unwrap();
        (client, listener.accept().unwrap().0)
    };
    let (held, ended) = netns.enter(|| {
        let held: Vec<_> = iter::repeat_with(new).take(HELD).collect();
        let ended: Vec<String> = iter::repeat_with(|| new().0.local_addr().unwrap())
            .take(ENDED)
            .map(|client| line(Tcp, "TIME-WAIT", client, to))
            .collect();
        (held, ended)
    });
    let mut expected = ended;
    for (client, server) in &held {
        expected.extend([established(client), established(server)]);
    }
    assert_eq!(expected.len(), 20_000);
    let found = expect(&netns, States::CONNECTED, &expected);
    let cookies: BTreeSet<u64> = found.iter().map(|socket| socket.cookie).collect();
    assert_eq!(cookies.len(), found.len());
    drop(held);

    let _sockets: Vec<UdpSocket> = netns.enter(|| {
        DATAGRAM_PORTS
            .map(|port| UdpSocket::bind(("127.0.0.1", port)).unwrap())
            .collect()
    });
    let found: BTreeSet<u16> = all(&netns, Udp, States::ALL)
        .iter()
        .map(|socket| socket.local.port())
        .collect();
    assert!(found.into_iter().eq(DATAGRAM_PORTS));
}

/// Raises the number of descriptors that this process may have as far as it may.
fn allow_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}
