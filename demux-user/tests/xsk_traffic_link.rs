//! The way of an IP packet to an Ethernet frame, by the tables of a real kernel: routes, gateways of both
//! families, neighbours that the kernel resolves, and what happens when they change or do not answer.

mod common;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use common::{
    netns::Netns,
    pair::{FAMILIES, Family, HOST, PEER, Pair, quick_netns},
    sockets::udp,
    user::{NOBODY, as_user},
    wait::wait_for,
};
use demux_user::{
    Error,
    netlink::Netlink,
    xsk::link::{Link, Outcome, Station},
};
use etherparse::PacketBuilder;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteMetric, RouteVia},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rtnetlink::RouteMessageBuilder;

/// Where the packets of these tests go to.
const PORT: u16 = 4000;

/// A frame and the interface it is for.
type Made = (u32, Vec<u8>);

/// A UDP datagram as an IP packet.
fn packet(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), 64)
        }
        _ => panic!("{source} and {destination} are of two families"),
    };
    let builder = builder.udp(PORT, PORT);
    builder.write(&mut packet, payload).expect("a packet");
    packet
}

fn open(netns: &Netns) -> Link {
    netns.enter(|| Link::open(&[HOST])).expect("a link")
}

/// The frame for a packet, at once or after its next hop was resolved.
#[track_caller]
fn frame(link: &mut Link, packet: &[u8]) -> Made {
    if let Outcome::Frame(frame) = link.frame(packet).expect("a way") {
        return (frame.interface, frame.bytes.to_vec());
    }
    loop {
        assert!(wait(link), "the kernel never resolved the next hop");
        link.update().expect("notifications");
        if let Some(frame) = link.next_ready() {
            return (frame.interface, frame.bytes.to_vec());
        }
    }
}

/// Waits until the link has something to read; `false` where that does not come.
fn wait(link: &Link) -> bool {
    let mut fds = [PollFd::new(link.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(10_000_u16)).expect("poll") > 0
}

/// A socket that sends frames by an interface.
fn wire(netns: &Netns, interface: &str) -> (OwnedFd, u32) {
    let index = netns.index(interface);
    let socket = netns.enter(|| common::sockets::socket(libc::AF_PACKET, libc::SOCK_RAW, 0));
    (socket, index)
}

/// Sends a frame as it is.
fn send((socket, index): &(OwnedFd, u32), frame: &[u8]) {
    use std::os::fd::AsRawFd as _;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    // SAFETY: the frame and the address are as long as told.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    assert_eq!(sent, frame.len() as isize);
}

/// What arrives at a socket of the peer, and who it is from.
#[track_caller]
fn received(socket: &UdpSocket) -> (Vec<u8>, IpAddr) {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).expect("the packet");
    (buffer[..length].to_vec(), from.ip())
}

#[test]
fn the_kernel_resolves_neighbours_and_frames_reach_them() {
    let pair = Pair::new();
    let mut link = open(&pair.host);
    let wire = wire(&pair.host, HOST);
    for family in FAMILIES {
        let server = udp(&pair.peer, family.at_peer(PORT));
        let first = packet(family.host(), family.peer(), b"first");
        let (interface, bytes) = frame(&mut link, &first);
        assert_eq!(interface, pair.host.index(HOST));
        assert_eq!(bytes[..6], pair.peer.mac(PEER));
        assert_eq!(bytes[6..12], pair.host.mac(HOST));
        send(&wire, &bytes);
        assert_eq!(received(&server), (b"first".to_vec(), family.host()));

        let second = packet(family.host(), family.peer(), b"second");
        let Outcome::Frame(at_once) = link.frame(&second).unwrap() else {
            panic!("the next hop is known");
        };
        send(&wire, at_once.bytes);
        assert_eq!(received(&server), (b"second".to_vec(), family.host()));
    }
    assert_eq!((link.waiting(), link.timeout()), (0, None));
}

/// A neighbour that has its address only after the kernel has asked for it once.
#[test]
fn packets_wait_for_a_neighbour_and_leave_in_order() {
    let pair = Pair::new();
    let mut link = open(&pair.host);
    let wire = wire(&pair.host, HOST);
    for (family, late, prefix) in [(Family::V4, "10.0.0.3", 24), (Family::V6, "fd00::3", 64)] {
        let late_ip: IpAddr = late.parse().unwrap();
        for word in [&b"first"[..], b"second"] {
            let bytes = packet(family.host(), late_ip, word);
            assert_eq!(link.frame(&bytes).unwrap(), Outcome::Waiting);
        }
        pair.peer.add_address(PEER, &format!("{late}/{prefix}"));
        let server = udp(&pair.peer, SocketAddr::new(late_ip, PORT));
        while link.waiting() > 0 {
            assert!(wait(&link), "{late} was never resolved");
            link.update().unwrap();
            while let Some(frame) = link.next_ready() {
                send(&wire, frame.bytes);
            }
        }
        for word in [&b"first"[..], b"second"] {
            assert_eq!(received(&server), (word.to_vec(), family.host()));
        }
    }
    let statistics = link.statistics();
    assert_eq!((statistics.waited, statistics.unreachable), (4, 0));
}

