//! Bindings to other CPUs, with real connections and datagrams.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::TcpStream,
    os::fd::AsFd,
    thread,
};

use common::{
    demux::Demux,
    frames::{Capture, FrameSocket},
    inside::Stations,
    netns::Queues,
    pair::{FAMILIES, Family, HOST, PEER, Pair, quick_netns},
    sockets::{ask, connect, listen, talk, udp},
    wait::{wait_for, wait_for_some},
};
use etherparse::{PacketBuilder, VlanId};
use rustix::net::sockopt::socket_incoming_cpu;

/// The last CPU of this machine.
fn last_cpu() -> u32 {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let last = text.trim().rsplit([',', '-']).next().unwrap();
    last.parse().unwrap()
}

fn load<'n>(pair: &'n Pair, mode: &str) -> Demux<'n> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --mode {mode} --max-connections 1024"));
    demux
}

/// The CPU on which the last packet of a socket arrived.
fn cpu_of(socket: impl AsFd) -> u32 {
    socket_incoming_cpu(socket).unwrap()
}

#[test]
fn connections_are_served_on_the_cpu_of_their_binding() {
    let pair = Pair::new();
    let demux = load(&pair, "native");
    for cpu in BTreeSet::from([0, last_cpu()]) {
        let name = demux.ok(&format!("bind tcp :80 --to cpu:{cpu}"));
        for family in FAMILIES {
            let listener = listen(&pair.host, family.at_host(80));
            let handed = demux.count("redirect", "connection");
            let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
            for _ in 0..4 {
                talk(&mut client, &mut server);
            }
            assert_eq!(cpu_of(&server), cpu, "{family:?}");
            assert!(demux.count("redirect", "connection") >= handed + 4);
            let port = client.local_addr().unwrap().port();
            let row = demux.item(&format!("connections rport {port}"));
            assert_eq!(row["target"], format!("cpu:{cpu}"), "{row}");
            assert_eq!(
                (&row["state"], &row["confirmed"], &row["seen"]),
                (&"ESTABLISHED".into(), &true.into(), &"both".into()),
                "{row}"
            );
        }
        demux.ok(&format!("unbind {}", name.stdout.trim()));
    }
    // No thread of the kernel is left.
    let maps = demux.items("maps");
    let cpus = maps.iter().find(|map| map["name"] == "CPUS").unwrap();
    assert_eq!(cpus["entries"], 0, "{cpus}");
}

#[test]
fn datagrams_are_served_on_the_cpu_of_their_binding() {
    let pair = Pair::new();
    let demux = load(&pair, "native");
    let cpu = last_cpu();
    demux.ok(&format!("bind udp :53 --to cpu:{cpu}"));
    for family in FAMILIES {
        let server = udp(&pair.host, family.at_host(53));
        let client = udp(&pair.peer, family.at_peer(4000));
        for _ in 0..3 {
            ask(&client, &server, family.at_host(53));
        }
        // The kernel tells the CPU of connected sockets only.
        server.connect(family.at_peer(4000)).unwrap();
        ask(&client, &server, family.at_host(53));
        assert_eq!(cpu_of(&server), cpu, "{family:?}");
        let row = demux.item(&format!(
            "connections proto udp remote {}",
            family.at_peer(4000)
        ));
        assert_eq!(
            (&row["state"], &row["confirmed"]),
            (&"ASSURED".into(), &true.into()),
            "{row}"
        );
    }
    assert!(demux.count("redirect", "connection") >= 4);
}

#[test]
fn connections_spread_over_the_cpus_and_stay() {
    const CONNECTIONS: usize = 48;
    let pair = Pair::new();
    let demux = load(&pair, "native");
    let last = last_cpu();
    assert!(last > 0, "this takes two CPUs");
    demux.ok(&format!("bind tcp :80 --to cpu:0,{last}"));
    let family = Family::V4;
    let listener = listen(&pair.host, family.at_host(80));
    let mut connections: Vec<(TcpStream, TcpStream)> = (0..CONNECTIONS)
        .map(|_| connect(&pair.peer, &listener, family.at_host(80)))
        .collect();
    let mut cpus: BTreeMap<u32, usize> = BTreeMap::new();
    for (client, server) in &mut connections {
        talk(client, server);
        *cpus.entry(cpu_of(&*server)).or_default() += 1;
    }
    // One in a hundred thousand runs has fewer on one of them.
    assert_eq!(cpus.len(), 2, "{cpus:?}");
    assert!(cpus.values().all(|count| *count >= 8), "{cpus:?}");
    let places: Vec<u32> = connections
        .iter()
        .map(|(_, server)| cpu_of(server))
        .collect();
    for _ in 0..3 {
        // Another epoch leaves them where they are.
        demux.ok("bind tcp :81 --name other");
        demux.ok("unbind other");
        for ((client, server), cpu) in connections.iter_mut().zip(&places) {
            talk(client, server);
            assert_eq!(cpu_of(&*server), *cpu);
        }
    }
}

