//! Everybody who changes the connection table at once: packets on several CPUs, the controller, and
//! controllers that are killed.

mod common;

use std::{
    collections::{HashMap, HashSet},
    env,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use common::{
    chance::{Random, cases},
    demux::Demux,
    inside::{ACK, Inside, RST, SYN, Stations, enter_confirmed, key},
    pair::{FAMILIES, Family, HOST, PEER, Pair},
};
use demux_common::{command, connection::ConnectionKey, protocol::Protocol};
use demux_user::tables::Outcome;

/// Frames that each thread gives to the program.
const FRAMES: usize = 150_000;

/// The file system that a process finds its instance in, which is there to be killed.
const WORKER: &str = "DEMUX_TEST_WORKER";

/// Whose connections they are, by the second byte of their remote address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Entered by the controller, confirmed, and never removed.
    Lasting = 1,
    /// Entered, ended and removed by everybody.
    Everybody = 2,
    /// Of the processes that are killed, and of packets that make no row.
    Killed = 3,
}

/// The connection with a number, half of them over IPv6.
fn ends(owner: Owner, number: usize) -> (SocketAddr, SocketAddr) {
    let family = FAMILIES[number % 2];
    let [high, low] = (number as u16).to_be_bytes();
    let remote = match family {
        Family::V4 => (Ipv4Addr::new(100, owner as u8, high, low), 40_000).into(),
        Family::V6 => (
            [0x2001, 0xdb8, owner as u16, 0, 0, 0, 0, number as u16],
            40_000,
        )
            .into(),
    };
    (family.at_host(443), remote)
}

fn key_of(owner: Owner, number: usize) -> ConnectionKey {
    let (local, remote) = ends(owner, number);
    key(Protocol::Tcp, local, remote)
}

fn all_keys(owner: Owner, count: usize) -> Vec<ConnectionKey> {
    (0..count).map(|number| key_of(owner, number)).collect()
}

/// Segments of a remote whose sequence numbers begin at 1.
struct Remote<'a> {
    inside: &'a Inside,
    stations: Stations,
    ifindex: u32,
}

impl<'a> Remote<'a> {
    fn new(pair: &Pair, inside: &'a Inside) -> Self {
        Self {
            inside,
            stations: Stations {
                from: pair.peer.mac(PEER),
                to: pair.host.mac(HOST),
            },
            ifindex: pair.host.index(HOST),
        }
    }

    fn sends(&self, (local, remote): (SocketAddr, SocketAddr), flags: u8) {
        let sequence = if flags & SYN != 0 { 1 } else { 2 };
        let segment = self.stations.segment(remote, local, flags, [sequence, 1]);
        self.inside.arrives(&segment, self.ifindex);
    }
}

/// What is left, and must be sound: no line is lost or damaged, and no four-tuple has two rows.
#[track_caller]
fn sound(inside: &Inside) -> HashMap<ConnectionKey, bool> {
    assert_eq!(inside.damage(), Vec::<String>::new());
    let mut rows = HashMap::new();
    for (key, connection) in inside.rows() {
        let other = rows.insert(key, connection.is_confirmed());
        assert_eq!(other, None, "two rows of {key:?}");
    }
    rows
}

#[test]
fn packets_and_controllers_that_are_killed_leave_a_sound_table() {
    const LASTING: usize = 500;
    const CHANGING: usize = 400;
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    // Room for all, so that nothing is ever displaced.
    demux.ok(&format!("load {HOST} --max-connections 16384"));
    let inside = Inside::of(&demux);
    let commands: Vec<_> = all_keys(Owner::Lasting, LASTING)
        .into_iter()
        .map(enter_confirmed)
        .collect();
    assert!(done(&inside, &commands) == LASTING as u64);

    let (entered, removed) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    let mut random = Random::new();
    let remote = &Remote::new(&pair, &inside);
    thread::scope(|scope| {
        let over = Over(&is_over);
        let packets: Vec<_> = (0..3)
            .map(|_| {
                let mut random = random.fork();
                let host = &pair.host;
                scope.spawn(move || {
                    host.enter(|| {
                        for _ in 0..cases(FRAMES) {
                            if random.one_in(4) {
                                remote.sends(ends(Owner::Lasting, random.below(LASTING)), ACK);
                            } else {
                                let flags = random.pick(&[SYN, SYN, ACK, RST, RST]);
                                remote.sends(ends(Owner::Everybody, random.below(CHANGING)), flags);
                            }
                        }
                    });
                })
            })
            .collect();
        for _ in 0..2 {
            let mut random = random.fork();
            let (inside, is_over) = (&inside, &is_over);
            let (entered, removed) = (&entered, &removed);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let keys: Vec<_> = (0..command::BATCH)
                        .map(|_| key_of(Owner::Everybody, random.below(CHANGING)))
                        .collect();
                    if random.one_in(2) {
                        let enter: Vec<_> = keys.into_iter().map(enter_confirmed).collect();
                        entered.fetch_add(done(inside, &enter), Ordering::Relaxed);
                    } else {
                        let remove: Vec<_> =
                            keys.into_iter().map(command::Command::remove).collect();
                        removed.fetch_add(done(inside, &remove), Ordering::Relaxed);
                    }
                }
            });
        }
        let kills = {
            let mut random = random.fork();
            let (demux, is_over) = (&demux, &is_over);
            scope.spawn(move || {
                let mut kills = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let mut worker = start_worker(demux);
                    // Any moment will do.
                    thread::sleep(Duration::from_millis(20 + random.below(60) as u64));
                    worker.kill().unwrap();
                    worker.wait().unwrap();
                    kills += 1;
                }
                kills
            })
        };
        for thread in packets {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        drop(over);
        println!("{} processes killed", kills.join().unwrap());
    });

    let rows = sound(&inside);
    let of = |owner, count| -> HashSet<ConnectionKey> {
        let keys = all_keys(owner, count).into_iter();
        keys.filter(|key| rows.contains_key(key)).collect()
    };
    for key in all_keys(Owner::Lasting, LASTING) {
        assert_eq!(rows.get(&key), Some(&true), "{key:?} is lost");
    }
    let changing = of(Owner::Everybody, CHANGING);
    let killed = of(Owner::Killed, WORKER_KEYS);
    assert_eq!(rows.len(), LASTING + changing.len() + killed.len());
    // Everything that was ever entered is there, or its end was counted.
    let counters = inside.tables.table_counters().unwrap();
    let (entered, removed) = (entered.into_inner(), removed.into_inner());
    println!(
        "{counters:?}, entered {entered}, removed {removed}, left {}",
        changing.len()
    );
    assert_eq!(
        (
            counters.untracked,
            counters.over_unconfirmed,
            counters.over_expired
        ),
        (0, 0, 0)
    );
    assert_eq!(
        counters.entered + entered,
        changing.len() as u64 + counters.ended + removed
    );
    assert!(counters.ended > 0 && removed > 0, "nothing has happened");
    // Each row is found by its four-tuple, once.
    let all: Vec<_> = rows.keys().copied().map(command::Command::remove).collect();
    assert_eq!(done(&inside, &all), rows.len() as u64);
    assert_eq!(done(&inside, &all), 0);
    assert_eq!(sound(&inside), HashMap::new());
}

