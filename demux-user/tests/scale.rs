//! Many connections: of one client to one port, and of many hosts.
//!
//! And listing many, while packets go on changing them.

mod common;

use std::{
    collections::HashSet,
    fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use common::{
    chance::{Random, cases},
    crowd::with_crowd,
    demux::Demux,
    flood::{Mutator, Source},
    inside::{ACK, Inside, SYN, Stations, XDP_PASS, enter_confirmed, key, run},
    netns::Netns,
    pair::{FAMILIES, Family, HOST, PEER, Pair},
};
use demux_common::{connection::State, protocol::Protocol};
use demux_user::tables::Outcome;
use serde_json::Value;

/// A host with demux that nothing arrives at but what a test makes up.
fn loaded<'p>(pair: &'p Pair, options: &str) -> (Demux<'p>, Inside) {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} {options}"));
    let inside = Inside::of(&demux);
    (demux, inside)
}

fn stations(pair: &Pair) -> Stations {
    Stations {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    }
}

/// One host of very many.
fn host_number(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) + number)
}

#[test]
fn every_port_of_one_client_is_a_connection_of_its_own() {
    for family in FAMILIES {
        let pair = Pair::new();
        let (_demux, inside) = loaded(&pair, "");
        let stations = stations(&pair);
        let ifindex = pair.host.index(HOST);
        let at = family.at_host(443);
        pair.host.enter(|| {
            for port in 1..=u16::MAX {
                let syn = stations.segment(family.at_peer(port), at, SYN, [port.into(), 0]);
                assert_eq!(inside.arrives(&syn, ifindex), XDP_PASS);
            }
        });
        let mut ports = HashSet::new();
        for (found, connection) in inside.rows() {
            let port = found.remote_port;
            assert_eq!(found, key(Protocol::Tcp, at, family.at_peer(port)));
            assert_eq!(connection.state, State::Listen, "{found:?}");
            assert_eq!(connection.rx_packets, 1, "{found:?}");
            assert_eq!(connection.remote.next, u32::from(port) + 1, "{found:?}");
            assert!(ports.insert(port), "twice: {found:?}");
        }
        let all = usize::from(u16::MAX);
        assert_eq!(ports.len(), all);
        let counters = inside.tables.table_counters().unwrap();
        assert_eq!(counters.entered, all as u64);
        let others = [
            counters.untracked,
            counters.over_unconfirmed,
            counters.over_expired,
        ];
        assert_eq!(others, [0; 3], "{counters:?}");
    }
}

/// As many as one address has ephemeral ports, by default.
#[test]
fn a_client_may_have_28_000_connections_to_one_port() {
    const COUNT: usize = 28_000;
    let pair = Pair::new();
    let (demux, inside) = loaded(&pair, "--max-connections 65536 --default drop");
    let at = Family::V4.at_host(80);
    with_crowd(&pair.host, &pair.peer, at, COUNT, || {
        let rows = inside.rows();
        let ports: HashSet<u16> = rows.iter().map(|(key, _)| key.remote_port).collect();
        assert_eq!((rows.len(), ports.len()), (COUNT, COUNT));
        for (key, connection) in rows {
            assert!(
                connection.is_confirmed() && connection.state == State::Established,
                "{key:?} {connection:?}"
            );
        }
        assert_eq!(demux.item("status")["confirmed"], COUNT);
        assert_eq!(demux.run("connections --verify").status, 0);
        let counters = inside.tables.table_counters().unwrap();
        assert_eq!(
            (counters.untracked, counters.over_unconfirmed),
            (0, 0),
            "{counters:?}"
        );
    });
}

