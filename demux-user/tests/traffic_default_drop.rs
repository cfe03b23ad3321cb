//! What survives a default of drop without any binding, which must be everything that somebody wants;
//! and what does not.

mod common;

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
};

use common::{
    demux::Demux,
    frames::FrameSocket,
    in_both_modes,
    inside::Stations,
    pair::{FAMILIES, Family, HOST, PEER, Pair, quick_netns},
    sockets::{ask, connect, connect_result, listen, ping, start_connecting, talk, udp, udp_to},
    wait::wait_for,
};

in_both_modes! {
    open_connections_and_new_ones_of_both_sides_go_on
    questions_are_answered
    hosts_find_and_ping_each_other
    groups_and_everybody_are_reached
    an_address_is_asked_for_and_given
    datagrams_in_fragments_arrive
    a_closed_tcp_port_is_silent_and_counted
    a_closed_udp_port_is_silent_and_counted
    without_the_kernels_sockets_only_bindings_count
}

/// The two hosts, and a connection from each to the other in either version of IP, opened before
/// anything is loaded.
fn with_connections(pair: &Pair) -> Vec<(TcpStream, TcpStream)> {
    let mut connections = Vec::new();
    for family in FAMILIES {
        let here = listen(&pair.host, family.any(22));
        connections.push(connect(&pair.peer, &here, family.at_host(22)));
        let there = listen(&pair.peer, family.any(443));
        connections.push(connect(&pair.host, &there, family.at_peer(443)));
    }
    connections
}

fn load_drop<'n>(pair: &'n Pair, mode: &str) -> Demux<'n> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!(
        "load {HOST} --mode {mode} --default drop --max-connections 256"
    ));
    demux
}

fn open_connections_and_new_ones_of_both_sides_go_on(mode: &str) {
    let pair = Pair::new();
    let mut old = with_connections(&pair);
    let demux = load_drop(&pair, mode);
    for (client, server) in &mut old {
        talk(client, server);
        talk(server, client);
    }
    for family in FAMILIES {
        // A listener that was there, one that comes, and one far away.
        for (from, to, at) in [
            (&pair.peer, &pair.host, family.at_host(8080)),
            (&pair.host, &pair.peer, family.at_peer(8080)),
        ] {
            let listener = listen(to, at);
            let (mut client, mut server) = connect(from, &listener, at);
            talk(&mut client, &mut server);
        }
    }
    // Those from before are still there, and know nothing of it.
    for (client, server) in &mut old {
        talk(client, server);
        assert!(client.take_error().unwrap().is_none());
        assert!(server.take_error().unwrap().is_none());
    }
    assert_eq!(demux.count("drop", "no-socket"), 0);
    assert!(demux.count("pass", "kernel-socket") > 0);
    assert!(demux.count("pass", "connection") > 0);
}

fn questions_are_answered(mode: &str) {
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    for family in FAMILIES {
        let far = udp(&pair.peer, family.at_peer(53));
        let near = udp(&pair.host, family.any(53));
        for _ in 0..3 {
            // A resolver that asks from a new port each time, and one that connects its socket.
            let resolver = udp(&pair.host, family.any(0));
            ask(&resolver, &far, family.at_peer(53));
            let resolver = udp_to(&pair.host, family.any(0), family.at_peer(53));
            resolver.send(b"question").unwrap();
            let (length, from) = far.recv_from(&mut [0; 64]).unwrap();
            far.send_to(b"answer", from).unwrap();
            assert_eq!((length, resolver.recv(&mut [0; 64]).unwrap()), (8, 6));

            let client = udp(&pair.peer, family.any(0));
            ask(&client, &near, family.at_host(53));
        }
    }
    assert_eq!(demux.count("drop", "no-socket"), 0);
}

fn hosts_find_and_ping_each_other(mode: &str) {
    let pair = Pair::new();
    // Nobody has spoken yet: the neighbours must still be found, through the program.
    let demux = load_drop(&pair, mode);
    for family in FAMILIES {
        ping(&pair.peer, family.host());
        ping(&pair.host, family.peer());
    }
    assert!(demux.count("pass", "not-ip") > 0, "ARP");
    assert!(demux.count("pass", "other-protocol") > 0, "ICMP");
}

