//! `demux kill`: connections end, exactly those that were meant, and their rows go.

mod common;

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
};

use common::{
    bpf::{GENERIC, attach_xdp, xdp_program},
    demux::Demux,
    frames::FrameSocket,
    inside::{Inside, SYN, Stations, XDP_DROP, key},
    netns::Netns,
    pair::{FAMILIES, Family, HOST, PEER, Pair},
    privileges::{CAP_NET_ADMIN, CAP_NET_RAW, PublicBinary, without_capability},
    sockets::{
        ask, bind, connect, connect_result, connect_to, is_silent, listen, socket,
        start_connecting, talk, udp, udp_to,
    },
    user::NOBODY,
    wait::wait_for,
};
use demux_common::{
    command::Command as TableCommand, connection::State, protocol::Protocol, table::Flags,
};
use demux_user::{
    local_address,
    sockets::{
        self, SocketState, States,
        destroy::{Destroyed, Destroyer},
    },
};
use nix::sys::socket::{setsockopt, sockopt::ReusePort};
use rtnetlink::RouteMessageBuilder;
use serde_json::{Value, json};

fn loaded(pair: &Pair) -> Demux<'_> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 1024"));
    demux
}

/// What reading from a connection ends with.
fn end_of(stream: &mut TcpStream) -> ErrorKind {
    match stream.read(&mut [0; 16]) {
        Ok(0) => ErrorKind::UnexpectedEof,
        Ok(count) => panic!("{count} bytes came"),
        Err(error) => error.kind(),
    }
}

/// A connection of the host's listener, over which was talked.
fn talked(from: &Netns, listener: &TcpListener, at: SocketAddr) -> (TcpStream, TcpStream) {
    let mut ends = connect(from, listener, at);
    talk(&mut ends.0, &mut ends.1);
    ends
}

/// Closes a socket without a word to the other side, as a crash of its owner's machine would.
fn vanish(stream: TcpStream) {
    let on: libc::c_int = 1;
    // SAFETY: the value outlives the call and the size is its size.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_REPAIR,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    drop(stream);
}

/// How many TCP sockets of a namespace are in these states.
fn count(netns: &Netns, states: &[SocketState]) -> usize {
    netns.enter(|| {
        sockets::all(Protocol::Tcp, States::of(states))
            .unwrap()
            .len()
    })
}

/// What was done, in the order of the output.
fn actions(items: &[Value]) -> Vec<&str> {
    items
        .iter()
        .map(|item| {
            assert_eq!(item["error"], Value::Null, "{item}");
            item["action"].as_str().unwrap()
        })
        .collect()
}

#[test]
fn both_sides_learn_that_their_connection_has_ended() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let Pair { host, peer } = &pair;
    let dual = listen(host, Family::V6.any(80));
    for family in FAMILIES {
        let (mut client, mut server) = talked(peer, &dual, family.at_host(80));
        let item = demux.item("kill lport 80");
        assert_eq!(
            item,
            json!({
                "protocol": "tcp",
                "local": family.at_host(80).to_string(),
                "remote": client.local_addr().unwrap().to_string(),
                "state": "ESTABLISHED",
                "action": "destroyed",
                "reason": null,
                "dry_run": false,
                "error": null,
            })
        );
        assert_eq!(end_of(&mut server), ErrorKind::ConnectionAborted);
        assert_eq!(end_of(&mut client), ErrorKind::ConnectionReset);
        assert_eq!(demux.items("connections"), [0; 0]);

        // As from the other side, of a connection that the host has opened.
        let listener = listen(peer, family.at_peer(443));
        let (mut client, mut server) = talked(host, &listener, family.at_peer(443));
        let run = demux.ok(&format!("kill remote {}", family.peer()));
        assert!(run.stdout.contains("destroyed"), "{run}");
        assert_eq!(run.stderr, "1 ended, 0 only forgotten\n", "{run}");
        assert_eq!(end_of(&mut client), ErrorKind::ConnectionAborted);
        assert_eq!(end_of(&mut server), ErrorKind::ConnectionReset);
        assert_eq!(demux.items("connections"), [0; 0]);
    }
    // The listener is there as before.
    talked(peer, &dual, Family::V4.at_host(80));
}

