//! Frames between the network and owners of sets, by way of the daemon.

mod common;

use std::{net::SocketAddr, time::Duration};

use common::{
    daemon::{Daemon, receive, send, try_receive, wish},
    demux::Demux,
    frames::FrameSocket,
    inside::{ACK, SYN, Stations},
    netns::Queues,
    pair::{FAMILIES, Family, HOST, PEER, Pair, quick_netns},
    sockets::{ask, is_silent, udp},
    wait::wait_for,
};
use demux_user::{
    daemon::protocol::{Open, Statistics},
    xsk::remote::Remote,
};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

const PORT: u16 = 7000;

/// The host's answers go to the peer.
fn stations(pair: &Pair) -> Stations {
    Stations {
        from: pair.host.mac(HOST),
        to: pair.peer.mac(PEER),
    }
}

/// What a frame with a datagram says: from where, to where, and its data.
fn datagram(frame: &[u8]) -> (SocketAddr, SocketAddr, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Udp(udp)) = &packet.transport else {
        panic!("a datagram: {packet:?}");
    };
    let (from, to): (std::net::IpAddr, std::net::IpAddr) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        Some(NetSlice::Ipv6(ip)) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        other => panic!("{other:?}"),
    };
    (
        SocketAddr::new(from, udp.source_port()),
        SocketAddr::new(to, udp.destination_port()),
        udp.payload().to_vec(),
    )
}

/// What has happened on the first queue of a set.
fn statistics(set: &Remote) -> Statistics {
    set.connection.statistics().unwrap()[0]
}

/// Answers the next datagram with its own data.
fn echo(set: &mut Remote, queue: usize, stations: &Stations) {
    let (from, to, data) = datagram(&receive(set, queue));
    send(set, queue, &stations.datagram(to, from, &data));
}

#[test]
fn an_owner_receives_and_answers() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 256"));
    demux.ok(&format!("bind udp :{PORT} --to xsk:echo"));
    let daemon = Daemon::start(&demux, "");
    let mut set = daemon.open("echo", HOST).unwrap();
    for family in FAMILIES {
        let client = udp(&pair.peer, family.at_peer(0));
        for data in [&b"one"[..], &[7; 1400]] {
            client.send_to(data, family.at_host(PORT)).unwrap();
            echo(&mut set, 0, &stations(&pair));
            let mut answer = [0; 2000];
            let (len, from) = client.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..len], from), (data, family.at_host(PORT)));
        }
        // The kernel's own sockets of the same interface and address go on.
        let server = udp(&pair.host, family.at_host(PORT + 1));
        ask(&client, &server, family.at_host(PORT + 1));
    }
    let statistics = statistics(&set);
    assert_eq!((statistics.rx_packets, statistics.tx_packets), (4, 4));
    assert_eq!(statistics.tx_refused, 0);
    // What was sent is in the table.
    let rows = demux.items(&format!("connections lport {PORT}"));
    assert_eq!(rows.len(), 2, "{rows:?}");
    for row in rows {
        assert_eq!(row["state"], "ASSURED", "{row}");
        assert_eq!(row["tx_packets"], 2, "{row}");
        assert_eq!(row["target"], "xsk:echo", "{row}");
    }
}

