//! A flood of spoofed packets beside connections that are in use.

mod common;

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    panic,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use common::{
    chance::cases,
    crowd::with_crowd,
    demux::Demux,
    flood::{FIRST_BYTE, Mutator, Source},
    inside::{ACK, Inside, SYN, Stations, key, run, run_live},
    netns::Netns,
    pair::{Family, HOST, PEER, Pair},
    sockets::{connect, listen, talk, udp},
};
use demux_common::{
    connection::{ConnectionKey, State},
    counters::TableCounters,
    protocol::Protocol,
};

/// Connections that are there before the flood.
const KNOWN: usize = 10_000;

/// Spoofed packets.
const FLOOD: usize = 20_000_000;

/// How many at once.
const BATCH: usize = 50_000;

/// Spoofed datagrams that a server answers.
const ANSWERED: usize = 200_000;

/// What is flooded, while it is.
const FLOODED: u16 = 8000;

#[test]
fn a_flood_displaces_no_connection_that_this_host_has_consented_to() {
    let pair = Pair::new();
    // What the host answers to whoever the packets say they are from goes to the peer.
    pair.host.add_default_route(&Family::V4.peer().to_string());
    let demux = Demux::new(&pair.host);
    // Every flooded packet is let in and makes a row, as far as there is room for it.
    demux.ok(&format!(
        "load {HOST} --default drop --max-connections 32768"
    ));
    demux.ok(&format!("bind tcp :{FLOODED} --to stack"));
    demux.ok(&format!("bind udp :{FLOODED} --to stack"));
    let inside = Inside::of(&demux);
    let at = Family::V4.at_host(80);
    with_crowd(&pair.host, &pair.peer, at, KNOWN, || {
        let before = confirmed(&inside);
        assert_eq!(before.len(), KNOWN);
        let new = flood_beside(&pair, &inside);

        let mut after = confirmed(&inside);
        let lost: Vec<_> = before
            .keys()
            .filter(|key| !after.contains_key(key))
            .collect();
        assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
        let status = demux.item("status");
        assert_eq!(status["confirmed"], after.len(), "{status}");
        // A source that sends again after it was answered counts as one that heard the answer.
        let mut assured = after.clone();
        assured.retain(|key, _| key.protocol == Protocol::Udp);
        println!("{} spoofed sources have come twice", assured.len());
        // Where the row of its first datagram was displaced before this host had answered, the answer
        // has opened one, and the next datagram is an answer to that.
        assert!(
            assured
                .values()
                .all(|state| matches!(state, State::Assured | State::Replied))
        );
        after.retain(|key, _| key.protocol == Protocol::Tcp);
        assert!(after.values().all(|state| *state == State::Established));
        assert_eq!(
            after.len(),
            KNOWN + new.len(),
            "no spoofed connection is confirmed"
        );
        for (client, _) in &new {
            let local = client.peer_addr().unwrap();
            let remote = client.local_addr().unwrap();
            let key = key(Protocol::Tcp, local, remote);
            assert!(after.contains_key(&key), "{key:?}");
        }
        assert_eq!(inside.damage(), Vec::<String>::new());
    });
}

/// Floods the host, and connects to it meanwhile; returns the new connections, which were all used.
fn flood_beside(pair: &Pair, inside: &Inside) -> Vec<(TcpStream, TcpStream)> {
    let listener = listen(&pair.host, Family::V4.at_host(443));
    let (goes_on, batches) = mpsc::channel();
    thread::scope(|scope| {
        let flood = scope.spawn(move || flood(pair, inside, &goes_on));
        let mut ends = Vec::new();
        // One for each batch, beside the next ones.
        for () in batches {
            let (mut client, mut server) = new_connection(&pair.peer, &listener);
            talk(&mut client, &mut server);
            talk(&mut client, &mut server);
            ends.push((client, server));
        }
        flood
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic));
        println!("{} connections beside the flood", ends.len());
        // What the flood made the table forget before a handshake was over is known again by what
        // they say.
        for (client, server) in &mut ends {
            talk(client, server);
        }
        ends
    })
}

fn new_connection(peer: &Netns, listener: &TcpListener) -> (TcpStream, TcpStream) {
    connect(peer, listener, Family::V4.at_host(443))
}

