//! Sockets of the kernel that are not found in the plainest way, all without a binding, under a default
//! of drop.

mod common;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd as _, IntoRawFd as _},
    thread,
};

use common::{
    demux::Demux,
    frames::FrameSocket,
    in_both_modes,
    inside::{ACK, Inside, Stations, key},
    netns::Netns,
    pair::{FAMILIES, Family, HOST, PEER, Pair},
    sockets::{
        ask, connect, connect_result, listen, ping, socket, start_connecting, talk, udp, udp_to,
    },
    wait::wait_for,
};
use demux_common::{
    command::{Command, Outcome},
    protocol::Protocol,
};
use ipnet::IpNet;
use netlink_packet_route::route::{RouteScope, RouteType};
use rtnetlink::RouteMessageBuilder;

in_both_modes! {
    what_a_socket_takes_is_asked_about_once
    a_connection_in_the_middle_is_learned_from_one_segment
    an_ack_that_only_a_listener_takes_is_not_learned
    a_socket_of_both_versions_takes_either
    a_socket_bound_to_the_interface_is_found
    a_group_that_shares_a_port_is_found
    syn_cookies_need_no_request_socket
    link_local_addresses_work
    an_address_that_came_later_is_left_alone_until_it_is_known
    prefixes_that_are_local_as_a_whole_are_judged
    much_data_arrives_whole_in_both_directions
    whoever_closes_first_can_be_called_again
}

fn load_drop<'n>(pair: &'n Pair, mode: &str) -> Demux<'n> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!(
        "load {HOST} --mode {mode} --default drop --max-connections 256"
    ));
    demux
}

/// How many packets were passed because of a socket, and how many because of a connection.
fn passed(demux: &Demux<'_>) -> [u64; 2] {
    ["kernel-socket", "connection"].map(|reason| demux.count("pass", reason))
}

fn what_a_socket_takes_is_asked_about_once(mode: &str) {
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    for family in FAMILIES {
        let [asked, known] = passed(&demux);
        let listener = listen(&pair.host, family.any(80));
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
        for _ in 0..5 {
            talk(&mut client, &mut server);
        }
        // Nobody answers these: what leaves cannot have made the row.
        let _silent = udp(&pair.host, family.any(53));
        let client = udp_to(&pair.peer, family.any(0), family.at_host(53));
        for _ in 0..5 {
            client.send(b"anybody?").unwrap();
        }
        // The SYN and the first datagram; then at least five segments and four datagrams.
        wait_for("the datagrams to arrive", || passed(&demux)[1] >= known + 9);
        assert_eq!(passed(&demux)[0], asked + 2);
        for row in demux.items("connections lport 80 or lport 53") {
            assert_eq!(
                (&row["direction"], &row["binding"]),
                (&"in".into(), &serde_json::Value::Null),
                "{row}"
            );
        }
    }
}

fn a_connection_in_the_middle_is_learned_from_one_segment(mode: &str) {
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    for family in FAMILIES {
        let listener = listen(&pair.host, family.any(80));
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
        talk(&mut client, &mut server);
        let key = key(
            Protocol::Tcp,
            family.at_host(80),
            client.local_addr().unwrap(),
        );
        let inside = Inside::of(&demux);
        let forgotten = inside.control.execute(&[Command::remove(key)]).unwrap();
        assert_eq!(forgotten, [Outcome::Done]);
        let [asked, known] = passed(&demux);
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        assert_eq!(passed(&demux), [asked + 1, known]);
        let row = demux.item(&format!("connections lport 80 rport {}", key.remote_port));
        assert_eq!(
            (&row["state"], &row["confirmed"]),
            (&"ESTABLISHED".into(), &true.into())
        );
        talk(&mut client, &mut server);
        let [asked_now, known_now] = passed(&demux);
        assert_eq!(asked_now, asked + 1);
        assert!(known_now > known);
    }
}

fn an_ack_that_only_a_listener_takes_is_not_learned(mode: &str) {
    const COUNT: u64 = 5;
    for egress in ["auto", "none"] {
        let pair = Pair::new();
        let demux = Demux::new(&pair.host);
        // The kernel answers with a reset. Where that is seen, it would end a row again.
        demux.ok(&format!(
            "load {HOST} --mode {mode} --egress {egress} --default drop --max-connections 256"
        ));
        let stations = Stations {
            from: pair.peer.mac(PEER),
            to: pair.host.mac(HOST),
        };
        let wire = FrameSocket::new(&pair.peer, PEER);
        for family in FAMILIES {
            let _listener = listen(&pair.host, family.any(80));
            let [asked, known] = passed(&demux);
            let forged = stations.segment(family.at_peer(4000), family.at_host(80), ACK, [7, 7]);
            for _ in 0..COUNT {
                wire.send(&forged);
            }
            wait_for("the ACKs to arrive", || {
                passed(&demux).iter().sum::<u64>() >= asked + known + COUNT
            });
            assert_eq!(passed(&demux), [asked + COUNT, known]);
            assert_eq!(demux.items("connections").len(), 0);
        }
    }
}