#[test]
fn exactly_those_end_that_the_filter_matches() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let Pair { host, peer } = &pair;
    let mut ends = Vec::new();
    let mut listeners = Vec::new();
    for family in FAMILIES {
        for port in [80, 81, 82] {
            let listener = listen(host, family.at_host(port));
            for _ in 0..5 {
                ends.push((port, talked(peer, &listener, family.at_host(port))));
            }
            listeners.push(listener);
        }
    }
    let one = ends[7].1.0.local_addr().unwrap();
    let filter = format!(
        "( lport 80 and remote [fd00::/16] ) or ( lport 82 and local 10.0.0.2 ) or remote {one}"
    );
    let items = demux.items(&format!("kill {filter}"));
    assert_eq!(actions(&items), ["destroyed"; 11]);

    let named: BTreeSet<String> = items
        .iter()
        .map(|item| item["remote"].as_str().unwrap().to_owned())
        .collect();
    let mut expected = BTreeSet::new();
    let mut alive = 0;
    for (port, (client, server)) in &mut ends {
        let remote = client.local_addr().unwrap();
        let is_meant = match port {
            80 => remote.is_ipv6(),
            82 => remote.is_ipv4(),
            _ => remote == one,
        };
        if is_meant {
            expected.insert(remote.to_string());
            assert_eq!(end_of(client), ErrorKind::ConnectionReset, "{remote}");
            assert_eq!(end_of(server), ErrorKind::ConnectionAborted, "{remote}");
        } else {
            talk(client, server);
            alive += 1;
        }
    }
    assert_eq!(named, expected);
    assert_eq!(demux.items("connections").len(), alive);
    assert_eq!(count(host, &[SocketState::Established]), alive);
    assert_eq!(count(host, &[SocketState::Listen]), listeners.len());
}

#[test]
fn connections_end_in_every_state() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let Pair { host, peer } = &pair;
    let listener = listen(host, Family::V4.at_host(80));
    let state_is = |state: &str| {
        wait_for(state, || {
            demux.items(&format!("connections state {state}")).len() == 1
        });
    };

    // Nobody has accepted it.
    let mut waiting = peer.enter(|| TcpStream::connect(Family::V4.at_host(80)).unwrap());
    assert_eq!(actions(&demux.items("kill lport 80")), ["destroyed"]);
    assert_eq!(end_of(&mut waiting), ErrorKind::ConnectionReset);
    // What is left of it waits to be accepted all the same.
    listener.accept().unwrap();

    let (client, server) = talked(peer, &listener, Family::V4.at_host(80));
    client.shutdown(std::net::Shutdown::Write).unwrap();
    state_is("close-wait");
    assert_eq!(
        actions(&demux.items("kill state close-wait")),
        ["destroyed"]
    );
    drop((client, server));

    let (mut client, server) = talked(peer, &listener, Family::V4.at_host(80));
    drop(server);
    // No process holds it any more.
    state_is("fin-wait-2");
    assert_eq!(
        actions(&demux.items("kill state fin-wait-2")),
        ["destroyed"]
    );
    assert_eq!(end_of(&mut client), ErrorKind::UnexpectedEof);
    wait_for("a reset", || client.write_all(b"more").is_err());

    let (client, server) = talked(peer, &listener, Family::V4.at_host(80));
    drop(server);
    drop(client);
    state_is("time-wait");
    assert_eq!(count(host, &[SocketState::TimeWait]), 1);
    assert_eq!(actions(&demux.items("kill state time-wait")), ["destroyed"]);
    assert_eq!(count(host, &[SocketState::TimeWait]), 0);

    assert_eq!(count(host, &[SocketState::Listen]), 1);
}