#[test]
fn an_unprivileged_process_gets_neighbours_resolved_too() {
    let pair = Pair::new();
    for family in FAMILIES {
        let mut link = open(&pair.host);
        let bytes = packet(family.host(), family.peer(), b"from nobody");
        let mut made = None;
        as_user(NOBODY, || made = Some(frame(&mut link, &bytes)));
        let (_, frame) = made.expect("a frame");
        assert_eq!(frame[..6], pair.peer.mac(PEER));
    }
}

#[test]
fn gateways_of_both_families_are_next_hops() {
    let pair = Pair::new();
    let gateway = Family::V6.peer();
    pair.host.add_default_route(&Family::V4.peer().to_string());
    pair.host.add_default_route(&gateway.to_string());
    // An IPv4 destination by way of an IPv6 gateway (RFC 5549).
    let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix([203, 0, 113, 0].into(), 24)
        .output_interface(pair.host.index(HOST))
        .build();
    route
        .attributes
        .push(RouteAttribute::Via(RouteVia::from(gateway)));
    pair.host.add_route(route);

    let mut link = open(&pair.host);
    let far_v6: IpAddr = "2001:db8::1".parse().unwrap();
    for (source, destination, next) in [
        (Family::V4.host(), [192, 0, 2, 1].into(), Family::V4.peer()),
        (Family::V4.host(), [203, 0, 113, 9].into(), gateway),
        (Family::V6.host(), far_v6, gateway),
    ] {
        let hop = link.hop(source, destination).unwrap();
        assert_eq!(hop.station, Station::Neighbour(next), "{destination}");
        let (_, frame) = frame(&mut link, &packet(source, destination, b"far"));
        assert_eq!(frame[..6], pair.peer.mac(PEER));
        let ether_type = if source.is_ipv4() { 0x0800 } else { 0x86dd_u16 };
        assert_eq!(frame[12..14], ether_type.to_be_bytes());
    }
}

#[test]
fn a_neighbour_that_moves_is_followed() {
    let pair = Pair::new();
    let mut link = open(&pair.host);
    let bytes = packet(Family::V4.host(), Family::V4.peer(), b"moving");
    let (_, before) = frame(&mut link, &bytes);
    assert_eq!(before[..6], pair.peer.mac(PEER));

    let elsewhere = [2, 0, 0, 0, 0, 0x77];
    set_neighbour(&pair.host, NeighbourState::Permanent, elsewhere);
    assert!(wait(&link));
    link.update().unwrap();
    let (_, after) = frame(&mut link, &bytes);
    assert_eq!(after[..6], elsewhere);
}

/// The kernel hears nothing of what the stack receives, so it is told that the neighbour is in use, and
/// verifies one that it has not heard of for long.
#[test]
fn a_stale_neighbour_is_used_and_verified() {
    let pair = Pair::new();
    let delay = format!("net/ipv4/neigh/{HOST}/delay_first_probe_time");
    pair.host.sysctl(&delay, "1");
    let mac = pair.peer.mac(PEER);
    set_neighbour(&pair.host, NeighbourState::Stale, mac);
    let mut link = open(&pair.host);
    let bytes = packet(Family::V4.host(), Family::V4.peer(), b"still there?");
    let Outcome::Frame(frame) = link.frame(&bytes).unwrap() else {
        panic!("a stale neighbour has an address");
    };
    assert_eq!(frame.bytes[..6], mac);
    wait_for("the kernel to verify the neighbour", || {
        neighbour(&pair.host) == Some(NeighbourState::Reachable)
    });
}

/// Writes the entry of the peer in the host's neighbour table.
fn set_neighbour(host: &Netns, state: NeighbourState, mac: [u8; 6]) {
    let mut message = peer_of(host);
    message.header.state = state;
    let mac = NeighbourAttribute::LinkLayerAddress(mac.to_vec());
    message.attributes.push(mac);
    host.request(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    );
}

/// What the host's kernel thinks of the peer.
fn neighbour(host: &Netns) -> Option<NeighbourState> {
    let question = RouteNetlinkMessage::GetNeighbour(peer_of(host));
    let answer = host.enter(|| Netlink::route()?.request(question, 0)).ok()?;
    answer.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewNeighbour(message) => Some(message.header.state),
        _ => None,
    })
}

fn peer_of(host: &Netns) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = host.index(HOST);
    message.attributes = vec![NeighbourAttribute::Destination(Family::V4.peer().into())];
    message
}