#[test]
fn bulk_data_arrives_whole() {
    const BYTES: usize = 4 << 20;
    for (queues, mtu) in [(1, 1500), (4, 1500), (1, 9000)] {
        let pair = Pair {
            host: quick_netns(),
            peer: quick_netns(),
        };
        let both = Queues {
            rx: queues,
            tx: queues,
        };
        pair.host
            .veth_with_queues(HOST, both, &pair.peer, PEER, both);
        for family in FAMILIES {
            let bits = if family == Family::V4 { 24 } else { 64 };
            pair.host
                .add_address(HOST, &format!("{}/{bits}", family.host()));
            pair.peer
                .add_address(PEER, &format!("{}/{bits}", family.peer()));
        }
        pair.host.set_mtu(HOST, mtu);
        pair.peer.set_mtu(PEER, mtu);
        let demux = load(&pair, "native");
        demux.ok(&format!("bind tcp :80 --to cpu:0-{}", last_cpu()));
        for family in FAMILIES {
            let listener = listen(&pair.host, family.at_host(80));
            let streams: Vec<_> = (0..4)
                .map(|_| connect(&pair.peer, &listener, family.at_host(80)))
                .collect();
            let readers: Vec<_> = streams
                .into_iter()
                .map(|(mut client, mut server)| {
                    let writer = thread::spawn(move || {
                        let data: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
                        client.write_all(&data).unwrap();
                    });
                    let reader = thread::spawn(move || {
                        let mut data = Vec::new();
                        server.read_to_end(&mut data).unwrap();
                        assert_eq!(data.len(), BYTES);
                        let is_right = |(at, byte): (usize, &u8)| *byte == (at % 251) as u8;
                        assert!(data.iter().enumerate().all(is_right));
                    });
                    (writer, reader)
                })
                .collect();
            for (writer, reader) in readers {
                writer.join().unwrap();
                reader.join().unwrap();
            }
        }
        // Everything was handed on: nothing passed by itself, nothing fell back.
        assert_eq!(demux.count("pass", "connection"), 0);
        assert_eq!(demux.count("pass", "no-target"), 0);
        assert!(demux.count("redirect", "connection") > 1000);
    }
}

#[test]
fn a_connection_of_the_stack_goes_on_where_it_is() {
    let pair = Pair::new();
    let demux = load(&pair, "native");
    let family = Family::V4;
    let listener = listen(&pair.host, family.at_host(80));
    let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
    talk(&mut client, &mut server);
    demux.ok(&format!("bind tcp :80 --to cpu:{}", last_cpu()));
    talk(&mut client, &mut server);
    let port = client.local_addr().unwrap().port();
    let row = demux.item(&format!("connections rport {port}"));
    assert_eq!(row["target"], "stack", "{row}");
    let (mut new, mut its_server) = connect(&pair.peer, &listener, family.at_host(80));
    talk(&mut new, &mut its_server);
    assert_eq!(cpu_of(&its_server), last_cpu());
}

#[test]
fn connections_end_with_their_binding_and_begin_anew() {
    let pair = Pair::new();
    let demux = load(&pair, "native");
    let family = Family::V4;
    demux.ok(&format!("bind tcp :80 --to cpu:{} --name web", last_cpu()));
    let listener = listen(&pair.host, family.at_host(80));
    let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
    talk(&mut client, &mut server);
    demux.ok("unbind web");
    // The kernel has had it all the time, and so it goes on.
    talk(&mut client, &mut server);
    let port = client.local_addr().unwrap().port();
    let row = demux.item(&format!("connections rport {port}"));
    assert_eq!(
        (&row["target"], &row["binding"]),
        (&"stack".into(), &serde_json::Value::Null),
        "{row}"
    );
}

#[test]
fn tagged_frames_are_handed_on_with_their_tags() {
    let pair = Pair::new();
    let demux = load(&pair, "native");
    demux.ok(&format!("bind udp :53 --to cpu:{}", last_cpu()));
    let capture = Capture::new(&pair.host, HOST);
    let sender = FrameSocket::new(&pair.peer, PEER);
    let stations = Stations {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(stations.from, stations.to)
        .single_vlan(VlanId::try_new(7).unwrap())
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(4000, 53)
        .write(&mut frame, b"tagged")
        .unwrap();
    sender.send(&frame);
    wait_for("the frame to be handed on", || {
        demux.count("redirect", "bound") == 1
    });
    let arrived = wait_for_some("the frame", || {
        std::iter::from_fn(|| capture.next()).find(|arrived| *arrived == frame)
    });
    assert_eq!(arrived, frame);
}

#[test]
fn in_generic_mode_packets_stay_on_their_cpu() {
    let pair = Pair::new();
    let demux = load(&pair, "generic");
    let bound = demux.ok(&format!("bind tcp :80 udp :53 --to cpu:{}", last_cpu()));
    assert!(bound.stderr.contains("generic mode"), "{}", bound.stderr);
    for family in FAMILIES {
        let listener = listen(&pair.host, family.at_host(80));
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
        talk(&mut client, &mut server);
        let port = client.local_addr().unwrap().port();
        let row = demux.item(&format!("connections rport {port}"));
        assert_eq!(row["state"], "ESTABLISHED", "{row}");
        let server = udp(&pair.host, family.at_host(53));
        let client = udp(&pair.peer, family.at_peer(4000));
        ask(&client, &server, family.at_host(53));
    }
    assert!(demux.count("pass", "no-target") >= 8);
    assert_eq!(demux.count("redirect", "connection"), 0);
}