#[test]
fn handshakes_end_too() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let Pair { host, peer } = &pair;
    let listener = listen(host, Family::V4.at_host(80));
    // So that the hosts know each other's Ethernet address.
    drop(talked(peer, &listener, Family::V4.at_host(80)));
    let nothing = xdp_program("nothing", XDP_DROP as u8);
    let index = peer.index(PEER);
    let _link = peer.enter(|| attach_xdp(nothing.as_fd(), index, GENERIC));

    let opening = start_connecting(host, Family::V4.at_peer(9));
    assert_eq!(demux.item("connections rport 9")["state"], "SYN-SENT");
    assert_eq!(actions(&demux.items("kill rport 9")), ["destroyed"]);
    let error = connect_result(&opening).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);

    let stations = Stations {
        from: peer.mac(PEER),
        to: host.mac(HOST),
    };
    let (remote, local) = (Family::V4.at_peer(4000), Family::V4.at_host(80));
    FrameSocket::new(peer, PEER).send(&stations.segment(remote, local, SYN, [1, 0]));
    wait_for("a handshake", || {
        demux.items("connections state syn-received").len() == 1
    });
    assert_eq!(count(host, &[SocketState::SynReceived]), 1);
    let items = demux.items("kill state syn-received");
    assert_eq!(actions(&items), ["destroyed"]);
    assert_eq!(count(host, &[SocketState::SynReceived]), 0);
    assert_eq!(count(host, &[SocketState::Listen]), 1);
    assert_eq!(demux.items("connections state syn-received"), [0; 0]);
}

#[test]
fn a_listener_is_not_hit_in_the_place_of_a_socket_that_has_ended() {
    let pair = Pair::new();
    let Pair { host, peer } = &pair;
    let listener = listen(host, Family::V4.at_host(80));
    let (_client, server) = connect(peer, &listener, Family::V4.at_host(80));
    let unconnected = udp(host, Family::V4.at_host(53));
    let connected = udp_to(host, Family::V4.at_host(54), Family::V4.at_peer(9));
    let (mut sockets, mut destroyer) = host.enter(|| {
        let of = |protocol| sockets::all(protocol, States::CONNECTED).unwrap();
        let sockets = [of(Protocol::Tcp), of(Protocol::Udp)].concat();
        (sockets, Destroyer::open().unwrap())
    });
    vanish(server);
    drop(connected);
    assert_eq!(sockets.len(), 2);
    // Where the kernel would find another one instead.
    sockets[1].local.set_port(53);
    for socket in &sockets {
        assert_eq!(destroyer.destroy(socket).unwrap(), Destroyed::Gone);
    }
    assert_eq!(count(host, &[SocketState::Listen]), 1);
    let client = udp(peer, Family::V4.at_peer(4000));
    ask(&client, &unconnected, Family::V4.at_host(53));
}

#[test]
fn a_connected_udp_socket_ends_and_an_unconnected_one_is_left_alone() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let Pair { host, peer } = &pair;
    for family in FAMILIES {
        let server = udp(peer, family.at_peer(53));
        let client = udp_to(host, family.at_host(5000), family.at_peer(53));
        client.send(b"question").unwrap();
        let item = demux.item("kill rport 53");
        assert_eq!(
            (&item["action"], &item["state"], &item["reason"]),
            (&json!("destroyed"), &json!("UNREPLIED"), &Value::Null)
        );
        let error = client.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert_eq!(demux.items("connections"), [0; 0]);

        let many = udp(host, family.at_host(54));
        let clients = [1, 2].map(|port| udp(peer, family.at_peer(4000 + port)));
        for client in &clients {
            ask(client, &many, family.at_host(54));
        }
        let item = demux.item("kill lport 54 and rport 4001");
        assert_eq!(
            (&item["action"], &item["reason"]),
            (
                &json!("forgotten"),
                &json!("no socket is connected to this remote alone")
            )
        );
        assert_eq!(demux.item("connections lport 54")["remote_port"], 4002);
        for client in &clients {
            ask(client, &many, family.at_host(54));
        }
        assert!(is_silent(&many));
        demux.ok("kill lport 54");
        drop(server);
    }
}

#[test]
fn sockets_that_share_a_four_tuple_end_together() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    for (family, domain) in [(Family::V4, libc::AF_INET), (Family::V6, libc::AF_INET6)] {
        let three = [(); 3].map(|()| {
            let socket = pair.host.enter(|| socket(domain, libc::SOCK_DGRAM, 0));
            setsockopt(&socket, ReusePort, &true).unwrap();
            bind(&socket, family.at_host(6000));
            connect_to(&socket, family.at_peer(9));
            let socket = std::net::UdpSocket::from(socket);
            socket.set_nonblocking(true).unwrap();
            socket
        });
        three[0].send(b"x").unwrap();
        assert_eq!(actions(&demux.items("kill rport 9")), ["destroyed"]);
        for socket in &three {
            let error = socket.recv(&mut [0; 16]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        }
    }
}

