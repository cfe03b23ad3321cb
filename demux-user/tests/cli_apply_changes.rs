//! `demux apply` while packets arrive, and while somebody wants it to end.

mod common;

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use common::{
    chance::{Random, cases},
    demux::Demux,
    inside::{Inside, Stations, XDP_PASS},
    pair::{Family, HOST, PEER, Pair},
};
use demux_common::decide::Decision;
use demux_user::{
    bpffs::BpfFs,
    explain::Twin,
    netns::NetworkNamespace,
    state::{Instance, Lock},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A directory for configurations.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

const HEAD: &str = "[[interface]]\nname = 'host0'\nmode = 'generic'\n\
                    [instance]\nmax_connections = 4096\nmax_bindings = 1000\n";

/// A port that random bindings meet at.
const PORT: u16 = 80;

/// Addresses of this host that random bindings are to.
const ADDRESSES: [&str; 4] = ["10.0.0.2", "10.0.0.3", "fd00::2", "fd00::3"];

/// Bindings that meet at one port, each pattern once, to random targets. Names say nothing.
fn random(random: &mut Random) -> String {
    let patterns = [
        "10.0.0.2:80",
        "10.0.0.3:80",
        "10.0.0.2:70-90",
        "10.0.0.2:*",
        "[fd00::2]:80",
        "10.0.0.0/24:80",
        "10.0.0.0/24:*",
        "10.0.0.0/16:80",
        "10.0.0.2/31:*",
        "[fd00::/64]:80",
        "[fd00::/16]:*",
        "0.0.0.0:70-90",
        "0.0.0.0:*",
        "*:60-95",
        "*:0-100",
        "*:*",
    ];
    let mut text = String::from(HEAD);
    let mut number = 0;
    for pattern in patterns {
        let device = random.one_in(3);
        // One to a device and one without would conflict, where bind(2) could ask for both.
        if random.one_in(2) {
            continue;
        }
        let target = random.pick(&["stack", "drop", "reject", "xsk:nobody"]);
        let target = if target == "xsk:nobody" {
            "'xsk:nobody'\nfallback = 'drop'".to_owned()
        } else {
            format!("'{target}'")
        };
        let device = if device { "dev = 'host0'\n" } else { "" };
        let name = if random.one_in(2) {
            format!("name = 'n{number}'\n")
        } else {
            String::new()
        };
        number += 1;
        writeln!(
            text,
            "[[binding]]\nprotocol = 'udp'\nlocal = '{pattern}'\n{device}{name}to = {target}"
        )
        .unwrap();
    }
    text
}

/// What the datapath says of packets to several endpoints.
struct Probes {
    twin: Twin,
    ifindex: u32,
    frames: Vec<(SocketAddr, Vec<u8>)>,
}

/// What users see of a decision: not the entry of the binding, which is another one after each change.
type Answer = (String, String, String);

impl Probes {
    fn here(bpffs: &Path, ifindex: u32, stations: Stations) -> Self {
        let bpffs = BpfFs::find_or_mount(Some(bpffs)).unwrap();
        let cookie = NetworkNamespace::current().unwrap().cookie();
        let instance = Instance::open(&bpffs, cookie, Lock::Shared).unwrap();
        let mut frames = Vec::new();
        for address in ADDRESSES {
            let address: IpAddr = address.parse().unwrap();
            let from = match address {
                IpAddr::V4(_) => Family::V4,
                IpAddr::V6(_) => Family::V6,
            };
            for port in [PORT, 75, 99, 50_000] {
                let to = SocketAddr::new(address, port);
                let frame = stations.datagram(from.at_peer(40_000), to, b"probe");
                frames.push((to, frame));
            }
        }
        Self {
            twin: Twin::open(instance.paths()).unwrap(),
            ifindex,
            frames,
        }
    }

    fn answer(&self, frame: &[u8]) -> Answer {
        let Decision {
            verdict,
            reason,
            target,
            ..
        } = self.twin.explain(frame, self.ifindex).unwrap();
        (
            format!("{verdict:?}"),
            format!("{reason:?}"),
            format!("{target:?}"),
        )
    }

    fn answers(&self) -> Vec<Answer> {
        self.frames
            .iter()
            .map(|(_, frame)| self.answer(frame))
            .collect()
    }
}

/// Random bindings that have nothing to do with each other replace one another, again and again. Every
/// packet must go where the one set or the other one sends it.
#[test]
fn no_probe_sees_the_target_of_another_binding() {
    let pair = Pair::new();
    for address in ["10.0.0.3/24", "fd00::3/64"] {
        pair.host.add_address(HOST, address);
    }
    let demux = Demux::new(&pair.host);
    let files = Files::new();
    let stations = Stations {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    };
    let ifindex = pair.host.index(HOST);
    let apply = |path: &Path| demux.ok(&format!("apply --prune {}", path.display()));
    let probed = AtomicU64::new(0);
    let mut differing = 0;
    let mut dice = Random::new();
    for _ in 0..cases(5) {
        let first = files.write("first.toml", &random(&mut dice));
        let second = files.write("second.toml", &random(&mut dice));
        apply(&first);
        let before = pair
            .host
            .enter(|| Probes::here(demux.bpffs(), ifindex, stations).answers());
        apply(&second);
        let after = pair
            .host
            .enter(|| Probes::here(demux.bpffs(), ifindex, stations).answers());
        differing += before.iter().zip(&after).filter(|(a, b)| a != b).count();

        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let probing = scope.spawn(|| {
                pair.host.enter(|| {
                    let probes = Probes::here(demux.bpffs(), ifindex, stations);
                    while !stop.load(Ordering::Relaxed) {
                        for (number, (to, frame)) in probes.frames.iter().enumerate() {
                            let answer = probes.answer(frame);
                            assert!(
                                answer == before[number] || answer == after[number],
                                "{to} went to {answer:?}, neither to {:?} nor to {:?}\n{}\n{}",
                                before[number],
                                after[number],
                                fs::read_to_string(&first).unwrap(),
                                fs::read_to_string(&second).unwrap(),
                            );
                            probed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            });
            for _ in 0..4 {
                if probing.is_finished() {
                    break;
                }
                apply(&first);
                apply(&second);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
    let probed = probed.load(Ordering::Relaxed);
    println!("{probed} probes; {differing} endpoints had two answers");
    assert!(differing > 0 && probed > 0);
}

/// The program itself, with new connections and with one that goes on: two services change places.
#[test]
fn a_service_is_served_or_refused_and_never_confused() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let files = Files::new();
    let text = |one: &str, two: &str| {
        format!(
            "{HEAD}[[binding]]\nname = 'one'\nprotocol = 'udp'\nlocal = '10.0.0.2:1000'\nto = '{one}'\n\
             [[binding]]\nname = 'two'\nprotocol = 'udp'\nlocal = '10.0.0.2:2000'\nto = '{two}'\n\
             [[binding]]\nname = 'three'\nprotocol = 'udp'\nlocal = '10.0.0.2:3000'\nto = 'drop'\n\
             [[binding]]\nname = 'rest'\nprotocol = 'udp'\nlocal = '10.0.0.0/8:*'\nto = '{two}'\n"
        )
    };
    // The first always goes to the stack, the third never, whatever stands beside them.
    let first = files.write("first.toml", &text("stack", "drop"));
    let second = files.write(
        "second.toml",
        &text("stack", "stack").replace("'three'", "'drei'"),
    );
    let apply = |path: &Path| demux.ok(&format!("apply --prune {}", path.display()));
    apply(&first);
    let stations = Stations {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    };
    let ifindex = pair.host.index(HOST);
    let stop = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        let probing = scope.spawn(|| {
            pair.host.enter(|| {
                let inside = Inside::here(demux.bpffs());
                let mut port = 1024_u16;
                while !stop.load(Ordering::Relaxed) {
                    port = port.checked_add(1).unwrap_or(1024);
                    for from in [Family::V4.at_peer(port), Family::V4.at_peer(1024)] {
                        for (to, passes) in [(1000, true), (3000, false)] {
                            let to = Family::V4.at_host(to);
                            let frame = stations.datagram(from, to, b"probe");
                            let verdict = inside.arrives(&frame, ifindex);
                            assert_eq!(verdict == XDP_PASS, passes, "{from} to {to}: {verdict}");
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                assert_eq!(inside.damage(), Vec::<String>::new());
            });
        });
        for _ in 0..cases(12) {
            if probing.is_finished() {
                break;
            }
            apply(&second);
            apply(&first);
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{} datagrams", sent.load(Ordering::Relaxed));
}

/// Bindings of two configurations that have no name in common.
fn two_sets(files: &Files, count: u16) -> [PathBuf; 2] {
    [("first", "stack"), ("second", "drop")].map(|(name, target)| {
        let mut text = String::from(HEAD);
        for port in 1..=count {
            writeln!(
                text,
                "[[binding]]\nname = '{name}-{port}'\nprotocol = 'tcp'\nlocal = ':{}'\nto = '{target}'",
                if name == "first" { port } else { 2000 + port }
            )
            .unwrap();
        }
        files.write(name, &text)
    })
}

#[test]
fn a_signal_ends_it_before_or_after_the_change() {
    const COUNT: u16 = 300;
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let files = Files::new();
    let paths = two_sets(&files, COUNT);
    demux.ok(&format!("apply {}", paths[0].display()));
    let started = std::time::Instant::now();
    demux.ok(&format!("apply --prune {}", paths[1].display()));
    let duration = started.elapsed();
    let mut present = 1;
    let (mut killed, mut changed, rounds) = (0, 0, cases(18) as u32);
    for round in 0..rounds {
        let signal = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP][round as usize % 3];
        let wanted = 1 - present;
        let mut command = demux.command(&format!("apply --prune {}", paths[wanted].display()));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = pair.host.enter(|| command.spawn().unwrap());
        // Spread over the whole of it and a little beyond.
        thread::sleep(duration * (round + 1) / rounds + Duration::from_millis(1));
        let _ = kill(Pid::from_raw(child.id() as i32), signal);
        let status = child.wait().unwrap();
        killed += u32::from(status.signal() == Some(signal as i32));

        let names: Vec<String> = demux
            .items("bindings")
            .iter()
            .map(|row| row["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names.len(), usize::from(COUNT), "after {signal}: {status}");
        let is_of = |set: usize| {
            let prefix = ["first-", "second-"][set];
            names.iter().all(|name| name.starts_with(prefix))
        };
        assert!(
            is_of(present) || is_of(wanted),
            "half of it after {signal}: {names:?}"
        );
        if is_of(wanted) {
            present = wanted;
            changed += 1;
        }
        // What the datapath has is what the list says.
        let at = if present == 0 { 1 } else { 2001 };
        let line = format!("explain tcp from 10.0.0.1:4000 to 10.0.0.2:{at}");
        assert_eq!(
            demux.item(&line)["binding"].as_str(),
            Some(["first-1", "second-1"][present])
        );
    }
    println!("{rounds} signals: {killed} ended it, {changed} changes were made");
    assert!(killed > 0 && changed > 0);
}

#[test]
fn a_signal_while_it_loads_leaves_nothing_or_everything() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let files = Files::new();
    let path = two_sets(&files, 300)[0].clone();
    let line = format!("apply {}", path.display());
    let started = std::time::Instant::now();
    demux.ok(&line);
    let duration = started.elapsed();
    demux.ok("unload --all");
    let rounds = cases(6) as u32;
    for round in 0..rounds {
        let mut command = demux.command(&line);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = pair.host.enter(|| command.spawn().unwrap());
        thread::sleep(duration * (round + 1) / rounds);
        let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        child.wait().unwrap();
        let status = demux.run("status");
        if status.status == 0 {
            assert_eq!(demux.items("bindings").len(), 300);
            assert!(demux.interface(HOST).is_some());
            demux.ok("unload --all");
        } else {
            assert_eq!(status.status, 3, "{status}");
            assert!(pair.host.interface(HOST).xdp.is_none());
        }
    }
}