fn groups_and_everybody_are_reached(mode: &str) {
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    // A binding to drop is for packets to this host, and not for those to a group. One of a single
    // port would leave it to no socket.
    demux.ok("bind udp :5000-5001 --to drop");
    let index = pair.host.index(HOST);
    let mut word = [0; 16];

    let everybody = udp(&pair.host, Family::V4.any(5000));
    let sender = udp(&pair.peer, Family::V4.at_peer(0));
    sender.set_broadcast(true).unwrap();
    for to in ["10.0.0.255:5000", "255.255.255.255:5000"] {
        send_on(&sender, PEER, to);
        assert_eq!(everybody.recv(&mut word).unwrap(), 5, "{to}");
    }

    let group = udp(&pair.host, Family::V4.any(5001));
    pair.host
        .enter(|| {
            group.join_multicast_v4(&"239.1.2.3".parse().unwrap(), &"10.0.0.2".parse().unwrap())
        })
        .unwrap();
    send_on(&sender, PEER, "239.1.2.3:5001");
    assert_eq!(group.recv(&mut word).unwrap(), 5);

    let group = udp(&pair.host, Family::V6.any(5002));
    pair.host
        .enter(|| group.join_multicast_v6(&"ff15::1:2:3".parse().unwrap(), index))
        .unwrap();
    let sender = udp(&pair.peer, Family::V6.at_peer(0));
    send_on(&sender, PEER, "[ff15::1:2:3]:5002");
    assert_eq!(group.recv(&mut word).unwrap(), 5);

    assert_eq!(demux.count("pass", "broadcast"), 2);
    assert!(demux.count("pass", "multicast") >= 2);
    assert_eq!(demux.count("drop", "bound"), 0);
}

/// As with DHCP: the host has no address yet, asks everybody, and the answer goes to everybody or, past
/// the tables of neighbours, to the address that it offers.
fn an_address_is_asked_for_and_given(mode: &str) {
    let pair = Pair {
        host: quick_netns(),
        peer: quick_netns(),
    };
    pair.host.veth(HOST, &pair.peer, PEER);
    pair.peer.add_address(PEER, "10.0.0.1/24");
    let demux = load_drop(&pair, mode);
    let client = udp(&pair.host, Family::V4.any(68));
    client.set_broadcast(true).unwrap();
    let server = udp(&pair.peer, Family::V4.any(67));
    server.set_broadcast(true).unwrap();

    send_on(&client, HOST, "255.255.255.255:67");
    let mut word = [0; 16];
    let (length, from) = server.recv_from(&mut word).unwrap();
    assert_eq!((length, from), (5, "0.0.0.0:68".parse().unwrap()));
    send_on(&server, PEER, "255.255.255.255:68");
    assert_eq!(client.recv(&mut word).unwrap(), 5);
    let passed = demux.count("pass", "not-local");
    let offer = Stations {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    };
    let (from, to) = (Family::V4.at_peer(67), Family::V4.at_host(68));
    FrameSocket::new(&pair.peer, PEER).send(&offer.datagram(from, to, b"offer"));
    wait_for("the offer to be passed", || {
        demux.count("pass", "not-local") > passed
    });

    // No command has been told of the address: until one is, demux leaves it alone.
    pair.host.add_address(HOST, "10.0.0.2/24");
    for is_known in [false, true] {
        ping(&pair.peer, Family::V4.host());
        let listener = listen(&pair.host, Family::V4.any(80));
        let (mut ours, mut theirs) = connect(&pair.peer, &listener, Family::V4.at_host(80));
        talk(&mut ours, &mut theirs);
        let asked = demux.count("pass", "kernel-socket");
        assert_eq!(asked > 0, is_known);
        demux.ok("set default=drop");
    }
    assert_eq!(demux.count("drop", "no-socket"), 0);
}

