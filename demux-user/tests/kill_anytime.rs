//! `kill -9` of commands and of the daemon at any moment, under traffic and changes: what nobody touches
//! goes on as if nothing had happened, and what was being changed is afterwards one thing or the other.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    chance::{Random, cases},
    daemon::Daemon,
    demux::Demux,
    inside::Inside,
    pair::{Family, HOST, Pair},
    sockets::{ask, connect, is_silent, listen, talk, udp},
};

/// Commands that are killed.
const KILLS: usize = 200;

/// How many commands are killed between two deaths of the daemon.
const DAEMON_EVERY: usize = 8;

/// Connections that nobody touches.
const CONNECTIONS: usize = 20;

/// Bindings that nobody touches, which those that come and go overlap.
const KEPT: [&str; 4] = [
    "bind udp :6000 --name kept-wildcard",
    "bind udp 10.0.0.2:6160 --name kept-address",
    "bind udp :6150 --reuse-addr --name kept-beside",
    "bind udp :6200-6299 --to drop --name kept-range",
];

/// Where datagrams are answered, whatever comes and goes.
const ANSWERED: [u16; 3] = [6000, 6160, 6150];

/// Where none ever arrives.
const SILENT: u16 = 6250;

/// Bindings that come and go, each with a packet that it would have; none is so specific that it could
/// take anything from those that are kept.
const CHANGING: [(&str, &str, &str); 6] = [
    (
        "range",
        "udp :6000-6199 --to drop",
        "udp from 10.0.0.1:1 to 10.0.0.2:6001",
    ),
    (
        "prefix",
        "udp 10.0.0.0/30:6170 --to drop",
        "udp from 10.0.0.1:1 to 10.0.0.2:6170",
    ),
    (
        "port",
        "tcp :7001 --to drop",
        "tcp from 10.0.0.1:1 to 10.0.0.2:7001",
    ),
    (
        "address",
        "tcp 10.0.0.2:7002",
        "tcp from 10.0.0.1:1 to 10.0.0.2:7002",
    ),
    (
        "cpu",
        "tcp :7003 --to cpu:0",
        "tcp from 10.0.0.1:1 to 10.0.0.2:7003",
    ),
    (
        "any",
        "udp :* --to drop",
        "udp from 10.0.0.1:1 to 10.0.0.2:1234",
    ),
];

/// What may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Apply,
    Bind,
    Unbind,
    Set,
    Load,
    Unload,
    Upgrade,
}

/// What nobody touches: it talks until the test is over, and fails if anything is not as ever.
struct Traffic {
    streams: Vec<(TcpStream, TcpStream)>,
    client: UdpSocket,
    servers: Vec<(u16, UdpSocket)>,
    silent: UdpSocket,
}

impl Traffic {
    fn begin(pair: &Pair) -> Self {
        let listener = listen(&pair.host, Family::V4.at_host(80));
        Self {
            streams: (0..CONNECTIONS)
                .map(|_| connect(&pair.peer, &listener, Family::V4.at_host(80)))
                .collect(),
            client: udp(&pair.peer, Family::V4.at_peer(40_000)),
            servers: ANSWERED
                .iter()
                .map(|port| (*port, udp(&pair.host, Family::V4.at_host(*port))))
                .collect(),
            silent: udp(&pair.host, Family::V4.at_host(SILENT)),
        }
    }

    fn round(&mut self) {
        for (client, server) in &mut self.streams {
            talk(client, server);
        }
        for (port, server) in &self.servers {
            ask(&self.client, server, Family::V4.at_host(*port));
        }
        self.client
            .send_to(b"nobody's", Family::V4.at_host(SILENT))
            .unwrap();
        assert!(is_silent(&self.silent), "a binding was not obeyed");
    }
}

/// The names of the bindings.
fn listed(demux: &Demux<'_>) -> BTreeSet<String> {
    let items = demux.items("bindings");
    let name = |item: &serde_json::Value| item["name"].as_str().unwrap().to_owned();
    items.iter().map(name).collect()
}

/// Chooses a command that makes sense, and says which binding it is about.
fn choose(
    random: &mut Random,
    present: &BTreeSet<String>,
    files: &Path,
) -> (Kind, String, Option<usize>) {
    let number = random.below(CHANGING.len());
    let (name, pattern, _) = CHANGING[number];
    match random.below(16) {
        0..3 if !present.contains(name) => {
            let file = file(files, number);
            (
                Kind::Apply,
                format!("apply {}", file.display()),
                Some(number),
            )
        }
        0..9 if present.contains(name) => (Kind::Unbind, format!("unbind {name}"), Some(number)),
        0..9 => (
            Kind::Bind,
            format!("bind {pattern} --name {name}"),
            Some(number),
        ),
        9..11 => {
            let seconds = 8000 + random.below(100);
            let line = format!("set timeout.established={seconds} ephemeral.algorithm=random");
            (Kind::Set, line, None)
        }
        11..13 => (Kind::Load, "load v0".to_owned(), None),
        13..15 => (Kind::Unload, "unload v0".to_owned(), None),
        _ => (Kind::Upgrade, "upgrade --force".to_owned(), None),
    }
}

/// The file that asks for one of the bindings that come and go.
fn file(directory: &Path, number: usize) -> PathBuf {
    let (name, pattern, _) = CHANGING[number];
    let mut words = pattern.split_whitespace();
    let (protocol, local) = (words.next().unwrap(), words.next().unwrap());
    let target = words.nth(1).unwrap_or("stack");
    let path = directory.join(format!("{name}.toml"));
    let text = format!(
        "[[binding]]\nname = '{name}'\nprotocol = '{protocol}'\nlocal = '{local}'\nto = '{target}'\n"
    );
    fs::write(&path, text).unwrap();
    path
}

