//! Named sets of sockets with real traffic, by sockets of their own and by way of the daemon.

mod common;

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use demux_common::protocol::Protocol;
use demux_user::{
    Error, Result,
    bpffs::BpfFs,
    xsk::{Access, CopyMode, Options, Received, Sent, Set, Via},
};
use etherparse::{LinkSlice, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use crate::common::{
    daemon::Daemon,
    demux::Demux,
    inside::{Inside, Stations, key},
    netns::Queues,
    pair::{FAMILIES, Family, HOST, PEER, Pair, quick_netns},
    sockets::{ask, udp},
    wait::wait_for,
};

const PORT: u16 = 7000;

/// Both ways to a set. The daemon must live as long as the set.
const WAYS: [Via; 2] = [Via::Direct, Via::Daemon];

/// A pair whose cable has so many queues each way.
fn pair(queues: u32) -> Pair {
    let pair = Pair {
        host: quick_netns(),
        peer: quick_netns(),
    };
    let queues = Queues {
        rx: queues,
        tx: queues,
    };
    pair.host
        .veth_with_queues(HOST, queues, &pair.peer, PEER, queues);
    for family in FAMILIES {
        let bits = if family == Family::V4 { 24 } else { 64 };
        let address = |address| format!("{address}/{bits}");
        pair.host.add_address(HOST, &address(family.host()));
        pair.peer.add_address(PEER, &address(family.peer()));
    }
    pair
}

/// A loaded host that sends the datagrams of a port to the set `echo`.
fn load<'n>(pair: &'n Pair, mode: &str) -> Demux<'n> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --mode {mode} --max-connections 1024"));
    demux.ok(&format!("bind udp :{PORT} --to xsk:echo"));
    demux
}

fn options(daemon: Option<&Daemon>) -> Options {
    let access = match daemon {
        Some(daemon) => Access::Daemon(Some(daemon.socket())),
        None => Access::Direct,
    };
    Options {
        access,
        ring_size: 256,
        ..Options::new("echo", HOST)
    }
}

fn open(demux: &Demux<'_>, options: &Options) -> Result<Set> {
    demux.netns().enter(|| {
        let bpffs = BpfFs::find(Some(demux.bpffs())).unwrap();
        Set::open_at(options, &bpffs)
    })
}

fn start(demux: &Demux<'_>, way: Via) -> Option<Daemon> {
    (way == Via::Daemon).then(|| Daemon::start(demux, ""))
}

/// The answer to a datagram: its own data, back to where it came from.
fn answer(frame: &[u8]) -> Vec<u8> {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(LinkSlice::Ethernet2(link)) = &packet.link else {
        panic!("Ethernet: {packet:?}");
    };
    let Some(TransportSlice::Udp(udp)) = &packet.transport else {
        panic!("a datagram: {packet:?}");
    };
    let builder = PacketBuilder::ethernet2(link.destination(), link.source());
    let builder = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            builder.ipv4(header.destination(), header.source(), 64)
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            builder.ipv6(header.destination(), header.source(), 64)
        }
        other => panic!("IP: {other:?}"),
    };
    let mut answer = Vec::new();
    builder
        .udp(udp.destination_port(), udp.source_port())
        .write(&mut answer, udp.payload())
        .unwrap();
    answer
}

/// Waits for a frame, and makes something of it.
fn receive<T>(set: &mut Set, make: impl FnOnce(Received<'_>) -> T) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        // Borrowed for one attempt only, so it is looked for twice.
        if set.wait(Some(Duration::from_secs(1))).unwrap()
            && let Some(received) = set.receive().unwrap()
        {
            return make(received);
        }
        assert!(Instant::now() < deadline, "waited in vain for a frame");
    }
}

fn echo(set: &mut Set) {
    let (queue, answer) = receive(set, |received| (received.queue(), answer(received.frame())));
    assert_eq!(set.send(queue, &answer).unwrap(), Sent::Queued);
    set.flush().unwrap();
}

fn heard(client: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 1 << 16];
    let (len, from) = client.recv_from(&mut bytes).unwrap();
    bytes.truncate(len);
    (bytes, from)
}