/// Every kind of first packet and of packet out of nowhere, and datagrams that are answered.
fn flood(pair: &Pair, inside: &Inside, goes_on: &mpsc::Sender<()>) {
    let stations = Stations {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    };
    let ifindex = pair.host.index(HOST);
    let v4 = (Family::V4.at_peer(1), Family::V4.at_host(FLOODED));
    let v6 = (Family::V6.at_peer(1), Family::V6.at_host(FLOODED));
    let tcp4 = Mutator::new(Source::V4Tcp, inside.ingress());
    let tcp6 = Mutator::new(Source::V6Tcp, inside.ingress());
    let udp4 = Mutator::new(Source::V4Udp, inside.ingress());
    let kinds = [
        (&tcp4, stations.segment(v4.0, v4.1, SYN, [0, 0])),
        (&tcp6, stations.segment(v6.0, v6.1, SYN, [0, 0])),
        (&tcp4, stations.segment(v4.0, v4.1, ACK, [0, 1])),
        (&tcp4, stations.segment(v4.0, v4.1, SYN | ACK, [0, 1])),
        (&udp4, stations.datagram(v4.0, v4.1, b"flood")),
    ];
    let packets = cases(FLOOD);
    let before = inside.tables.table_counters().unwrap();
    pair.host.enter(|| {
        for (batch, first) in (0..packets).step_by(BATCH).enumerate() {
            let (mutator, frame) = &kinds[batch % kinds.len()];
            let count = BATCH.min(packets - first);
            run(mutator.program(), frame, ifindex, count as u32);
            // Where nobody listens any more, that has failed, and says so.
            let _ = goes_on.send(());
        }
    });
    let after = inside.tables.table_counters().unwrap();
    told(packets as u64, &before, &after);

    let answered = answer(pair, inside, &stations, ifindex);
    println!("{answered} answers");
    assert!(answered > 0);
}

/// What the counters of the table say of a flood of so many packets.
fn told(packets: u64, before: &TableCounters, after: &TableCounters) {
    let entered = after.entered - before.entered;
    let displaced = after.over_unconfirmed - before.over_unconfirmed;
    let untracked = after.untracked - before.untracked;
    println!("{packets} packets: {entered} entered, {displaced} displaced, {untracked} untracked");
    // Hardly a source comes twice.
    assert!(entered + untracked >= packets - packets / 1000, "{after:?}");
    if packets as usize > 10 * 32_768 {
        // All but what the table can hold was displaced again.
        assert!(displaced > entered - 70_000, "{after:?}");
    }
    // There was room for all: those before them had to go.
    assert!(untracked <= packets / 100_000, "{after:?}");
}

/// Spoofed datagrams up the stack, to a server that answers; returns how often it has.
fn answer(pair: &Pair, inside: &Inside, stations: &Stations, ifindex: u32) -> u64 {
    let server = udp(&pair.host, Family::V4.at_host(FLOODED));
    server
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let answers = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let mutator = Mutator::new(Source::V4UdpSound, inside.ingress());
    let sound: IpAddr = Ipv4Addr::new(FIRST_BYTE, 0, !FIRST_BYTE, !0).into();
    let mut frame = stations.datagram(
        SocketAddr::new(sound, 1),
        Family::V4.at_host(FLOODED),
        b"question",
    );
    // No checksum.
    frame[40..42].fill(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 64];
            loop {
                match server.recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        assert_eq!(&buffer[..length], b"question");
                        // Port 0 cannot be answered.
                        if server.send_to(b"answer", from).is_ok() {
                            answers.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        if is_over.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                }
            }
        });
        let over = Over(&is_over);
        pair.host.enter(|| {
            for first in (0..cases(ANSWERED)).step_by(BATCH) {
                let count = BATCH.min(cases(ANSWERED) - first);
                run_live(mutator.program(), &frame, ifindex, count as u32);
            }
        });
        drop(over);
    });
    answers.load(Ordering::Relaxed)
}

/// Says that something is over, even if it has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The connections that the host has consented to.
fn confirmed(inside: &Inside) -> HashMap<ConnectionKey, State> {
    inside
        .rows()
        .into_iter()
        .filter(|(_, connection)| connection.is_confirmed())
        .map(|(key, connection)| (key, connection.state))
        .collect()
}
