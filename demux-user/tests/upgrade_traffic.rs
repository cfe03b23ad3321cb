//! Upgrades under traffic of every kind and with thousands of connections: no packet meets another verdict
//! than it would have met without them, and no connection notices.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    os::fd::AsFd as _,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    bpf::xdp_program,
    chance::cases,
    crowd::with_crowd,
    demux::Demux,
    inside::{ACK, SYN, Stations, run_live},
    mixture::Mixture,
    netns::Netns,
    pair::{Family, HOST, PEER, Pair},
    places::all_places_agree,
    sockets::{ask, connect, listen, talk, udp},
    wait::wait_for,
};
use demux_common::protocol::Protocol;
use demux_user::sockets::{self, States};

/// Connections that are held and say nothing.
const CROWD: usize = 10_000;

/// Connections that talk all the time.
const TALKING: usize = 40;

const UPGRADES: usize = 50;

/// Where others use the machine, so much time is enough, for at least a few.
const BUDGET: Duration = Duration::from_secs(75);
const FEW: usize = 10;

/// Kinds of frames, by what becomes of them.
const DROP_BOUND: usize = 0;
const DROP_NO_SOCKET: usize = 1;
const PASS_BOUND: usize = 2;
const PASS_CONNECTION: usize = 3;

/// Frames that go to a binding that drops, made in the kernel, at a time.
const LIVE: u32 = 32_768;

const XDP_TX: u8 = 3;

/// Where the established datagrams come from and go to.
const FLOW: (u16, u16) = (40_053, 5300);

fn frames(pair: &Pair) -> Vec<(usize, Vec<u8>)> {
    let stations = Stations {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    };
    let mut frames = Vec::new();
    for number in 0..256 {
        let family = [Family::V4, Family::V6][number % 2];
        let from = family.at_peer(20_000 + number as u16);
        let at = |port| family.at_host(port);
        frames.push((DROP_BOUND, stations.datagram(from, at(9), b"to a drop")));
        frames.push((DROP_NO_SOCKET, stations.segment(from, at(81), SYN, [1, 0])));
        frames.push((DROP_NO_SOCKET, stations.segment(from, at(82), ACK, [7, 9])));
        frames.push((PASS_BOUND, stations.datagram(from, at(7000), b"untracked")));
        frames.push((DROP_NO_SOCKET, stations.datagram(from, at(83), b"nobody")));
        let (from, to) = (Family::V4.at_peer(FLOW.0), Family::V4.at_host(FLOW.1));
        frames.push((PASS_CONNECTION, stations.datagram(from, to, b"steady")));
    }
    frames
}

/// What was counted so far, by verdict and reason: what is dropped, and what passes by a binding; and
/// the packets of the flow.
fn counted(demux: &Demux<'_>) -> (BTreeMap<(String, String), u64>, u64) {
    let mut counts = BTreeMap::new();
    for row in demux.items("counters") {
        let word = |key: &str| row[key].as_str().unwrap().to_owned();
        let (verdict, reason) = (word("verdict"), word("reason"));
        if verdict != "pass" || reason == "bound" {
            *counts.entry((verdict, reason)).or_default() += row["packets"].as_u64().unwrap();
        }
    }
    let filter = format!("connections proto udp lport {} rport {}", FLOW.1, FLOW.0);
    let flow = demux.item(&filter);
    (counts, flow["rx_packets"].as_u64().unwrap())
}

/// Frames that the interface of the host had no room for.
fn lost(host: &Netns) -> u64 {
    let devices = host.enter(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    let line = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix(HOST)?.strip_prefix(':'));
    // Of what arrives: bytes, packets, errors, drops.
    let drops = line.unwrap().split_whitespace().nth(3);
    drops.unwrap().parse().unwrap()
}

/// The established connections at this port that the kernel of the present namespace has.
fn established(port: u16) -> usize {
    let mut count = 0;
    sockets::for_each(Protocol::Tcp, States::CONNECTED, |socket| {
        let is_at = socket.local.port() == port || socket.remote.port() == port;
        count += usize::from(is_at && socket.state.name() == "ESTABLISHED");
        Ok(())
    })
    .unwrap();
    count
}