fn datagrams_are_echoed(mode: &str) {
    for (queues, way) in [(1, WAYS[0]), (4, WAYS[0]), (1, WAYS[1]), (4, WAYS[1])] {
        let pair = pair(queues);
        let demux = load(&pair, mode);
        let daemon = start(&demux, way);
        let mut set = open(&demux, &options(daemon.as_ref())).unwrap();
        assert_eq!(set.queues().len(), queues as usize);
        for (number, queue) in (0..).zip(set.queues()) {
            assert_eq!((queue.id.queue, queue.interface.as_str()), (number, HOST));
            assert_eq!((queue.zero_copy, queue.via), (false, way));
        }

        let mut seen = BTreeSet::new();
        let mut bytes = 0;
        for family in FAMILIES {
            for number in 0..32 {
                let client = udp(&pair.peer, family.at_peer(0));
                let data = vec![number as u8; 1 + 40 * number];
                client.send_to(&data, family.at_host(PORT)).unwrap();
                let (queue, answer) = receive(&mut set, |received| {
                    let expected = key(
                        Protocol::Udp,
                        family.at_host(PORT),
                        client.local_addr().unwrap(),
                    );
                    assert_eq!(received.connection(), Some(expected));
                    bytes += received.frame().len() as u64;
                    (received.queue(), answer(received.frame()))
                });
                seen.insert(queue);
                assert_eq!(set.send(queue, &answer).unwrap(), Sent::Queued);
                set.flush().unwrap();
                assert_eq!(heard(&client), (data, family.at_host(PORT)));
            }
            // The kernel's own sockets of the same interface and address go on.
            let server = udp(&pair.host, family.at_host(PORT + 1));
            let client = udp(&pair.peer, family.at_peer(0));
            ask(&client, &server, family.at_host(PORT + 1));
        }
        assert!(queues == 1 || seen.len() > 1, "several queues were used");

        let statistics = set.statistics().unwrap();
        let sum = |of: fn(&demux_user::xsk::QueueStatistics) -> u64| -> u64 {
            statistics.iter().map(of).sum()
        };
        assert_eq!(sum(|queue| queue.rx_packets), 64);
        assert_eq!(sum(|queue| queue.rx_bytes), bytes);
        assert_eq!(sum(|queue| queue.tx_packets), 64);
        assert_eq!(sum(|queue| queue.invalid + queue.tx_refused), 0);
    }
}

fn jumbo_frames_are_echoed(mode: &str) {
    for way in WAYS {
        let pair = pair(1);
        pair.host.set_mtu(HOST, 9000);
        pair.peer.set_mtu(PEER, 9000);
        let demux = load(&pair, mode);
        let daemon = start(&demux, way);
        for chunk_size in [2048, 4096] {
            let options = Options {
                chunk_size,
                ..options(daemon.as_ref())
            };
            let mut set = open(&demux, &options).unwrap();
            assert!(set.longest_frame() > 9014);
            for family in FAMILIES {
                let client = udp(&pair.peer, family.at_peer(0));
                for len in [1, 1745, 1760, 2000, 4000, 8900] {
                    let data: Vec<u8> = (0..len).map(|number| number as u8).collect();
                    client.send_to(&data, family.at_host(PORT)).unwrap();
                    echo(&mut set);
                    assert_eq!(heard(&client), (data, family.at_host(PORT)), "{len}");
                }
            }
        }
    }
}

common::in_both_modes! {
    datagrams_are_echoed
    jumbo_frames_are_echoed
}

#[test]
fn what_is_sent_is_in_the_connection_table() {
    let pair = pair(1);
    let demux = load(&pair, "native");
    for report in [true, false] {
        let options = Options {
            report,
            ..options(None)
        };
        let mut set = open(&demux, &options).unwrap();
        let queue = set.queues()[0].id;
        let remote = Family::V4.at_peer(if report { 5000 } else { 5001 });
        let peer = udp(&pair.peer, remote);
        let stations = Stations {
            from: pair.host.mac(HOST),
            to: pair.peer.mac(PEER),
        };
        let local = Family::V4.at_host(PORT);
        let frame = stations.datagram(local, remote, b"first");
        assert_eq!(set.send(queue, &frame).unwrap(), Sent::Queued);
        set.flush().unwrap();
        assert_eq!(heard(&peer), (b"first".to_vec(), local));
        let rows = Inside::of(&demux).rows();
        let row = rows
            .iter()
            .find(|(of, _)| *of == key(Protocol::Udp, local, remote));
        assert_eq!(row.is_some(), report);
        if let Some((_, row)) = row {
            assert_eq!((row.tx_packets, row.rx_packets), (1, 0));
        }
        peer.send_to(b"second", local).unwrap();
        receive(&mut set, |received| {
            assert_eq!(received.frame().len(), 14 + 20 + 8 + 6);
            assert_eq!(received.packet().map(<[u8]>::len), Some(20 + 8 + 6));
        });
    }
}