#[test]
fn two_owners_and_the_kernel_share_a_queue_and_each_gets_its_own() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 256"));
    demux.ok("bind udp :7001 --to xsk:one");
    demux.ok("bind udp :7002 --to xsk:two");
    let daemon = Daemon::start(&demux, "");
    let mut one = daemon.open("one", HOST).unwrap();
    let mut two = daemon.open("two", HOST).unwrap();
    for family in FAMILIES {
        let kernel = udp(&pair.host, family.at_host(7003));
        let client = udp(&pair.peer, family.at_peer(0));
        for round in 0..20_u8 {
            for (port, set) in [(7001, &mut one), (7002, &mut two)] {
                let data = [round, port as u8];
                client.send_to(&data, family.at_host(port)).unwrap();
                echo(set, 0, &stations(&pair));
                let mut answer = [0; 16];
                let (len, from) = client.recv_from(&mut answer).unwrap();
                assert_eq!((&answer[..len], from), (&data[..], family.at_host(port)));
            }
            ask(&client, &kernel, family.at_host(7003));
        }
    }
    for set in [&mut one, &mut two] {
        assert_eq!(try_receive(set, 0, Duration::ZERO), None);
        assert_eq!(statistics(set).rx_packets, 40);
    }
    // Who leaves disturbs nobody, and comes back.
    drop(one);
    let client = udp(&pair.peer, Family::V4.at_peer(0));
    client.send_to(b"a", Family::V4.at_host(7002)).unwrap();
    echo(&mut two, 0, &stations(&pair));
    daemon.says("set one: closed");
    let mut one = daemon.open("one", HOST).unwrap();
    client.send_to(b"b", Family::V4.at_host(7001)).unwrap();
    echo(&mut one, 0, &stations(&pair));
}

#[test]
fn what_is_not_the_owners_to_send_is_refused_and_counted() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 256"));
    demux.ok(&format!("bind udp :{PORT} --to xsk:mine"));
    demux.ok(&format!("bind tcp 10.0.0.2:{PORT} --to xsk:mine"));
    demux.ok("bind udp :7002 --to xsk:other");
    demux.ok("bind udp 10.0.0.2:7100-7200 --to xsk:mine");
    demux.ok("bind udp 10.0.0.2:7150 --to xsk:other");
    demux.ok("bind udp :7300 --reuse-port --name one --to xsk:mine");
    demux.ok("bind udp :7300 --reuse-port --name two --to xsk:other");
    let daemon = Daemon::start(&demux, "");
    let mut set = daemon.open("mine", HOST).unwrap();
    let _other = daemon.open("other", HOST).unwrap();
    let ours = stations(&pair);
    let v4 = Family::V4;
    let to = v4.at_peer(9000);
    let good = ours.datagram(v4.at_host(PORT), to, b"data");
    let of = |from: &str| ours.datagram(from.parse().unwrap(), to, b"data");
    let changed = |at: usize, to: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + to.len()].copy_from_slice(to);
        frame
    };
    let refused = [
        ("a port that nobody has bound", of("10.0.0.2:7001")),
        ("another's port", of("10.0.0.2:7002")),
        ("another's port within a range", of("10.0.0.2:7150")),
        ("an address that is not this host's", of("10.0.0.3:7000")),
        ("the peer's own address", of("10.0.0.1:7000")),
        (
            "the other protocol at another port",
            ours.segment(v4.at_host(7100), to, SYN, [1, 0]),
        ),
        ("another station", changed(6, &[2, 0, 0, 0, 0, 9])),
        ("a group of stations", changed(0, &[0xff; 6])),
        ("ARP", changed(12, &[8, 6])),
        ("ICMP", changed(14 + 9, &[1])),
        ("a first fragment", changed(14 + 6, &[0x20, 0])),
        ("a later fragment", changed(14 + 6, &[0, 1])),
        ("a length that is a lie", changed(14 + 2, &[0xff, 0xff])),
        ("no header at all", vec![0xff; 64]),
        (
            "a multicast group",
            ours.datagram(v4.at_host(PORT), "224.0.0.5:9000".parse().unwrap(), b""),
        ),
        (
            "more than the device sends",
            ours.datagram(v4.at_host(PORT), to, &[0; 1600]),
        ),
    ];
    let sniffer = udp(&pair.peer, to);
    for (number, (what, frame)) in (1..).zip(&refused) {
        send(&mut set, 0, frame);
        wait_for(what, || statistics(&set).tx_refused == number);
    }
    assert!(is_silent(&sniffer));
    assert_eq!(statistics(&set).tx_packets, 0);
    for (count, frame) in (1..).zip([
        good,
        of("10.0.0.2:7100"),
        of("10.0.0.2:7200"),
        of("10.0.0.2:7300"),
        ours.segment(v4.at_host(PORT), to, SYN | ACK, [1, 1]),
        Stations::datagram(
            &ours,
            Family::V6.at_host(PORT),
            Family::V6.at_peer(9000),
            b"six",
        ),
    ]) {
        send(&mut set, 0, &frame);
        wait_for("it to leave", || statistics(&set).tx_packets == count);
    }
    let mut data = [0; 16];
    for _ in 0..4 {
        assert_eq!(sniffer.recv(&mut data).unwrap(), 4);
    }
    assert_eq!(statistics(&set).tx_refused, refused.len() as u64);
    assert_eq!(statistics(&set).tx_invalid, 0);

    // Without its binding it is a stranger.
    demux.ok("unbind udp 10.0.0.2:7100-7200");
    send(&mut set, 0, &of("10.0.0.2:7100"));
    wait_for("the refusal", || {
        statistics(&set).tx_refused == refused.len() as u64 + 1
    });
    assert_eq!(demux.items(&format!("connections lport {}", 7150)).len(), 0);
}