fn a_socket_of_both_versions_takes_either(mode: &str) {
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    let listener = listen(&pair.host, Family::V6.any(80));
    let server = udp(&pair.host, Family::V6.any(53));
    for family in FAMILIES {
        let (mut client, mut end) = connect(&pair.peer, &listener, family.at_host(80));
        talk(&mut client, &mut end);
        ask(&udp(&pair.peer, family.any(0)), &server, family.at_host(53));
    }
    assert_eq!(demux.count("drop", "no-socket"), 0);
}

fn a_socket_bound_to_the_interface_is_found(mode: &str) {
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    for family in FAMILIES {
        let listener = listen_with(&pair.host, family.any(80), |fd| {
            set_option(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, HOST.as_bytes());
        });
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
        talk(&mut client, &mut server);

        let server = udp(&pair.host, family.any(53));
        set_option(
            server.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            HOST.as_bytes(),
        );
        ask(&udp(&pair.peer, family.any(0)), &server, family.at_host(53));
    }
    assert!(demux.count("pass", "kernel-socket") > 0);
    assert_eq!(demux.count("drop", "no-socket"), 0);
}

fn a_group_that_shares_a_port_is_found(mode: &str) {
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    for family in FAMILIES {
        let group: Vec<_> = (0..3)
            .map(|_| {
                listen_with(&pair.host, family.any(80), |fd| {
                    set_option(
                        fd,
                        libc::SOL_SOCKET,
                        libc::SO_REUSEPORT,
                        &1_i32.to_ne_bytes(),
                    );
                })
            })
            .collect();
        for listener in &group {
            listener.set_nonblocking(true).unwrap();
        }
        for _ in 0..6 {
            let mut client = pair
                .peer
                .enter(|| TcpStream::connect(family.at_host(80)))
                .unwrap();
            let mut server = common::wait::wait_for_some("a member to accept", || {
                group.iter().find_map(|listener| listener.accept().ok())
            })
            .0;
            server.set_nonblocking(false).unwrap();
            talk(&mut client, &mut server);
        }
    }
    assert_eq!(demux.count("drop", "no-socket"), 0);
}

fn syn_cookies_need_no_request_socket(mode: &str) {
    let pair = Pair::new();
    // Always, and not only under attack.
    pair.host.sysctl("net/ipv4/tcp_syncookies", "2");
    let demux = load_drop(&pair, mode);
    for family in FAMILIES {
        let listener = listen(&pair.host, family.any(80));
        for _ in 0..3 {
            let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
            talk(&mut client, &mut server);
        }
    }
    assert_eq!(demux.count("drop", "no-socket"), 0);
}

fn link_local_addresses_work(mode: &str) {
    let pair = Pair::new();
    let here = link_local(&pair.host, HOST);
    let there = link_local(&pair.peer, PEER);
    let demux = load_drop(&pair, mode);
    let address = |ip, port, netns: &Netns, interface| {
        SocketAddr::V6(SocketAddrV6::new(ip, port, 0, netns.index(interface)))
    };
    let listener = listen(&pair.host, Family::V6.any(80));
    let (mut client, mut server) =
        connect(&pair.peer, &listener, address(here, 80, &pair.peer, PEER));
    talk(&mut client, &mut server);
    let listener = listen(&pair.peer, Family::V6.any(80));
    let (mut client, mut server) =
        connect(&pair.host, &listener, address(there, 80, &pair.host, HOST));
    talk(&mut client, &mut server);
    let server = udp(&pair.host, Family::V6.any(53));
    let client = udp(&pair.peer, Family::V6.any(0));
    ask(&client, &server, address(here, 53, &pair.peer, PEER));
    assert_eq!(demux.count("drop", "no-socket"), 0);
    let attempt = start_connecting(&pair.peer, address(here, 9, &pair.peer, PEER));
    wait_for("the SYN to be dropped", || {
        demux.count("drop", "no-socket") > 0
    });
    assert!(connect_result(&attempt).is_none());
}

