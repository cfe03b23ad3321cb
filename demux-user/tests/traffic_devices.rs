//! Interfaces whose packets are not all this host's own: ports of a bridge, interfaces with macvlans
//! above them, and those that hear what is for other stations. Under a default of drop, what belongs to
//! somebody else passes, and what is for this host's own sockets works.
//!
//! Such a default is refused where another device takes packets from the interface, because a socket
//! that is bound to that device is not found from the interface; here it is insisted on.

mod common;

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
};

use common::{
    demux::Demux,
    frames::FrameSocket,
    in_both_modes,
    inside::{ACK, SYN, Stations},
    netns::Netns,
    pair::{FAMILIES, Family, HOST, PEER, Pair, quick_netns},
    sockets::{
        ask, connect, connect_result, listen, ping, socket, start_connecting, talk, udp, udp_to,
    },
    wait::wait_for,
};
use netlink_packet_route::link::MacVlanMode;
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use rtnetlink::{LinkBridge, LinkMacVlan};

in_both_modes! {
    a_bridge_with_an_address_of_its_own
    a_bridge_with_the_address_of_its_port
    a_socket_bound_to_the_bridge_is_found_from_the_bridge_alone
    macvlans_here_and_elsewhere
    a_macvlan_that_takes_everything_elsewhere
    frames_for_other_stations_pass
}

/// Three hosts: the one that demux is loaded on, its peer, and a guest behind the same cable.
struct Guests {
    pair: Pair,
    guest: Netns,
}

/// The address of the guest.
fn guest(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 0, 0, 3].into(),
        Family::V6 => [0xfd00, 0, 0, 0, 0, 0, 0, 3].into(),
    }
}

fn with_bits(address: IpAddr) -> String {
    let bits = if address.is_ipv4() { 24 } else { 64 };
    format!("{address}/{bits}")
}

/// The hosts with a cable between them, and no address on this end of it.
fn without_addresses() -> Pair {
    let pair = Pair {
        host: quick_netns(),
        peer: quick_netns(),
    };
    pair.host.veth(HOST, &pair.peer, PEER);
    for family in FAMILIES {
        pair.peer.add_address(PEER, &with_bits(family.peer()));
    }
    pair
}

const BRIDGE: &str = "br0";

impl Guests {
    /// The host's end of the cable and the guest's are ports of a bridge, which has the host's
    /// addresses and, if told so, the station of its port.
    fn bridged(has_station_of_port: bool) -> Self {
        let pair = without_addresses();
        let guest_netns = quick_netns();
        let Pair { host, .. } = &pair;
        host.veth("port1", &guest_netns, "guest0");
        host.add_link(LinkBridge::new(BRIDGE).build());
        for port in [HOST, "port1"] {
            host.set_master(port, BRIDGE);
        }
        let station = if has_station_of_port {
            host.mac(HOST)
        } else {
            [2, 0, 0, 0, 0, 0xbb]
        };
        host.set_link(host.link(BRIDGE).address(station.to_vec()).up().build());
        for family in FAMILIES {
            host.add_address(BRIDGE, &with_bits(family.host()));
            guest_netns.add_address("guest0", &with_bits(guest(family)));
        }
        Self {
            pair,
            guest: guest_netns,
        }
    }

    /// Loads the host's end of the cable, which is refused at first.
    fn load<'n>(&'n self, mode: &str, risk: &str) -> Demux<'n> {
        load_at_risk(&self.pair.host, mode, risk)
    }

    /// Whatever peer and guest have to say to each other is said.
    #[track_caller]
    fn assert_guest_is_reached(&self) {
        let Self { pair, guest: netns } = self;
        for family in FAMILIES {
            assert_reached(&pair.peer, netns, guest(family));
            assert_reached(netns, &pair.peer, family.peer());
            // Nobody listens, and the guest itself says so.
            assert_refused(&pair.peer, SocketAddr::new(guest(family), 9));
        }
    }

    /// The host's own sockets are reached from outside, and from its guest.
    #[track_caller]
    fn assert_host_is_reached(&self) {
        let Self { pair, guest } = self;
        for family in FAMILIES {
            for other in [&pair.peer, guest] {
                assert_reached(other, &pair.host, family.host());
            }
            assert_reached(&pair.host, &pair.peer, family.peer());
            assert_reached(&pair.host, guest, self::guest(family));
        }
    }
}