/// Sends a word on an interface, whatever the routes say.
fn send_on(socket: &UdpSocket, interface: &str, to: &str) {
    let to: SocketAddr = to.parse().unwrap();
    // SAFETY: the option's value is as long as told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            interface.as_ptr().cast(),
            interface.len() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    socket.send_to(b"hello", to).expect("sending");
}

fn datagrams_in_fragments_arrive(mode: &str) {
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    for family in FAMILIES {
        let server = udp(&pair.host, family.at_host(6000));
        let client = udp(&pair.peer, family.at_peer(0));
        let datagram: Vec<u8> = (0..9000_u32).map(|number| number as u8).collect();
        client.send_to(&datagram, family.at_host(6000)).unwrap();
        let mut buffer = vec![0; 16_384];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], datagram);
        // And back, to a socket that the default must not hide.
        server.send_to(&datagram, from).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), datagram.len());
    }
    // 9000 bytes are seven fragments of 1500.
    assert_eq!(demux.count("pass", "fragment"), 14);
}

fn a_closed_tcp_port_is_silent_and_counted(mode: &str) {
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    for (number, family) in (1..).zip(FAMILIES) {
        let attempt = start_connecting(&pair.peer, family.at_host(9));
        wait_for("the SYN to be dropped", || {
            demux.count("drop", "no-socket") >= number
        });
        // Packets keep their order: an answer would have been here before the reply.
        ping(&pair.peer, family.host());
        assert!(connect_result(&attempt).is_none(), "somebody has answered");
        drop(attempt);
    }
    let dropped = demux.count("drop", "no-socket");
    demux.ok("set default=pass");
    for family in FAMILIES {
        let attempt = start_connecting(&pair.peer, family.at_host(9));
        wait_for("the refusal", || connect_result(&attempt).is_some());
        let error = connect_result(&attempt).unwrap().err();
        // Reading the error takes it away.
        assert!(error.is_none_or(|error| error.kind() == ErrorKind::ConnectionRefused));
    }
    assert_eq!(demux.count("drop", "no-socket"), dropped);
}

fn a_closed_udp_port_is_silent_and_counted(mode: &str) {
    let pair = Pair::new();
    let demux = load_drop(&pair, mode);
    for (number, family) in (1..).zip(FAMILIES) {
        let client = udp_to(&pair.peer, family.any(0), family.at_host(9));
        client.send(b"anybody?").unwrap();
        wait_for("the datagram to be dropped", || {
            demux.count("drop", "no-socket") == number
        });
        ping(&pair.peer, family.host());
        assert!(client.take_error().unwrap().is_none(), "ICMP came back");
    }
    demux.ok(&format!("set default@{HOST}=pass"));
    for family in FAMILIES {
        let client = udp_to(&pair.peer, family.any(0), family.at_host(9));
        client.send(b"anybody?").unwrap();
        let error = client.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    assert_eq!(demux.count("drop", "no-socket"), 2);
}

fn without_the_kernels_sockets_only_bindings_count(mode: &str) {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!(
        "load {HOST} --mode {mode} --no-kernel-sockets --default drop --max-connections 256"
    ));
    for family in FAMILIES {
        let dropped = demux.count("drop", "unbound");
        let listener = listen(&pair.host, family.any(80));
        let attempt = start_connecting(&pair.peer, family.at_host(80));
        wait_for("the SYN to be dropped", || {
            demux.count("drop", "unbound") > dropped
        });
        assert!(connect_result(&attempt).is_none());
        drop(attempt);

        demux.ok("bind tcp :80 --name web");
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
        talk(&mut client, &mut server);
        demux.ok("unbind web");
    }
    assert_eq!(demux.count("pass", "kernel-socket"), 0);
    demux.ok("set kernel-sockets=on");
    for family in FAMILIES {
        let listener = listen(&pair.host, family.any(81));
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(81));
        talk(&mut client, &mut server);
    }
    assert!(demux.count("pass", "kernel-socket") > 0);
}