#[test]
fn who_is_slow_loses_frames_and_slows_nobody() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 256"));
    demux.ok("bind udp :7001 --to xsk:slow");
    demux.ok("bind udp :7002 --to xsk:quick");
    let daemon = Daemon::start(&demux, "");
    let slow = daemon.open("slow", HOST).unwrap();
    let mut quick = daemon.open("quick", HOST).unwrap();
    let client = udp(&pair.peer, Family::V4.at_peer(0));
    // More than all chunks of the queue.
    for burst in 0..50 {
        for _ in 0..100 {
            client
                .send_to(b"to nobody", Family::V4.at_host(7001))
                .unwrap();
        }
        client.send_to(&[burst], Family::V4.at_host(7002)).unwrap();
        assert_eq!(datagram(&receive(&mut quick, 0)).2, [burst]);
    }
    wait_for("the drops", || {
        let counted = statistics(&slow);
        counted.rx_packets == 64 && counted.fill_ring_empty + counted.rx_ring_full == 4936
    });
    let counted = statistics(&quick);
    assert_eq!(
        (
            counted.rx_packets,
            counted.fill_ring_empty,
            counted.rx_ring_full
        ),
        (50, 0, 0)
    );
}

#[test]
fn long_frames_take_several_chunks_or_are_dropped() {
    let pair = Pair::new();
    for (netns, name) in [(&pair.host, HOST), (&pair.peer, PEER)] {
        netns.set_mtu(name, 9000);
    }
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 256"));
    demux.ok("bind udp :7001 --to xsk:large");
    demux.ok("bind udp :7002 --to xsk:small");
    demux.ok("bind udp :7003 --to xsk:single");
    let daemon = Daemon::start(&demux, "");
    let open = |set: &str, chunk_size, multi_buffer| {
        let wish = Open {
            chunk_size,
            multi_buffer,
            ..wish(set, HOST)
        };
        Remote::open(&daemon.socket(), wish).unwrap()
    };
    let mut large = open("large", 4096, true);
    let mut small = open("small", 2048, true);
    let mut single = open("single", 2048, false);
    assert_eq!(large.longest_frame, 16 * (4096 - 256));
    assert_eq!(small.longest_frame, 16 * (2048 - 256));
    assert_eq!(single.longest_frame, 2048 - 256);
    let client = udp(&pair.peer, Family::V4.at_peer(0));
    for len in [0, 1, 1400, 1750, 2000, 3798, 3799, 4096, 8000, 8972_usize] {
        let data: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
        for (port, set) in [(7001, &mut large), (7002, &mut small)] {
            client.send_to(&data, Family::V4.at_host(port)).unwrap();
            echo(set, 0, &stations(&pair));
            let mut answer = vec![0; 10_000];
            assert_eq!(client.recv(&mut answer).unwrap(), len);
            assert_eq!(&answer[..len], data);
        }
        client.send_to(&data, Family::V4.at_host(7003)).unwrap();
        let arrived = try_receive(&mut single, 0, Duration::from_millis(200));
        assert_eq!(arrived.is_some(), len + 42 <= 2048 - 256, "{len}");
    }
    assert_eq!(demux.count("drop", "too-long"), 6);
}