#[test]
fn forgetting_removes_rows_and_nothing_else() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let listener = listen(&pair.host, Family::V4.at_host(80));
    let (mut client, mut server) = talked(&pair.peer, &listener, Family::V4.at_host(80));
    let item = demux.item("kill lport 80 --forget");
    assert_eq!(
        (&item["action"], &item["reason"]),
        (&json!("forgotten"), &json!("asked for"))
    );
    assert_eq!(demux.items("connections"), [0; 0]);
    talk(&mut client, &mut server);
    assert_eq!(demux.item("connections lport 80")["state"], "ESTABLISHED");
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let listener = listen(&pair.host, Family::V4.at_host(80));
    let (mut client, mut server) = talked(&pair.peer, &listener, Family::V4.at_host(80));
    let many = udp(&pair.host, Family::V4.at_host(54));
    let asking = udp(&pair.peer, Family::V4.at_peer(4001));
    ask(&asking, &many, Family::V4.at_host(54));
    let before = demux.snapshot();
    let items = demux.items("kill state all --dry-run");
    let mut planned = actions(&items);
    planned.sort_unstable();
    assert_eq!(planned, ["destroyed", "forgotten"]);
    assert!(
        items.iter().all(|item| item["dry_run"] == true),
        "{items:?}"
    );
    let run = demux.ok("kill state all --dry-run");
    assert_eq!(run.stderr, "2 connections; nothing was done\n", "{run}");
    assert_eq!(demux.snapshot(), before);
    talk(&mut client, &mut server);
}

#[test]
fn a_connection_that_lost_its_socket_is_reset_at_the_peer() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let Pair { host, peer } = &pair;
    for family in FAMILIES {
        let listener = listen(host, family.at_host(80));
        let (mut client, server) = talked(peer, &listener, family.at_host(80));
        vanish(server);
        assert_eq!(count(host, &[SocketState::Established]), 0);
        assert_eq!(demux.item("connections lport 80")["state"], "ESTABLISHED");
        assert_eq!(actions(&demux.items("kill lport 80")), ["reset"]);
        assert_eq!(end_of(&mut client), ErrorKind::ConnectionReset);
        assert_eq!(demux.items("connections"), [0; 0]);
        // The listener would be the next socket that its endpoints lead to.
        let again = talked(peer, &listener, family.at_host(80));
        demux.ok("kill lport 80");
        drop(again);
    }
}