#[test]
fn a_million_connections_of_many_hosts_fit_a_table_for_a_million() {
    const COUNT: u32 = 1_000_000;
    let pair = Pair::new();
    let (demux, inside) = loaded(&pair, "--max-connections 1000000");
    let at = Family::V4.at_host(443);
    let commands: Vec<_> = (0..COUNT)
        .map(|number| {
            let remote = SocketAddr::from((host_number(number), 40_000));
            enter_confirmed(key(Protocol::Tcp, at, remote))
        })
        .collect();
    let outcomes = inside.control.execute(&commands).unwrap();
    let full = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Full)
        .count();
    let entered = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Done)
        .count();
    println!("{full} of {COUNT} found no room");
    assert_eq!(entered + full, COUNT as usize);
    assert!(full <= COUNT as usize / 1000, "{full} are untracked");
    let status = demux.item("status");
    assert_eq!(status["connections"], entered, "{status}");
    assert_eq!(status["confirmed"], entered, "{status}");

    // Each of them is the one that its packets find.
    let stations = stations(&pair);
    let ifindex = pair.host.index(HOST);
    let before = inside.tables.table_counters().unwrap();
    let found = (0..COUNT)
        .step_by(97)
        .filter(|&number| outcomes[number as usize] == Outcome::Done);
    let mut count = 0;
    pair.host.enter(|| {
        for number in found {
            let from = SocketAddr::from((host_number(number), 40_000));
            inside.arrives(&stations.segment(from, at, ACK, [1, 1]), ifindex);
            count += 1;
        }
    });
    assert_eq!(
        demux.count("pass", "connection"),
        count,
        "packets of known connections"
    );
    let after = inside.tables.table_counters().unwrap();
    assert_eq!(after.entered, before.entered);
}

#[test]
fn a_million_first_packets_make_a_million_rows() {
    const COUNT: u32 = 1_000_000;
    let pair = Pair::new();
    let (_demux, inside) = loaded(&pair, "--max-connections 1000000");
    let stations = stations(&pair);
    let ifindex = pair.host.index(HOST);
    let at = Family::V4.at_host(443);
    pair.host.enter(|| {
        let mut syn = stations.segment(SocketAddr::from((host_number(0), 40_000)), at, SYN, [1, 0]);
        for number in 0..COUNT {
            // The checksum is the stack's to look at.
            syn[26..30].copy_from_slice(&host_number(number).octets());
            assert_eq!(inside.arrives(&syn, ifindex), XDP_PASS);
        }
    });
    let counters = inside.tables.table_counters().unwrap();
    println!("{counters:?}");
    assert_eq!(
        counters.entered + counters.untracked,
        u64::from(COUNT),
        "{counters:?}"
    );
    assert!(
        counters.untracked <= u64::from(COUNT) / 1000,
        "{counters:?}"
    );
    // Where a window is full, an unconfirmed row goes, and the next few make do with the first line.
    assert!(
        counters.over_unconfirmed <= u64::from(COUNT) / 50,
        "{counters:?}"
    );
    let lost = counters.untracked + counters.over_unconfirmed;
    let hosts: HashSet<[u8; 4]> = inside
        .rows()
        .into_iter()
        .map(|(key, _)| key.remote_address.v4())
        .collect();
    assert_eq!(hosts.len() as u64, u64::from(COUNT) - lost);
}

#[test]
fn a_large_table_is_listed_while_packets_change_it() {
    const LISTINGS: usize = 2;
    let rows = cases(200_000) as u32;
    let pair = Pair::new();
    let (demux, inside) = loaded(&pair, "--max-connections 250000");
    let commands: Vec<_> = (0..rows)
        .map(|number| {
            let family = FAMILIES[number as usize % 2];
            enter_confirmed(key(
                Protocol::Tcp,
                family.at_host(443),
                remote(family, number),
            ))
        })
        .collect();
    let outcomes = inside.control.execute(&commands).unwrap();
    let known: HashSet<String> = (0..rows)
        .filter(|&number| outcomes[number as usize] == Outcome::Done)
        .map(|number| remote(FAMILIES[number as usize % 2], number).to_string())
        .collect();
    assert!(known.len() as u32 >= rows - rows / 1000);

    let is_over = AtomicBool::new(false);
    let mut random = Random::new();
    thread::scope(|scope| {
        scope.spawn(|| traffic(&pair, &inside, rows, &mut random, &is_over));
        let over = Over(&is_over);
        for _ in 0..LISTINGS {
            let (listed, peak) = list(&demux, &pair.host);
            println!("{} rows, {peak} KiB", listed.len());
            assert!(peak < 100 << 10, "{peak} KiB of memory");
            let found: HashSet<&str> = listed
                .iter()
                .filter(|row| row["confirmed"] == true)
                .map(|row| row["remote"].as_str().unwrap())
                .filter(|remote| known.contains(*remote))
                .collect();
            assert_eq!(found.len(), known.len(), "confirmed rows are missing");
        }
        drop(over);
    });
}