#[test]
fn every_queue_is_served() {
    let (host, peer) = (quick_netns(), quick_netns());
    let queues = Queues { rx: 4, tx: 4 };
    host.veth_with_queues(HOST, queues, &peer, PEER, queues);
    host.add_address(HOST, "10.0.0.2/24");
    peer.add_address(PEER, "10.0.0.1/24");
    let pair = Pair { host, peer };
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 256"));
    demux.ok(&format!("bind udp :{PORT} --to xsk:echo"));
    let daemon = Daemon::start(&demux, "");
    let mut set = daemon.open("echo", HOST).unwrap();
    assert_eq!(set.queues.len(), 4);
    let mut seen = [0; 4];
    // Veth chooses by the queue of the sender, which is that of its CPU or of the flow.
    let clients: Vec<_> = (0..64)
        .map(|_| udp(&pair.peer, Family::V4.at_peer(0)))
        .collect();
    for client in &clients {
        client.send_to(b"hello", Family::V4.at_host(PORT)).unwrap();
        let queue = common::wait::wait_for_some("a frame on some queue", || {
            (0..4).find(|queue| set.queues[*queue].port.receive().unwrap())
        });
        let frame = set.queues[queue].port.frame().to_vec();
        let (from, to, data) = datagram(&frame);
        send(&mut set, queue, &stations(&pair).datagram(to, from, &data));
        let mut answer = [0; 16];
        assert_eq!(client.recv(&mut answer).unwrap(), 5);
        seen[queue] += 1;
    }
    assert!(
        seen.iter().filter(|count| **count > 0).count() > 1,
        "{seen:?}"
    );
}

#[test]
fn an_idle_daemon_uses_no_processor() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 256"));
    demux.ok(&format!("bind udp :{PORT} --to xsk:echo"));
    let daemon = Daemon::start(&demux, "");
    let mut set = daemon.open("echo", HOST).unwrap();
    let client = udp(&pair.peer, Family::V4.at_peer(0));
    client.send_to(b"hello", Family::V4.at_host(PORT)).unwrap();
    echo(&mut set, 0, &stations(&pair));
    let before = daemon.processor_time();
    std::thread::sleep(Duration::from_secs(2));
    let used = daemon.processor_time() - before;
    assert!(used <= Duration::from_millis(20), "{used:?}");
}

#[test]
fn an_interface_that_goes_takes_its_sets_with_it() {
    let pair = Pair::new();
    pair.host.veth("other0", &pair.peer, "other1");
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} other0 --max-connections 256"));
    demux.ok(&format!("bind udp :{PORT} --to xsk:echo"));
    demux.ok("bind udp :7001 --to xsk:both");
    let daemon = Daemon::start(&demux, "");
    let mut set = daemon.open("echo", HOST).unwrap();
    let both = Remote::open(
        &daemon.socket(),
        Open {
            interfaces: vec![HOST.into(), "other0".into()],
            ..wish("both", HOST)
        },
    )
    .unwrap();
    assert!(both.connection.check().is_ok());
    pair.host.delete_link("other0");
    daemon.says("set both: closed");
    let error = both.connection.check().unwrap_err();
    assert!(error.to_string().contains("interface"), "{error}");
    // An interface that is down for a while is none that is gone.
    pair.host.set_down(HOST);
    send(
        &mut set,
        0,
        &stations(&pair).datagram(Family::V4.at_host(PORT), Family::V4.at_peer(9), b"lost"),
    );
    pair.host.set_up(HOST);
    let frames = FrameSocket::new(&pair.peer, PEER);
    let there = Stations {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    };
    let frame = there.datagram(Family::V4.at_peer(9), Family::V4.at_host(PORT), b"hello");
    wait_for("a frame", || {
        frames.send(&frame);
        try_receive(&mut set, 0, Duration::from_millis(50)).is_some()
    });
    assert!(set.connection.check().is_ok());
}