/// The address that the kernel gave to an interface.
fn link_local(netns: &Netns, interface: &str) -> Ipv6Addr {
    let [a, b, c, d, e, f] = netns.mac(interface);
    let word = |high, low| u16::from_be_bytes([high, low]);
    let address = Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        word(a ^ 2, b),
        word(c, 0xff),
        word(0xfe, d),
        word(e, f),
    );
    wait_for("a link-local address", || {
        let host = IpNet::from(IpAddr::V6(address));
        netns.enter(|| {
            demux_user::local_address::local_prefixes()
                .unwrap()
                .contains(&host)
        })
    });
    address
}

fn an_address_that_came_later_is_left_alone_until_it_is_known(mode: &str) {
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    for (address, closed) in [("10.0.0.3/24", "10.0.0.3:9"), ("fd00::3/64", "[fd00::3]:9")] {
        pair.host.add_address(HOST, address);
        let closed: SocketAddr = closed.parse().unwrap();
        let open = SocketAddr::new(closed.ip(), 80);
        let listener = listen(&pair.host, open);
        let (mut client, mut server) = connect(&pair.peer, &listener, open);
        talk(&mut client, &mut server);

        // In doubt the kernel answers.
        let dropped = demux.count("drop", "no-socket");
        let not_local = demux.count("pass", "not-local");
        let client = udp_to(&pair.peer, any_like(closed), closed);
        client.send(b"anybody?").unwrap();
        let refusal = client.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(demux.count("drop", "no-socket"), dropped);
        assert_eq!(demux.count("pass", "not-local"), not_local + 1);
        // Every command that changes something looks at the addresses anew.
        demux.ok("set default=drop");
        client.send(b"anybody?").unwrap();
        wait_for("the datagram to be dropped", || {
            demux.count("drop", "no-socket") > dropped
        });
        talk_again(&pair, &listener, open);
    }
}

fn any_like(address: SocketAddr) -> SocketAddr {
    if address.is_ipv4() {
        Family::V4.any(0)
    } else {
        Family::V6.any(0)
    }
}

fn talk_again(pair: &Pair, listener: &TcpListener, at: SocketAddr) {
    let (mut client, mut server) = connect(&pair.peer, listener, at);
    talk(&mut client, &mut server);
}

/// Makes a prefix local, as `ip route add local PREFIX dev lo` does.
fn add_local_prefix(netns: &Netns, prefix: &str) {
    let prefix: IpNet = prefix.parse().unwrap();
    let lo = netns.index("lo");
    let (length, scope) = (prefix.prefix_len(), RouteScope::Host);
    let mut route = match prefix.addr() {
        IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, length)
            .output_interface(lo)
            .scope(scope)
            .kind(RouteType::Local)
            .build(),
        IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(address, length)
            .output_interface(lo)
            .scope(scope)
            .kind(RouteType::Local)
            .build(),
    };
    route.header.table = libc::RT_TABLE_LOCAL;
    netns.add_route(route);
}

fn prefixes_that_are_local_as_a_whole_are_judged(mode: &str) {
    let pair = Pair::new();
    pair.peer.add_default_route("10.0.0.2");
    pair.peer.add_default_route("fd00::2");
    // IPv6 lets nobody bind such an address unasked.
    pair.host.sysctl("net/ipv6/ip_nonlocal_bind", "1");
    let cases = [
        (Family::V4, "192.0.2.0/24", "192.0.2.77"),
        (Family::V6, "2001:db8:77::/64", "2001:db8:77::77"),
    ];
    add_local_prefix(&pair.host, cases[0].1);
    let demux = load_drop(&pair, mode);
    for (family, prefix, address) in cases {
        if family == Family::V6 {
            // This one comes while nobody looks: until a command does, the kernel decides.
            add_local_prefix(&pair.host, prefix);
            let at = SocketAddr::new(address.parse().unwrap(), 9);
            let client = udp_to(&pair.peer, family.any(0), at);
            client.send(b"anybody?").unwrap();
            let refusal = client.recv(&mut [0; 8]).unwrap_err();
            assert_eq!(refusal.kind(), ErrorKind::ConnectionRefused);
            demux.ok("set default=drop");
        }
        let at = |port| SocketAddr::new(address.parse().unwrap(), port);
        let dropped = demux.count("drop", "no-socket");
        let listener = listen(&pair.host, family.any(80));
        talk_again(&pair, &listener, at(80));
        let listener = listen(&pair.host, at(81));
        talk_again(&pair, &listener, at(81));
        let server = udp(&pair.host, at(53));
        ask(&udp(&pair.peer, family.any(0)), &server, at(53));
        assert_eq!(demux.count("drop", "no-socket"), dropped);
        let attempt = start_connecting(&pair.peer, at(9));
        wait_for("the SYN to be dropped", || {
            demux.count("drop", "no-socket") > dropped
        });
        assert!(connect_result(&attempt).is_none());
    }
}