/// Loads an interface whose packets another device takes: `risk` is named, and not taken unasked.
fn load_at_risk<'n>(host: &'n Netns, mode: &str, risk: &str) -> Demux<'n> {
    let demux = Demux::new(host);
    let line = format!("load {HOST} --mode {mode} --default drop --max-connections 256");
    demux.refused(&line, 5, "unsafe_default").says(&[risk]);
    let check = demux.run(&format!("{line} --check"));
    assert_eq!(check.status, 7, "{check}");
    assert!(check.stdout.contains(risk), "{check}");
    demux.ok(&format!("{line} --force"));
    demux
}

/// TCP, UDP and echo requests from `client` to `address`, which `server` has.
#[track_caller]
fn assert_reached(client: &Netns, server: &Netns, address: IpAddr) {
    let family = match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    };
    ping(client, address);
    let listener = listen(server, family.any(80));
    let (mut ours, mut theirs) = connect(client, &listener, SocketAddr::new(address, 80));
    talk(&mut ours, &mut theirs);
    let answering = udp(server, SocketAddr::new(address, 53));
    let asking = udp(client, family.any(0));
    for _ in 0..2 {
        ask(&asking, &answering, SocketAddr::new(address, 53));
    }
}

/// An attempt to connect, and a datagram, are refused at once by whoever has the address.
#[track_caller]
fn assert_refused(client: &Netns, at: SocketAddr) {
    let error = client.enter(|| TcpStream::connect(at)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{at}");
    let from = if at.is_ipv4() { Family::V4 } else { Family::V6 };
    let socket = udp_to(client, from.any(0), at);
    socket.send(b"anybody?").unwrap();
    let error = socket.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{at}");
}

/// A port of this host that nobody listens on is silent: the default applies.
#[track_caller]
fn assert_dropped(demux: &Demux<'_>, client: &Netns, at: SocketAddr) {
    let before = demux.count("drop", "no-socket");
    let attempt = start_connecting(client, at);
    wait_for("the SYN to be dropped", || {
        demux.count("drop", "no-socket") > before
    });
    assert!(connect_result(&attempt).is_none(), "somebody has answered");
}

fn a_bridge_with_an_address_of_its_own(mode: &str) {
    let guests = Guests::bridged(false);
    let demux = guests.load(mode, "host0 belongs to the bridge br0");
    guests.assert_guest_is_reached();
    guests.assert_host_is_reached();
    // Even what is for the host is for another station than the port's: the default judges nothing.
    assert_refused(&guests.pair.peer, Family::V4.at_host(9));
    assert!(demux.count("pass", "other-host") > 0);
    assert_eq!(demux.count("drop", "no-socket"), 0);
}

fn a_bridge_with_the_address_of_its_port(mode: &str) {
    let guests = Guests::bridged(true);
    let demux = guests.load(mode, "host0 belongs to the bridge br0");
    guests.assert_guest_is_reached();
    guests.assert_host_is_reached();
    assert_eq!(demux.count("drop", "no-socket"), 0);
    assert!(demux.count("pass", "kernel-socket") > 0);
    for family in FAMILIES {
        assert_dropped(&demux, &guests.pair.peer, family.at_host(9));
        // From the guest it does not come by this port.
        assert_refused(&guests.guest, family.at_host(9));
    }
    guests.assert_guest_is_reached();
}

fn a_socket_bound_to_the_bridge_is_found_from_the_bridge_alone(mode: &str) {
    let guests = Guests::bridged(true);
    let Pair { host, peer } = &guests.pair;
    let at = Family::V4.at_host(8080);
    let listener = listen(host, Family::V4.any(8080));
    setsockopt(&listener, BindToDevice, &BRIDGE.into()).unwrap();
    let responder = udp(host, Family::V4.any(5353));
    setsockopt(&responder, BindToDevice, &BRIDGE.into()).unwrap();

    let demux = guests.load(mode, "the tcp socket 0.0.0.0:8080 is bound to br0");
    let check = demux.run(&format!("load {HOST} --check --default drop"));
    let risk = "the udp socket 0.0.0.0:5353 is bound to br0";
    assert!(check.stdout.contains(risk), "{check}");
    assert_dropped(&demux, peer, at);
    // A binding lets in what is for it, whoever takes it then.
    demux.ok("bind tcp :8080");
    demux.ok("bind udp :5353");
    let reach = || {
        let (mut client, mut server) = connect(peer, &listener, at);
        talk(&mut client, &mut server);
        let client = udp(peer, Family::V4.any(0));
        ask(&client, &responder, Family::V4.at_host(5353));
    };
    reach();
    demux.ok("unload --all");

    // The bridge itself has no driver, and nothing above it.
    demux.ok(&format!(
        "load {BRIDGE} --default drop --max-connections 256"
    ));
    reach();
    guests.assert_guest_is_reached();
    assert!(demux.count("pass", "kernel-socket") > 0);
    assert_dropped(&demux, peer, Family::V4.at_host(9));
    assert_dropped(&demux, &guests.guest, Family::V4.at_host(9));
}

/// Where the macvlan of this host itself is.
const OWN_MACVLAN: [u8; 4] = [10, 0, 0, 4];

fn macvlans_here_and_elsewhere(mode: &str) {
    let pair = Pair::new();
    let guest_netns = quick_netns();
    let host = &pair.host;
    // Each interface answers for its own address alone, and speaks of no other.
    host.sysctl("net/ipv4/conf/all/arp_ignore", "1");
    host.sysctl("net/ipv4/conf/all/arp_announce", "2");
    for name in ["mac0", "mac1"] {
        host.add_link(LinkMacVlan::new(name, host.index(HOST), MacVlanMode::Bridge).build());
    }
    host.move_to("mac1", &guest_netns);
    host.set_up("mac0");
    guest_netns.set_up("mac1");
    host.add_address("mac0", &with_bits(OWN_MACVLAN.into()));
    for family in FAMILIES {
        guest_netns.add_address("mac1", &with_bits(guest(family)));
    }
    let guests = Guests {
        pair,
        guest: guest_netns,
    };
    let Pair { host, peer } = &guests.pair;
    let bound = listen(host, Family::V4.any(8080));
    setsockopt(&bound, BindToDevice, &"mac0".into()).unwrap();
    let demux = guests.load(mode, "the macvlan mac0 takes packets from host0");

    guests.assert_guest_is_reached();
    assert_reached(peer, host, OWN_MACVLAN.into());
    let (mut client, mut server) = connect(peer, &bound, (OWN_MACVLAN, 8080).into());
    talk(&mut client, &mut server);
    assert_refused(peer, (OWN_MACVLAN, 9).into());
    for family in FAMILIES {
        assert_reached(peer, host, family.host());
    }
    assert!(demux.count("pass", "other-host") > 0);
    assert_eq!(demux.count("drop", "no-socket"), 0);
    assert_dropped(&demux, peer, Family::V4.at_host(9));
}

/// As with ipvlan, the packets of the guest are for the station of this host's interface.
fn a_macvlan_that_takes_everything_elsewhere(mode: &str) {
    let pair = without_addresses();
    let guest_netns = quick_netns();
    let host = &pair.host;
    let mode_of_link = MacVlanMode::Passthrough;
    host.add_link(LinkMacVlan::new("mac0", host.index(HOST), mode_of_link).build());
    host.move_to("mac0", &guest_netns);
    guest_netns.set_up("mac0");
    for family in FAMILIES {
        guest_netns.add_address("mac0", &with_bits(guest(family)));
    }
    assert_eq!(host.mac(HOST), guest_netns.mac("mac0"));
    let guests = Guests {
        pair,
        guest: guest_netns,
    };
    let demux = Demux::new(&guests.pair.host);
    demux.ok(&format!(
        "load {HOST} --mode {mode} --default drop --force --max-connections 256"
    ));
    guests.assert_guest_is_reached();
    assert!(demux.count("pass", "not-local") > 0);
    assert_eq!(demux.count("pass", "other-host"), 0);
    assert_eq!(demux.count("drop", "no-socket"), 0);
}

/// As when somebody captures what goes over a shared cable.
fn frames_for_other_stations_pass(mode: &str) {
    let pair = Pair::new();
    let Pair { host, peer } = &pair;
    host.set_link(host.link(HOST).promiscuous(true).build());
    let demux = Demux::new(host);
    demux.ok(&format!(
        "load {HOST} --mode {mode} --default drop --max-connections 256"
    ));
    let capture = Capture::new(host, HOST);
    let wire = FrameSocket::new(peer, PEER);
    let others = Stations {
        from: peer.mac(PEER),
        to: [2, 0, 0, 0, 0, 0x99],
    };
    let mut count = 0;
    for family in FAMILIES {
        // Closed ports of this host's own address, too: they are not asked of this station.
        for (from, to) in [
            (family.at_peer(4000), family.at_host(9)),
            (family.at_peer(4000), SocketAddr::new(guest(family), 9)),
        ] {
            for frame in [
                others.segment(from, to, SYN, [1, 0]),
                others.segment(from, to, ACK, [1, 1]),
                others.datagram(from, to, b"not for you"),
            ] {
                wire.send(&frame);
                capture.wait_for(&frame);
                count += 1;
            }
        }
    }
    assert_eq!(demux.count("pass", "other-host"), count);
    assert_eq!(demux.count("drop", "no-socket"), 0);
    assert_eq!(demux.items("connections").len(), 0);
    for family in FAMILIES {
        assert_reached(peer, host, family.host());
        assert_dropped(&demux, peer, family.at_host(9));
    }
}

/// A socket that gets every frame of an interface.
struct Capture(UdpSocket);

impl Capture {
    fn new(netns: &Netns, interface: &str) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let fd: OwnedFd =
            netns.enter(|| socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol)));
        // SAFETY: the structure holds only integers and arrays of them, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = netns.index(interface) as i32;
        // SAFETY: the address is as long as told.
        let result = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        // The calls of UDP sockets are those of others.
        let socket = UdpSocket::from(fd);
        socket
            .set_read_timeout(Some(std::time::Duration::from_secs(20)))
            .unwrap();
        Self(socket)
    }

    /// Waits until this frame has been seen.
    #[track_caller]
    fn wait_for(&self, frame: &[u8]) {
        let mut buffer = [0; 2048];
        loop {
            let length = self.0.recv(&mut buffer).expect("the frame");
            if buffer[..length].starts_with(frame) {
                return;
            }
        }
    }
}

#[test]
fn a_macvlan_can_be_loaded_itself() {
    let pair = without_addresses();
    let Pair { host, peer } = &pair;
    host.add_link(LinkMacVlan::new("mac0", host.index(HOST), MacVlanMode::Bridge).build());
    host.set_up("mac0");
    for family in FAMILIES {
        host.add_address("mac0", &with_bits(family.host()));
    }
    let demux = Demux::new(host);
    demux.ok("load mac0 --default drop --max-connections 256");
    for family in FAMILIES {
        assert_reached(peer, host, family.host());
        assert_reached(host, peer, family.peer());
        assert_dropped(&demux, peer, family.at_host(9));
    }
    let bound = listen(host, Family::V4.any(8080));
    setsockopt(&bound, BindToDevice, &"mac0".into()).unwrap();
    let (mut client, mut server) = connect(peer, &bound, Family::V4.at_host(8080));
    talk(&mut client, &mut server);
}