#[test]
fn the_peer_believes_a_reset_although_the_last_words_were_lost() {
    let pair = Pair::new();
    let Pair { host, peer } = &pair;
    let demux = Demux::new(host);
    demux.ok(&format!("load {HOST} --default drop --max-connections 64"));
    let listener = listen(host, Family::V4.at_host(80));
    let (mut client, mut server) = talked(peer, &listener, Family::V4.at_host(80));
    let sent = || demux.item("connections lport 80")["tx_packets"].as_u64();
    let before = sent();
    {
        let nothing = xdp_program("nothing", XDP_DROP as u8);
        let index = peer.index(PEER);
        let _link = peer.enter(|| attach_xdp(nothing.as_fd(), index, GENERIC));
        server.write_all(b"lost").unwrap();
        wait_for("what is lost", || sent() > before);
        vanish(server);
    }
    // What the peer answers to another number finds no socket, and the kernel does not hear of it.
    drop(listener);
    assert_eq!(actions(&demux.items("kill lport 80")), ["reset"]);
    assert_eq!(end_of(&mut client), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_goes_by_what_the_peer_said_where_nothing_else_was_seen() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --egress none --max-connections 64"));
    let listener = listen(&pair.host, Family::V4.at_host(80));
    let (mut client, server) = talked(&pair.peer, &listener, Family::V4.at_host(80));
    // The peer acknowledges what it was sent last.
    client.write_all(b"thanks").unwrap();
    wait_for("the last segment", || {
        let mut word = [0; 6];
        server.peek(&mut word).unwrap() == 6
    });
    vanish(server);
    assert_eq!(demux.item("connections lport 80")["seen"], "ingress");
    assert_eq!(actions(&demux.items("kill lport 80")), ["reset"]);
    assert_eq!(end_of(&mut client), ErrorKind::ConnectionReset);
    assert_eq!(demux.items("connections"), [0; 0]);
}

#[test]
fn link_local_connections_are_reset_too() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let Pair { host, peer } = &pair;
    let at = SocketAddr::V6(SocketAddrV6::new(
        link_local(host, HOST),
        80,
        0,
        peer.index(PEER),
    ));
    let listener = listen(host, Family::V6.any(80));
    let (mut client, mut server) = talked(peer, &listener, at);
    assert_eq!(actions(&demux.items("kill lport 80")), ["destroyed"]);
    assert_eq!(end_of(&mut server), ErrorKind::ConnectionAborted);
    assert_eq!(end_of(&mut client), ErrorKind::ConnectionReset);

    // Its like stand on every interface, and by themselves packets would go by this one.
    host.veth("other0", peer, "other1");
    let route = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64)
        .output_interface(host.index("other0"))
        .priority(1)
        .build();
    host.add_route(route);
    let (mut client, server) = talked(peer, &listener, at);
    vanish(server);
    assert_eq!(actions(&demux.items("kill lport 80")), ["reset"]);
    assert_eq!(end_of(&mut client), ErrorKind::ConnectionReset);
}

/// The address that an interface has made for itself.
fn link_local(netns: &Netns, interface: &str) -> Ipv6Addr {
    let index = netns.index(interface);
    common::wait::wait_for_some("a link-local address", || {
        let addresses = netns.enter(|| local_address::by_interface().unwrap());
        addresses
            .into_iter()
            .find_map(|(address, device)| match address {
                IpAddr::V6(address) if device == index && address.is_unicast_link_local() => {
                    Some(address)
                }
                _ => None,
            })
    })
}

#[test]
fn a_connection_of_which_nothing_was_seen_is_forgotten() {
    let pair = Pair::new();
    let listener = listen(&pair.host, Family::V4.at_host(80));
    let (_client, server) = connect(&pair.peer, &listener, Family::V4.at_host(80));
    let demux = loaded(&pair);
    assert_eq!(demux.item("connections lport 80")["seen"], "nowhere");
    vanish(server);
    let item = demux.item("kill lport 80");
    assert_eq!(
        (&item["action"], &item["reason"]),
        (
            &json!("forgotten"),
            &json!("no socket, and its sequence numbers were not seen")
        )
    );
    assert_eq!(demux.items("connections"), [0; 0]);
}

#[test]
fn allocated_ports_are_released() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let reserve = |port: u16| {
        let (local, remote) = (Family::V4.at_host(port), Family::V4.at_peer(443));
        let key = key(Protocol::Tcp, local, remote);
        TableCommand::enter(key, State::Reserved, Flags(Flags::OUT))
    };
    let inside = Inside::of(&demux);
    inside
        .control
        .execute(&[reserve(5001), reserve(5002)])
        .unwrap();
    let item = demux.item("kill state reserved lport 5001");
    assert_eq!(
        (&item["action"], &item["state"]),
        (&json!("released"), &json!("RESERVED"))
    );
    assert_eq!(demux.item("connections")["local_port"], 5002);
}

#[test]
fn both_ends_of_a_connection_within_the_host_may_match() {
    let host = Netns::new();
    let demux = Demux::new(&host);
    demux.ok("load lo --max-connections 64");
    let at: SocketAddr = "127.0.0.1:80".parse().unwrap();
    let listener = listen(&host, at);
    let (mut client, mut server) = talked(&host, &listener, at);
    assert_eq!(demux.items("connections").len(), 2);
    let items = demux.items("kill proto tcp");
    assert_eq!(items.len(), 2);
    let actions: BTreeSet<_> = actions(&items).into_iter().collect();
    assert!(actions.contains("destroyed"), "{actions:?}");
    let kinds = [end_of(&mut client), end_of(&mut server)];
    assert!(!kinds.contains(&ErrorKind::UnexpectedEof), "{kinds:?}");
    assert_eq!(demux.items("connections"), [0; 0]);
    assert_eq!(count(&host, &[SocketState::Listen]), 1);
}