#[test]
fn each_queue_gets_its_turn() {
    let pair = pair(4);
    let demux = load(&pair, "native");
    let mut set = open(&demux, &options(None)).unwrap();
    // More from one client than from others, so that one queue has more than the others.
    let clients: Vec<UdpSocket> = (0..32)
        .map(|_| udp(&pair.peer, Family::V4.at_peer(0)))
        .collect();
    for _ in 0..40 {
        clients[0]
            .send_to(b"much", Family::V4.at_host(PORT))
            .unwrap();
    }
    for client in &clients {
        client.send_to(b"little", Family::V4.at_host(PORT)).unwrap();
    }
    wait_for("all frames to be there", || {
        demux.count("redirect", "bound") + demux.count("redirect", "connection") == 72
    });
    let mut order = Vec::new();
    while let Some(received) = set.receive().unwrap() {
        order.push(received.queue());
    }
    assert_eq!(order.len(), 72);
    let used: BTreeSet<_> = order.iter().copied().collect();
    assert!(used.len() > 1);
    let first: BTreeSet<_> = order[..used.len()].iter().copied().collect();
    assert_eq!(first, used, "one of each: {order:?}");
}

#[test]
fn waiting_ends_when_something_arrives_or_in_time() {
    for way in WAYS {
        let pair = pair(1);
        let demux = load(&pair, "native");
        let daemon = start(&demux, way);
        let mut set = open(&demux, &options(daemon.as_ref())).unwrap();
        let before = Instant::now();
        assert!(!set.wait(Some(Duration::from_millis(50))).unwrap());
        assert!(before.elapsed() >= Duration::from_millis(50));
        assert!(!set.wait(Some(Duration::ZERO)).unwrap());

        let client = udp(&pair.peer, Family::V4.at_peer(0));
        for _ in 0..20 {
            client.send_to(b"now", Family::V4.at_host(PORT)).unwrap();
            assert!(set.wait(None).unwrap());
            assert!(set.wait(None).unwrap(), "it is still there");
            assert!(set.receive().unwrap().is_some());
            assert!(!set.wait(Some(Duration::ZERO)).unwrap());
        }
    }
}

#[test]
fn tokio_can_wait() {
    for way in WAYS {
        let pair = pair(2);
        let demux = load(&pair, "native");
        let daemon = start(&demux, way);
        let mut set = open(&demux, &options(daemon.as_ref())).unwrap();
        let client = udp(&pair.peer, Family::V4.at_peer(0));
        client.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let client = tokio::net::UdpSocket::from_std(client).unwrap();
            let nothing = tokio::time::timeout(Duration::from_millis(50), async {
                loop {
                    set.ready().await.unwrap();
                    assert!(set.receive().unwrap().is_none());
                }
            });
            assert!(nothing.await.is_err());
            for number in 0..50_u8 {
                let ask = async {
                    client
                        .send_to(&[number], Family::V4.at_host(PORT))
                        .await
                        .unwrap();
                    let mut answer = [0];
                    client.recv_from(&mut answer).await.unwrap();
                    assert_eq!(answer, [number]);
                };
                let serve = async {
                    loop {
                        set.ready().await.unwrap();
                        if let Some(received) = set.receive().unwrap() {
                            let (queue, answer) = (received.queue(), answer(received.frame()));
                            set.send(queue, &answer).unwrap();
                            set.flush().unwrap();
                            break;
                        }
                    }
                };
                let both = async { tokio::join!(ask, serve) };
                tokio::time::timeout(Duration::from_secs(30), both)
                    .await
                    .expect("an answer");
            }
        });
    }
}

#[test]
fn a_descriptor_tells_what_a_loop_of_others_needs() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    for way in WAYS {
        let pair = pair(2);
        let demux = load(&pair, "native");
        let daemon = start(&demux, way);
        let mut set = open(&demux, &options(daemon.as_ref())).unwrap();
        let client = udp(&pair.peer, Family::V4.at_peer(0));
        let readable = |set: &Set, patience| {
            let patience = Timespec::try_from(patience).unwrap();
            let mut fds = [PollFd::from_borrowed_fd(set.as_fd(), PollFlags::IN)];
            poll(&mut fds, Some(&patience)).unwrap() == 1
        };
        for _ in 0..20 {
            while set.receive().unwrap().is_some() {}
            wait_for("silence", || {
                assert!(set.receive().unwrap().is_none());
                !readable(&set, Duration::ZERO)
            });
            client.send_to(b"hi", Family::V4.at_host(PORT)).unwrap();
            assert!(readable(&set, Duration::from_secs(30)));
            assert!(set.receive().unwrap().is_some());
        }
    }
}