#[test]
fn routes_are_asked_for_again_when_they_change() {
    let pair = Pair::new();
    let mut link = open(&pair.host);
    let far: IpAddr = [192, 0, 2, 1].into();
    let error = link.hop(Family::V4.host(), far).unwrap_err();
    assert_eq!(error.code(), "unreachable");

    pair.host.add_default_route(&Family::V4.peer().to_string());
    link.update().unwrap();
    assert_eq!(link.mtu(Family::V4.host(), far).unwrap(), 1500);

    pair.host.set_mtu(HOST, 9000);
    link.update().unwrap();
    assert_eq!(link.mtu(Family::V4.host(), far).unwrap(), 9000);

    // What is known of the path counts, where it is less.
    let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix([192, 0, 2, 0].into(), 24)
        .gateway([10, 0, 0, 1].into())
        .build();
    route
        .attributes
        .push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)]));
    pair.host.add_route(route);
    link.update().unwrap();
    assert_eq!(link.mtu(Family::V4.host(), far).unwrap(), 1400);
    let long = packet(Family::V4.host(), far, &[0; 1400]);
    let error = link.frame(&long).unwrap_err();
    assert!(
        matches!(
            error,
            Error::PacketTooLong {
                length: 1428,
                mtu: 1400,
                ..
            }
        ),
        "{error}"
    );
}

/// Three probes, a second apart, are the kernel's; the packets are dropped when they have failed.
#[test]
fn packets_for_somebody_who_does_not_answer_are_dropped() {
    let pair = Pair::new();
    let mut link = open(&pair.host);
    let nobody: IpAddr = [10, 0, 0, 99].into();
    let bytes = packet(Family::V4.host(), nobody, b"hello?");
    for _ in 0..20 {
        assert_eq!(link.frame(&bytes).unwrap(), Outcome::Waiting);
    }
    assert_eq!(link.waiting(), 16);
    assert!(link.timeout().is_some_and(|left| left > Duration::ZERO));
    wait_for("the kernel to give up", || {
        link.update().unwrap();
        assert_eq!(link.next_ready(), None);
        link.waiting() == 0
    });
    let statistics = link.statistics();
    assert_eq!(
        (
            statistics.waited,
            statistics.overflowed,
            statistics.unreachable
        ),
        (20, 4, 16)
    );
    let error = link.frame(&bytes).unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
}

#[test]
fn what_does_not_leave_by_the_set_is_refused() {
    let pair = Pair::new();
    let other = quick_netns();
    pair.host.veth("other0", &other, "other1");
    pair.host.add_address("other0", "198.51.100.1/24");
    let mut link = open(&pair.host);
    for (destination, reason) in [
        ("198.51.100.2", "none of the set's interfaces"),
        ("10.0.0.2", "this host itself"),
        ("203.0.113.1", "no route"),
    ] {
        let destination: Ipv4Addr = destination.parse().unwrap();
        let bytes = packet(Family::V4.host(), destination.into(), b"");
        let error = link.frame(&bytes).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    let foreign = packet([10, 0, 0, 50].into(), Family::V4.peer(), b"");
    assert_eq!(link.frame(&foreign).unwrap_err().code(), "unreachable");
    let error = link.frame(&foreign[..27]).unwrap_err();
    assert_eq!(error.code(), "invalid_argument");
    assert_eq!(link.waiting(), 0);
}

#[test]
fn groups_and_everybody_need_no_neighbour() {
    let pair = Pair::new();
    let mut link = open(&pair.host);
    for (source, destination, station) in [
        (Family::V4.host(), "10.0.0.255", [0xff; 6]),
        (Family::V6.host(), "ff02::1:3", [0x33, 0x33, 0, 1, 0, 3]),
    ] {
        let bytes = packet(source, destination.parse().unwrap(), b"");
        let Outcome::Frame(frame) = link.frame(&bytes).unwrap() else {
            panic!("{destination} needs no neighbour");
        };
        assert_eq!(frame.bytes[..6], station);
    }
    // A link-local destination is on the only interface of the set.
    let of = |netns: &Netns, name: &str| -> Option<Ipv6Addr> {
        let index = netns.index(name);
        netns.enter(|| {
            let all = demux_user::local_address::by_interface().unwrap();
            all.into_iter().find_map(|(address, device)| match address {
                IpAddr::V6(address) if device == index && address.is_unicast_link_local() => {
                    Some(address)
                }
                _ => None,
            })
        })
    };
    let host = common::wait::wait_for_some("a link-local address", || of(&pair.host, HOST));
    let peer = common::wait::wait_for_some("a link-local address", || of(&pair.peer, PEER));
    let server = udp(
        &pair.peer,
        SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORT),
    );
    let bytes = packet(host.into(), peer.into(), b"here");
    let (_, bytes) = frame(&mut link, &bytes);
    send(&wire(&pair.host, HOST), &bytes);
    assert_eq!(received(&server), (b"here".to_vec(), host.into()));
}