/// Ends the traffic, even if the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn remote(family: Family, number: u32) -> SocketAddr {
    match family {
        Family::V4 => (host_number(number), 40_000).into(),
        Family::V6 => (
            [
                0x2001,
                0xdb8,
                0,
                0,
                0,
                0,
                (number >> 16) as u16,
                number as u16,
            ],
            40_000,
        )
            .into(),
    }
}

/// Segments of the known connections, and first packets of others, which come and go.
fn traffic(pair: &Pair, inside: &Inside, rows: u32, random: &mut Random, is_over: &AtomicBool) {
    let stations = stations(pair);
    let ifindex = pair.host.index(HOST);
    let at = Family::V4.at_host(80);
    let flood = Mutator::new(Source::V4Tcp, inside.ingress());
    let syn = stations.segment(Family::V4.at_peer(1), at, SYN, [0, 0]);
    pair.host.enter(|| {
        while !is_over.load(Ordering::Relaxed) {
            for _ in 0..1000 {
                let number = random.below(rows as usize) as u32;
                let family = FAMILIES[number as usize % 2];
                let segment = stations.segment(
                    remote(family, number),
                    family.at_host(443),
                    ACK,
                    [random.next() as u32, random.next() as u32],
                );
                inside.arrives(&segment, ifindex);
            }
            run(flood.program(), &syn, ifindex, 1_000);
        }
    });
}

/// What `connections` lists, and the most memory that it took, in KiB.
fn list(demux: &Demux<'_>, host: &Netns) -> (Vec<Value>, u64) {
    let mut command = demux.command("connections --jsonl");
    command.stdout(Stdio::piped());
    let mut child = host.enter(|| command.spawn().unwrap());
    let mut peak = 0;
    let mut listed = Vec::new();
    let mut seen = HashSet::new();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for (number, line) in lines.enumerate() {
        let line = line.unwrap();
        if number % 256 == 0 {
            // It waits for its output to be read, and at its end has not seen more than a pipe can
            // hold since the last look.
            peak = peak.max(high_water(child.id()));
        }
        let row: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        check(&row);
        let identity = ["protocol", "local", "remote"].map(|name| row[name].to_string());
        assert!(seen.insert(identity), "twice: {line}");
        listed.push(row);
    }
    assert!(child.wait().unwrap().success());
    (listed, peak)
}

fn high_water(process: u32) -> u64 {
    let Ok(status) = fs::read_to_string(format!("/proc/{process}/status")) else {
        return 0;
    };
    // A process that has ended has no memory.
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .map_or(0, |value| {
            value.trim().trim_end_matches(" kB").parse().unwrap()
        })
}

/// What is the same of every row of this test, whatever changed while it was read.
#[track_caller]
fn check(row: &Value) {
    let number = |name: &str| {
        row[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {row}"))
    };
    for end in ["local", "remote"] {
        let endpoint: SocketAddr = row[end].as_str().unwrap().parse().unwrap();
        assert_eq!(row[format!("{end}_address")], endpoint.ip().to_string());
        assert_eq!(row[format!("{end}_port")], endpoint.port());
    }
    let is_known = row["local_port"] == 443;
    let (state, confirmed) = if is_known {
        ("ESTABLISHED", true)
    } else {
        ("LISTEN", false)
    };
    assert_eq!(row["state"], state, "{row}");
    assert_eq!(row["confirmed"], confirmed, "{row}");
    assert_eq!(row["protocol"], "tcp", "{row}");
    assert_eq!((number("tx_packets"), number("tx_bytes")), (0, 0), "{row}");
    // Every frame of the test is as long as those of its family; bytes are counted with packets.
    let length = if row["local_address"] == "10.0.0.2" {
        54
    } else {
        74
    };
    assert_eq!(number("rx_bytes"), length * number("rx_packets"), "{row}");
    if !is_known {
        assert!(number("rx_packets") >= 1, "{row}");
    }
    assert!(number("age_ms") >= number("idle_ms"), "{row}");
    assert!(number("expires_ms") > 0, "{row}");
}