/// Whether the packet that a binding would have goes by it.
fn is_in_effect(demux: &Demux<'_>, number: usize) -> bool {
    let (name, _, packet) = CHANGING[number];
    demux.item(&format!("explain {packet} --iface {HOST}"))["binding"] == name
}

#[test]
fn whoever_is_killed_leaves_nothing_broken() {
    let pair = Pair::new();
    pair.host.veth("v0", &pair.peer, "v1");
    let demux = Demux::new(&pair.host);
    demux.ok(&format!(
        "load {HOST} --default drop --max-connections 1024"
    ));
    for line in KEPT {
        demux.ok(line);
    }
    let kept: BTreeSet<String> = listed(&demux);
    let mut traffic = Traffic::begin(&pair);
    let mut random = Random::new();
    // How long each takes, so that any moment of it is as likely as any other.
    let mut lasts: BTreeMap<Kind, Duration> = BTreeMap::new();
    let mut whole = |kind, line: &str| {
        let began = Instant::now();
        demux.ok(line);
        lasts.insert(kind, began.elapsed());
    };
    whole(Kind::Bind, "bind udp :* --to drop --name any");
    whole(Kind::Unbind, "unbind any");
    let files = tempfile::tempdir().unwrap();
    let any = file(files.path(), CHANGING.len() - 1);
    whole(Kind::Apply, &format!("apply {}", any.display()));
    demux.ok("unbind any");
    whole(Kind::Set, "set timeout.established=8000");
    whole(Kind::Load, "load v0");
    whole(Kind::Unload, "unload v0");
    whole(Kind::Upgrade, "upgrade --force");

    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let over = Over(&is_over);
        let talker = scope.spawn(|| {
            let mut rounds = 0;
            while !is_over.load(Ordering::Relaxed) {
                traffic.round();
                rounds += 1;
            }
            rounds
        });
        let mut daemon = Daemon::start(&demux, "");
        let directory = Arc::clone(daemon.directory());
        let (mut resumed, mut next) = (Vec::new(), Vec::new());
        let mut killed: BTreeMap<Kind, [usize; 2]> = BTreeMap::new();
        let mut present = listed(&demux);
        for number in 0..cases(KILLS) {
            assert!(!talker.is_finished(), "what nobody touches has suffered");
            if number % DAEMON_EVERY == 0 {
                daemon.signal(nix::sys::signal::Signal::SIGKILL);
                daemon.wait();
                let began = Instant::now();
                daemon = Daemon::start_in(&demux, &directory);
                resumed.push(began.elapsed());
            }
            let (kind, line, about) = choose(&mut random, &present, files.path());
            let mut command = demux.command(&line);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = demux.netns().enter(|| command.spawn()).unwrap();
            let most = lasts[&kind].as_micros() as usize;
            let moment = random.below(most + most / 4) as u64;
            thread::sleep(Duration::from_micros(moment));
            let ended = child.try_wait().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            killed.entry(kind).or_default()[usize::from(ended.is_some())] += 1;

            // The next command works, at once.
            let began = Instant::now();
            let now = listed(&demux);
            next.push(began.elapsed());
            let context = format!("after {line:?} was killed in {moment} us: {present:?} {now:?}");
            assert!(kept.is_subset(&now), "{context}");
            let touched = about.map(|number| CHANGING[number].0);
            for name in present.symmetric_difference(&now) {
                assert_eq!(Some(name.as_str()), touched, "{context}");
            }
            if let (Some(number), Some(name)) = (about, touched) {
                if ended.is_some_and(|status| status.success()) {
                    assert_eq!(now.contains(name), kind != Kind::Unbind, "{context}");
                }
                // What is listed is in effect, and what is not is not.
                assert_eq!(
                    is_in_effect(&demux, number),
                    now.contains(name),
                    "{context}"
                );
            }
            let interface = demux.interface(HOST).unwrap();
            assert_eq!(interface["attached"], true, "{context}: {interface}");
            assert_eq!(interface["egress_attached"], true, "{context}: {interface}");
            present = now;
        }
        drop(over);
        println!("{} rounds of traffic", talker.join().unwrap());
        println!("killed, and ended before: {killed:?}");
        for (what, times) in [
            ("the daemon", &mut resumed),
            ("the next command", &mut next),
        ] {
            times.sort_unstable();
            let (middle, most) = (times[times.len() / 2], times[times.len() - 1]);
            println!("{what} is there in {middle:.1?}, {most:.1?} at the most");
            assert!(middle < Duration::from_secs(1), "{what}: {middle:?}");
        }
    });

    let rows = demux.items("connections state established lport 80");
    assert_eq!(rows.len(), CONNECTIONS);
    demux.ok("load v0");
    demux.ok("upgrade --force");
    common::places::all_places_agree(&demux);
    for (number, (name, ..)) in CHANGING.iter().enumerate() {
        let is_listed = listed(&demux).contains(*name);
        assert_eq!(is_in_effect(&demux, number), is_listed, "{name}");
    }
    assert_eq!(demux.item("status")["warnings"], serde_json::json!([]));
    traffic.round();
    assert_eq!(Inside::of(&demux).damage(), Vec::<String>::new());
}

/// Says that something is over, even if it has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