/// With hardly any room, every new row takes the place of another one.
#[test]
fn rows_that_displace_each_other_on_several_cpus_are_all_accounted_for() {
    const LASTING: usize = 24;
    const CHANGING: usize = 400;
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    let inside = Inside::of(&demux);
    let commands: Vec<_> = all_keys(Owner::Lasting, LASTING)
        .into_iter()
        .map(enter_confirmed)
        .collect();
    assert_eq!(done(&inside, &commands), LASTING as u64);
    let is_over = AtomicBool::new(false);
    let mut random = Random::new();
    let remote = &Remote::new(&pair, &inside);
    let given_back = thread::scope(|scope| {
        let over = Over(&is_over);
        let packets: Vec<_> = (0..3)
            .map(|_| {
                let mut random = random.fork();
                let host = &pair.host;
                scope.spawn(move || {
                    host.enter(|| {
                        for _ in 0..cases(FRAMES) {
                            let flags = random.pick(&[SYN, SYN, SYN, ACK, RST]);
                            remote.sends(ends(Owner::Everybody, random.below(CHANGING)), flags);
                        }
                    });
                })
            })
            .collect();
        let sweeper = scope.spawn(|| {
            let mut given_back = 0;
            while !is_over.load(Ordering::Relaxed) {
                let swept = inside.control.sweep(&inside.tables).unwrap();
                assert_eq!(swept.expired, 0);
                given_back += swept.given_back;
            }
            given_back
        });
        for thread in packets {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        drop(over);
        sweeper
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });

    let rows = sound(&inside);
    for key in all_keys(Owner::Lasting, LASTING) {
        assert_eq!(rows.get(&key), Some(&true), "{key:?} is lost");
    }
    let counters = inside.tables.table_counters().unwrap();
    println!("{counters:?}, {} rows, {given_back} given back", rows.len());
    assert!(counters.over_unconfirmed > 0, "nothing was displaced");
    assert_eq!(given_back, 0, "no writer has died");
    assert_eq!(
        counters.entered,
        (rows.len() - LASTING) as u64
            + counters.ended
            + counters.over_unconfirmed
            + counters.over_expired
    );
}

/// How many of the commands were done.
fn done(inside: &Inside, commands: &[command::Command]) -> u64 {
    let outcomes = inside.control.execute(commands).unwrap();
    assert!(!outcomes.contains(&Outcome::Full) && !outcomes.contains(&Outcome::None));
    outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Done)
        .count() as u64
}

/// Says that something is over, even if it has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const WORKER_KEYS: usize = 200;

/// Starts a process that enters, removes and sweeps until it is killed.
fn start_worker(demux: &Demux<'_>) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "worker_that_is_killed", "--ignored"])
        .env(WORKER, demux.bpffs())
        .stdout(Stdio::null());
    demux.netns().enter(|| command.spawn().unwrap())
}

#[test]
#[ignore = "runs in a process that is killed"]
fn worker_that_is_killed() {
    let Some(bpffs) = env::var_os(WORKER) else {
        return;
    };
    let inside = Inside::here(&PathBuf::from(bpffs));
    let keys = all_keys(Owner::Killed, WORKER_KEYS);
    loop {
        let enter: Vec<_> = keys.iter().copied().map(enter_confirmed).collect();
        done(&inside, &enter);
        inside.control.sweep(&inside.tables).unwrap();
        let remove: Vec<_> = keys.iter().copied().map(command::Command::remove).collect();
        done(&inside, &remove);
    }
}