fn much_data_arrives_whole_in_both_directions(mode: &str) {
    const CHUNKS: u32 = 64;
    const CHUNK: usize = 64 * 1024;
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    demux.ok("bind tcp 10.0.0.2:* --name bulk");
    for family in FAMILIES {
        let listener = listen(&pair.host, family.any(80));
        let ends = connect(&pair.peer, &listener, family.at_host(80));
        thread::scope(|scope| {
            for (mut from, mut to) in [
                (ends.0.try_clone().unwrap(), ends.1.try_clone().unwrap()),
                (ends.1.try_clone().unwrap(), ends.0.try_clone().unwrap()),
            ] {
                scope.spawn(move || {
                    for number in 0..CHUNKS {
                        from.write_all(&vec![number as u8; CHUNK]).expect("sending");
                    }
                });
                scope.spawn(move || {
                    let mut chunk = vec![0; CHUNK];
                    for number in 0..CHUNKS {
                        to.read_exact(&mut chunk).expect("receiving");
                        assert!(chunk.iter().all(|&byte| byte == number as u8));
                    }
                });
            }
        });
    }
    assert_eq!(demux.count("drop", "no-socket"), 0);
    let binding = demux.item("bindings");
    let sent = u64::from(CHUNKS) * CHUNK as u64;
    assert!(binding["bytes"].as_u64().unwrap() > sent, "{binding}");
}

fn whoever_closes_first_can_be_called_again(mode: &str) {
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    for family in FAMILIES {
        let listener = listen(&pair.host, family.any(80));
        // From one port, so that each connection meets what the last one left.
        let call = || {
            let client = socket_at(&pair.peer, family.at_peer(40_000), family.at_host(80));
            let (server, _) = listener.accept().unwrap();
            (client, server)
        };
        for round in 0..6 {
            let (mut client, mut server) = call();
            talk(&mut client, &mut server);
            let (mut first, mut second) = if round % 2 == 0 {
                (server, client)
            } else {
                (client, server)
            };
            if round < 4 {
                first.shutdown(std::net::Shutdown::Write).unwrap();
                assert_eq!(second.read(&mut [0; 1]).unwrap(), 0);
                drop(second);
                assert_eq!(first.read(&mut [0; 1]).unwrap(), 0);
            } else {
                // With a RST, which leaves nothing behind.
                let linger = [1_i32.to_ne_bytes(), 0_i32.to_ne_bytes()].concat();
                set_option(
                    first.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_LINGER,
                    &linger,
                );
                drop(first);
                second.read(&mut [0; 1]).unwrap_err();
            }
        }
    }
    ping(&pair.peer, Family::V4.host());
    assert_eq!(demux.count("drop", "no-socket"), 0);
}

/// A connection from a port of one's own choice.
fn socket_at(netns: &Netns, from: SocketAddr, to: SocketAddr) -> TcpStream {
    let domain = if from.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let fd = netns.enter(|| socket(domain, libc::SOCK_STREAM, 0));
    set_option(
        fd.as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_REUSEADDR,
        &1_i32.to_ne_bytes(),
    );
    common::sockets::bind(&fd, from);
    common::sockets::connect_to(&fd, to);
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    stream
}

/// A listener with something set before it is bound.
fn listen_with(netns: &Netns, address: SocketAddr, prepare: impl FnOnce(i32)) -> TcpListener {
    let domain = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let fd = netns.enter(|| socket(domain, libc::SOCK_STREAM, 0));
    set_option(
        fd.as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_REUSEADDR,
        &1_i32.to_ne_bytes(),
    );
    prepare(fd.as_raw_fd());
    common::sockets::bind(&fd, address);
    // SAFETY: the call takes no addresses.
    assert_eq!(unsafe { libc::listen(fd.as_raw_fd(), 16) }, 0);
    // SAFETY: the descriptor is a listener, and nobody else's.
    unsafe { TcpListener::from_raw_fd(fd.into_raw_fd()) }
}

fn set_option(fd: i32, level: i32, option: i32, value: &[u8]) {
    // SAFETY: the value is as long as told.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