#[test]
fn a_set_that_is_closed_can_be_opened_again() {
    let pair = pair(2);
    let demux = load(&pair, "native");
    let client = udp(&pair.peer, Family::V4.at_peer(0));
    for _ in 0..3 {
        let mut set = open(&demux, &options(None)).unwrap();
        client.send_to(b"again", Family::V4.at_host(PORT)).unwrap();
        echo(&mut set);
        assert_eq!(heard(&client).0, b"again");
    }
    let dropped = demux.count("drop", "no-target");
    client.send_to(b"nobody", Family::V4.at_host(PORT)).unwrap();
    wait_for("the fallback", || {
        demux.count("drop", "no-target") > dropped
    });
}

#[test]
fn an_interface_that_goes_is_told() {
    let pair = pair(2);
    let demux = load(&pair, "native");
    let mut waiting = open(&demux, &options(None)).unwrap();
    assert!(waiting.receive().unwrap().is_none());
    pair.peer.delete_link(PEER);
    let error = loop {
        match waiting.wait(Some(Duration::from_secs(30))) {
            // Frames may be left from before.
            Ok(is_there) => assert!(is_there, "it was never told"),
            Err(error) => break error,
        }
        while waiting.receive().is_ok_and(|received| received.is_some()) {}
    };
    assert!(error.to_string().contains(HOST), "{error}");
    assert!(waiting.check().is_err());
    // Who only looks is told, too.
    wait_for("an error", || waiting.receive().is_err());
}

#[test]
fn a_daemon_that_goes_is_told() {
    let pair = pair(1);
    let demux = load(&pair, "native");
    let mut daemon = Daemon::start(&demux, "");
    let mut set = open(&demux, &options(Some(&daemon))).unwrap();
    daemon.stop();
    let error = loop {
        match set.wait(Some(Duration::from_secs(30))) {
            Ok(is_there) => assert!(is_there, "it was never told"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, Error::NoDaemon(_) | Error::Refused { .. }),
        "{error}"
    );
    assert!(set.check().is_err());
    assert!(set.wait(Some(Duration::from_secs(30))).is_err(), "again");
}

#[test]
fn what_cannot_be_opened_is_refused() {
    let pair = pair(1);
    let demux = load(&pair, "native");
    let refused = |change: &dyn Fn(&mut Options)| {
        let mut options = options(None);
        change(&mut options);
        let error = open(&demux, &options).unwrap_err();
        (error.code().to_owned(), error.to_string())
    };
    for (what, change) in [
        (
            "chunk size",
            (|options| options.chunk_size = 1024) as fn(&mut Options),
        ),
        ("chunk size", |options| options.chunk_size = 8192),
        ("ring size", |options| options.ring_size = 16),
        ("ring size", |options| options.ring_size = 1000),
        ("ring size", |options| options.ring_size = 1 << 31),
        ("name of a socket set", |options| {
            options.name = "a b".into()
        }),
        ("number of interfaces", |options| options.interfaces.clear()),
    ] {
        let (code, message) = refused(&change);
        assert_eq!(code, "invalid_argument", "{message}");
        assert!(message.contains(what), "{message}");
    }
    let (code, _) = refused(&|options| options.interfaces = vec!["nowhere".into()]);
    assert_eq!(code, "unknown_interface");
    let (code, _) = refused(&|options| options.interfaces = vec!["lo".into()]);
    assert_eq!(code, "not_attached");
    let (code, message) = refused(&|options| options.copy = CopyMode::ZeroCopy);
    assert_eq!(code, "unsupported", "{message}");
    let (code, _) = refused(&|options| {
        options.access = Access::Daemon(Some("/nowhere/demux.sock".into()));
    });
    assert_eq!(code, "no_daemon");

    // What was refused has left nothing behind.
    let mut set = open(&demux, &options(None)).unwrap();
    let (code, message) = refused(&|_| {});
    assert_eq!(code, "socket_set_taken");
    assert!(message.contains("echo"), "{message}");
    let (code, message) = refused(&|options| options.name = "other".into());
    assert_eq!(code, "queue_busy");
    assert!(message.contains(&format!("{HOST} queue 0")), "{message}");

    let queue = set.queues()[0].id;
    let elsewhere = demux_user::xsk::QueueId { queue: 9, ..queue };
    for (queue, len) in [
        (elsewhere, 60),
        (queue, 13),
        (queue, set.longest_frame() + 1),
    ] {
        let error = set.send(queue, &vec![0; len]).unwrap_err();
        assert_eq!(error.code(), "invalid_argument");
    }
    // A ring takes what it holds and no more.
    let mut queued = 0;
    while set.send(queue, &[0; 60]).unwrap() == Sent::Queued {
        queued += 1;
    }
    assert_eq!(queued, 256);
    set.flush().unwrap();
    wait_for("room", || {
        set.flush().unwrap();
        set.send(queue, &[0; 60]).unwrap() == Sent::Queued
    });
}