#[test]
fn no_packet_and_no_connection_notices_an_upgrade() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!(
        "load {HOST} --default drop --max-connections 32768"
    ));
    demux.ok("bind udp :9 --to drop");
    demux.ok("bind udp :7000 --untracked");
    // Whose sockets let the kernel drop what they have no room for, without a word.
    let _v4 = udp(&pair.host, Family::V4.at_host(7000));
    let _v6 = udp(&pair.host, Family::V6.at_host(7000));
    let server = udp(&pair.host, Family::V4.at_host(FLOW.1));
    let client = udp(&pair.peer, Family::V4.at_peer(FLOW.0));
    for _ in 0..2 {
        ask(&client, &server, Family::V4.at_host(FLOW.1));
    }

    let listener = listen(&pair.host, Family::V6.at_host(443));
    let mut talking: Vec<_> = (0..TALKING)
        .map(|_| connect(&pair.peer, &listener, Family::V6.at_host(443)))
        .collect();
    let flood = frames(&pair).remove(0).1;
    let transmit = xdp_program("test_transmit", XDP_TX);
    let ifindex = pair.peer.index(PEER);
    let mixture = Mixture::new(&pair.peer, PEER, frames(&pair));
    let (is_over, words) = (AtomicBool::new(false), AtomicBool::new(false));
    let at = Family::V4.at_host(80);
    let sent = with_crowd(&pair.host, &pair.peer, at, CROWD, || {
        let (before, flow_before) = counted(&demux);
        let lost_before = lost(&pair.host);
        let established_before = demux.items("connections state established lport 80").len();
        assert_eq!(established_before, CROWD);
        let sent = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                pair.peer.enter(|| {
                    let mut live = 0;
                    let sent = mixture.send_until(&is_over, || {
                        run_live(transmit.as_fd(), &flood, ifindex, LIVE);
                        live += u64::from(LIVE);
                    });
                    (sent, live)
                })
            });
            let talker = scope.spawn(|| {
                let mut rounds = 0;
                while !words.load(Ordering::Relaxed) {
                    for (client, server) in &mut talking {
                        talk(client, server);
                    }
                    rounds += 1;
                    thread::sleep(Duration::from_millis(5));
                }
                rounds
            });
            let over = Over([&is_over, &words]);
            let mut slowest = Duration::ZERO;
            let began = Instant::now();
            let mut upgrades = 0;
            while upgrades < cases(UPGRADES) && (upgrades < FEW || began.elapsed() < BUDGET) {
                upgrades += 1;
                let upgrade = Instant::now();
                let run = demux.run_with("upgrade --force", before_others);
                assert_eq!(run.status, 0, "{run}");
                slowest = slowest.max(upgrade.elapsed());
            }
            println!(
                "{upgrades} upgrades in {:.1?}, the slowest in {slowest:.2?}",
                began.elapsed()
            );
            drop(over);
            println!("{} rounds of {TALKING} connections", talker.join().unwrap());
            sender.join().unwrap()
        });
        let (mut sent, live) = sent;
        // What found no room at the end of the cable has met no program.
        let lost = lost(&pair.host) - lost_before;
        sent.frames[DROP_BOUND] += live - lost;
        println!(
            "{:.0} frames a second: {:?}, {} without room",
            sent.rate(),
            sent.frames,
            sent.refused + lost
        );
        let mut expected = before;
        for (kind, verdict, reason) in [
            (DROP_BOUND, "drop", "bound"),
            (DROP_NO_SOCKET, "drop", "no-socket"),
            (PASS_BOUND, "pass", "bound"),
        ] {
            let key = (verdict.to_owned(), reason.to_owned());
            *expected.entry(key).or_default() += sent.frames[kind];
        }
        let expected = (expected, flow_before + sent.frames[PASS_CONNECTION]);
        let mut last = None;
        wait_for("the last frames to be counted", || {
            let now = counted(&demux);
            let is_all = now == expected;
            let is_still = last.as_ref() == Some(&now);
            last = Some(now);
            is_all || is_still
        });
        assert_eq!(last, Some(expected), "not every frame has met its verdict");

        // Nobody was told that a connection is over.
        let rows = demux.items("connections state established lport 80");
        assert_eq!(rows.len(), CROWD);
        for host in [&pair.host, &pair.peer] {
            assert_eq!(host.enter(|| established(80)), CROWD);
        }
        sent
    });
    assert!(sent.frames.iter().all(|frames| *frames > 0));
    for (client, server) in &mut talking {
        talk(client, server);
    }
    all_places_agree(&demux);
}

/// Has a command run before all others, because the verifier takes most of its time, and is not what
/// matters here.
fn before_others(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: the call is one of those that may be made between fork(2) and execve(2).
    unsafe {
        command.pre_exec(|| {
            libc::setpriority(libc::PRIO_PROCESS, 0, -10);
            Ok(())
        });
    }
}

/// Says that something is over, even if it has failed.
struct Over<'a>([&'a AtomicBool; 2]);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        for is_over in self.0 {
            is_over.store(true, Ordering::Relaxed);
        }
    }
}