#[test]
fn an_empty_filter_and_one_that_matches_nothing_are_refused() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let listener = listen(&pair.host, Family::V4.at_host(80));
    let (mut client, mut server) = talked(&pair.peer, &listener, Family::V4.at_host(80));
    for line in ["kill", "kill --forget", "kill --dry-run"] {
        demux
            .refused(line, 2, "invalid_argument")
            .says(&["kill filter", "would end every connection"])
            .hints(&["demux kill remote", "demux kill state all"]);
    }
    for line in ["kill lport 81", "kill lport 81 --forget", "kill proto udp"] {
        demux
            .refused(line, 3, "connection_not_found")
            .says(&["no connection matches"])
            .hints(&["demux connections"]);
    }
    demux.refused("kill --forget --dry-run lport 80", 2, "usage");
    demux.refused("kill bogus 5", 2, "invalid_argument");
    talk(&mut client, &mut server);
}

#[test]
fn what_is_missing_is_named_before_anything_is_done() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let listener = listen(&pair.host, Family::V4.at_host(80));
    let (mut client, mut server) = talked(&pair.peer, &listener, Family::V4.at_host(80));
    demux
        .refused_with("kill lport 80", 4, "permission_denied", |command| {
            without_capability(command, CAP_NET_ADMIN);
        })
        .says(&["end connections", "CAP_NET_ADMIN missing"]);
    let public = PublicBinary::new();
    demux
        .refused_with("kill lport 80", 4, "permission_denied", |command| {
            public.run_as(command, NOBODY);
        })
        .says(&["CAP_NET_ADMIN missing"]);
    demux.refused_with(
        "kill lport 80 --forget",
        4,
        "permission_denied",
        |command| {
            public.run_as(command, NOBODY);
        },
    );

    // One of two has lost its socket: the other one stays as well.
    let (_other, lost) = talked(&pair.peer, &listener, Family::V4.at_host(80));
    vanish(lost);
    demux
        .refused_with("kill lport 80", 4, "permission_denied", |command| {
            without_capability(command, CAP_NET_RAW);
        })
        .says(&["CAP_NET_RAW missing"]);
    talk(&mut client, &mut server);
    assert_eq!(demux.items("connections").len(), 2);
}

#[test]
fn what_fails_is_told_of_each_connection() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let Pair { host, peer } = &pair;
    let four = listen(host, Family::V4.at_host(80));
    let (mut client, server) = talked(peer, &four, Family::V4.at_host(80));
    let six = listen(host, Family::V6.at_host(81));
    let (_lost, lost) = talked(peer, &six, Family::V6.at_host(81));
    vanish(lost);
    // Nothing goes there any more.
    host.sysctl(&format!("net/ipv6/conf/{HOST}/disable_ipv6"), "1");
    let run = demux.run("kill proto tcp -j");
    assert_eq!(run.status, 1, "{run}");
    let document = run.json();
    let items = document["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{run}");
    for item in items {
        if item["local"] == "10.0.0.2:80" {
            assert_eq!(item["action"], "destroyed");
        } else {
            assert_eq!(item["action"], Value::Null);
            assert_eq!(item["error"]["code"], "io_error", "{run}");
            let message = item["error"]["message"].as_str().unwrap();
            assert!(message.contains("send a reset from [fd00::2]:81"), "{run}");
        }
    }
    for words in [
        "warning: cannot send a reset",
        "1 connection did not end",
        "--forget",
    ] {
        assert!(run.stderr.contains(words), "{words} is missing: {run}");
    }
    assert_eq!(end_of(&mut client), ErrorKind::ConnectionReset);
    drop(server);
    assert_eq!(demux.item("connections")["local_port"], 81);
    demux.ok("kill lport 81 --forget");
    assert_eq!(demux.items("connections"), [0; 0]);
}
