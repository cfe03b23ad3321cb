//! What the kernel had before demux came, and whether the two say the same.

mod common;

use std::{
    collections::BTreeSet,
    io::Read as _,
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
};

use common::{
    demux::Demux,
    pair::{Family, HOST, Pair},
    sockets::{bind, connect, connect_to, listen, socket, talk},
    wait::wait_for,
};
use demux_common::protocol::Protocol;
use demux_user::sockets::{self, States};

/// What the kernel has, and what demux has: protocol, local, remote and state of each connection.
type Conversation = (String, String, String);

fn kernel(pair: &Pair) -> BTreeSet<Conversation> {
    pair.host.enter(|| {
        sockets::all(Protocol::Tcp, States::CONNECTED)
            .unwrap()
            .iter()
            .map(|socket| {
                (
                    socket.local.to_string(),
                    socket.remote.to_string(),
                    socket.tcp_state().unwrap().name().to_owned(),
                )
            })
            .collect()
    })
}

fn table(demux: &Demux<'_>) -> BTreeSet<Conversation> {
    demux
        .items("connections proto tcp")
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            (text("local"), text("remote"), text("state"))
        })
        .collect()
}

struct Streams {
    _all: Vec<(TcpStream, TcpStream)>,
    // Whoever listens at the time of the import is taken to have been connected to.
    _listeners: Vec<TcpListener>,
}

/// Connections in several states, opened from both sides, over both families.
fn connections(pair: &Pair) -> Streams {
    let mut all = Vec::new();
    let mut listeners = Vec::new();
    for family in [Family::V4, Family::V6] {
        let here = listen(&pair.host, family.at_host(80));
        let there = listen(&pair.peer, family.at_peer(90));
        let (mut client, mut server) = connect(&pair.peer, &here, family.at_host(80));
        talk(&mut client, &mut server);
        all.push((client, server));
        let (mut client, mut server) = connect(&pair.host, &there, family.at_peer(90));
        talk(&mut client, &mut server);
        all.push((client, server));
        // The remote has finished.
        let (client, server) = connect(&pair.peer, &here, family.at_host(80));
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut end = [0];
        assert_eq!((&server).read(&mut end).unwrap(), 0);
        all.push((client, server));
        // This host has finished, and then both.
        let (client, server) = connect(&pair.peer, &here, family.at_host(80));
        server.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!((&client).read(&mut end).unwrap(), 0);
        drop(client);
        all.push((server.try_clone().unwrap(), server));
        listeners.extend([here, there]);
    }
    Streams {
        _all: all,
        _listeners: listeners,
    }
}

#[test]
fn connections_straight_after_load_are_those_of_the_kernel() {
    let pair = Pair::new();
    let _streams = connections(&pair);
    wait_for("a connection in TIME-WAIT of each family", || {
        kernel(&pair)
            .iter()
            .filter(|(.., state)| state == "TIME-WAIT")
            .count()
            == 2
    });
    let demux = Demux::new(&pair.host);
    let loaded = demux.item(&format!("load {HOST}"));
    let expected = kernel(&pair);
    assert_eq!(table(&demux), expected);
    assert_eq!(loaded["connections"], expected.len());
    assert_eq!(demux.run("connections --verify").status, 0);
    // Nobody has seen a packet of theirs, and this host knows them all the same.
    for row in demux.items("connections proto tcp") {
        assert_eq!(
            (&row["seen"], &row["confirmed"]),
            (&"nowhere".into(), &true.into()),
            "{row}"
        );
        let is_client = row["remote_port"] == 90;
        assert_eq!(
            row["direction"],
            if is_client { "out" } else { "in" },
            "{row}"
        );
    }
}

#[test]
fn connected_udp_sockets_are_entered_and_others_are_not() {
    let pair = Pair::new();
    let family = Family::V4;
    let sockets: [OwnedFd; 2] = pair
        .host
        .enter(|| [0; 2].map(|_| socket(libc::AF_INET, libc::SOCK_DGRAM, 0)));
    bind(&sockets[0], family.at_host(5000));
    bind(&sockets[1], family.at_host(5001));
    connect_to(&sockets[1], family.at_peer(6001));
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST}"));
    let rows = demux.items("connections proto udp");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["local"], family.at_host(5001).to_string());
    assert_eq!(rows[0]["state"], "ASSURED");
}

#[test]
fn connections_of_other_interfaces_are_not_entered() {
    let pair = Pair::new();
    pair.host.veth("w0", &pair.peer, "w1");
    pair.host.add_address("w0", "10.77.0.1/24");
    pair.peer.add_address("w1", "10.77.0.2/24");
    let there = listen(&pair.peer, "10.77.0.2:90".parse().unwrap());
    let _other = connect(&pair.host, &there, "10.77.0.2:90".parse().unwrap());
    let within = listen(&pair.host, Family::V4.at_host(80));
    let _within = connect(&pair.host, &within, Family::V4.at_host(80));
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST}"));
    assert_eq!(table(&demux), BTreeSet::new());
    assert_eq!(demux.run("connections --verify").status, 0);
    // Once the other interface is loaded, they are.
    demux.ok("load w0");
    assert_eq!(table(&demux).len(), 1);
}

#[test]
fn what_differs_is_shown_and_ends_with_7() {
    let pair = Pair::new();
    let listener = listen(&pair.host, Family::V4.at_host(80));
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST}"));
    assert_eq!(demux.run("connections --verify").status, 0);
    let streams = connect(&pair.peer, &listener, Family::V4.at_host(80));
    wait_for("the row", || table(&demux).len() == 1);
    assert_eq!(demux.run("connections --verify").status, 0);
    // Rows that expire while their connection lives.
    demux.ok("set timeout.established=1");
    wait_for("the row to expire", || table(&demux).is_empty());
    let run = demux.run("connections --verify --jsonl");
    assert_eq!(run.status, 7);
    let differences = run.json_lines();
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(differences[0]["state"], serde_json::Value::Null);
    assert_eq!(differences[0]["kernel_state"], "ESTABLISHED");
    assert_eq!(differences[0]["local"], Family::V4.at_host(80).to_string());
    drop(streams);
}
