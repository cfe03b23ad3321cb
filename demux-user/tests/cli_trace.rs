//! `demux trace`: packets and what becomes of them, as they come.

mod common;

use std::net::SocketAddr;

use common::{
    demux::Demux,
    inside::{ACK, Inside, SYN, Stations},
    pair::{FAMILIES, Family, HOST, PEER, Pair},
    sockets::{ask, connect, listen, ping, talk, udp},
    stream::Stream,
    wait::wait_for,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn loaded(pair: &Pair) -> Demux<'_> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 1024"));
    demux
}

fn stations(pair: &Pair) -> Stations {
    Stations {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    }
}

#[test]
fn each_packet_is_shown_with_what_explain_would_say() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    demux.ok("bind tcp :80 --name web");
    demux.ok("bind udp :7 --to drop --name sink");
    let trace = Stream::start(&demux, "trace");
    for family in FAMILIES {
        let listener = listen(&pair.host, family.at_host(80));
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
        talk(&mut client, &mut server);
        let remote = client.local_addr().unwrap().to_string();
        let syn = trace.wait_for("a SYN", |row| {
            row["remote"] == *remote && row["flags"] == "syn"
        });
        let expected = json!({
            "iface": HOST, "direction": "in", "protocol": "tcp", "local": family.at_host(80).to_string(),
            "verdict": "pass", "reason": "bound", "stage": "binding", "binding": "web", "target": "stack",
            "segments": 1,
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&syn[key], value, "{key}: {syn}");
        }
        let answer = trace.wait_for("a SYN,ACK", |row| {
            row["remote"] == *remote && row["flags"] == "syn,ack"
        });
        assert_eq!(
            (&answer["direction"], &answer["verdict"], &answer["reason"]),
            (&"out".into(), &"pass".into(), &"egress".into())
        );
        let sequence = syn["sequence"].as_u64().unwrap() as u32;
        assert_eq!(answer["acknowledgement"], sequence.wrapping_add(1));
        trace.wait_for("an established segment", |row| {
            row["remote"] == *remote
                && row["reason"] == "connection"
                && row["stage"] == "connection"
        });
        let from = udp(&pair.peer, family.at_peer(0));
        from.send_to(b"x", family.at_host(7)).unwrap();
        let from = from.local_addr().unwrap().to_string();
        let dropped = trace.wait_for("a dropped datagram", |row| row["remote"] == *from);
        assert_eq!(
            (
                &dropped["verdict"],
                &dropped["target"],
                &dropped["binding"],
                &dropped["flags"]
            ),
            (&"drop".into(), &"drop".into(), &"sink".into(), &Value::Null)
        );
        ping(&pair.peer, family.host());
    }
    // What has no ports has no endpoints either.
    let other = trace.wait_for("an ICMP packet", |row| row["reason"] == "other-protocol");
    assert_eq!(
        (&other["local"], &other["stage"]),
        (&Value::Null, &"parse".into())
    );
    assert_eq!(trace.end(Signal::SIGINT), Some(0));
    wait_for("nobody", || demux.items("dump LISTENERS").is_empty());
}

#[test]
fn filters_see_one_connection_among_many() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let wanted = SocketAddr::new(Family::V4.peer(), 4001);
    let trace = Stream::start(&demux, &format!("trace remote {wanted} and lport 80-90"));
    let inside = Inside::of(&demux);
    let ifindex = pair.host.index(HOST);
    for port in 4000..4003 {
        for local in [79, 80, 90, 91] {
            let from = SocketAddr::new(Family::V4.peer(), port);
            let frame = stations(&pair).segment(from, Family::V4.at_host(local), SYN, [1, 0]);
            inside.arrives(&frame, ifindex);
        }
    }
    trace.wait_for("the last", |row| {
        row["local"] == *Family::V4.at_host(90).to_string()
    });
    let shown = trace.rows();
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown.iter().all(|row| row["remote"] == *wanted.to_string()));
    // The programs themselves have looked, and told nothing else.
    let told: u64 = demux
        .items("dump LISTENER_COUNTS")
        .iter()
        .map(|row| row["told"].as_u64().unwrap())
        .sum();
    assert_eq!(told, 2);
}

#[test]
fn verdicts_reasons_ways_and_interfaces_choose() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    demux.ok("bind udp :7 --to drop");
    let server = udp(&pair.host, Family::V4.at_host(53));
    let client = udp(&pair.peer, Family::V4.at_peer(0));
    let play = || {
        ask(&client, &server, Family::V4.at_host(53));
        client.send_to(b"x", Family::V4.at_host(7)).unwrap();
    };
    for (options, is_wanted) in [
        (
            "--verdict drop",
            (|row: &Value| row["verdict"] == "drop") as fn(&Value) -> bool,
        ),
        ("--reason bound", |row| row["reason"] == "bound"),
        ("--way out", |row| row["direction"] == "out"),
        ("--way in --verdict pass", |row| {
            row["direction"] == "in" && row["verdict"] == "pass"
        }),
        ("--iface host0 proto udp", |row| row["protocol"] == "udp"),
    ] {
        let trace = Stream::start(&demux, &format!("trace {options}"));
        play();
        play();
        trace.wait_for(options, is_wanted);
        let rows = trace.rows();
        assert!(rows.iter().all(is_wanted), "{options}: {rows:?}");
        assert_eq!(trace.end(Signal::SIGTERM), Some(0));
    }
}

#[test]
fn what_is_beyond_the_rate_is_counted_and_not_shown() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let trace = Stream::start(&demux, "trace --rate 1 --way in proto tcp");
    let inside = Inside::of(&demux);
    let from = Family::V4.at_peer(4000);
    let frame = stations(&pair).segment(from, Family::V4.at_host(80), SYN, [1, 0]);
    for _ in 0..500 {
        inside.arrives(&frame, pair.host.index(HOST));
    }
    trace.wait_for("one", |row| row["flags"] == "syn");
    let sums = demux.items("dump LISTENER_COUNTS");
    let sum = |key: &str| -> u64 { sums.iter().map(|row| row[key].as_u64().unwrap()).sum() };
    assert_eq!(sum("told") + sum("held_back"), 500);
    assert!(sum("held_back") > 400, "{sums:?}");
    drop(trace);

    let trace = Stream::start(&demux, "trace --sample 1000000 --way in proto tcp");
    for _ in 0..500 {
        inside.arrives(&frame, pair.host.index(HOST));
    }
    assert!(trace.rows().len() < 100);
}

#[test]
fn a_trace_changes_nothing_for_packets_and_ends_without_a_trace() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let inside = Inside::of(&demux);
    let ifindex = pair.host.index(HOST);
    let from = Family::V4.at_peer(4000);
    let frames = [(SYN, [1, 0]), (ACK, [2, 1]), (ACK, [3, 1])].map(|(flags, numbers)| {
        stations(&pair).segment(from, Family::V4.at_host(80), flags, numbers)
    });
    let play = || frames.clone().map(|frame| inside.arrives(&frame, ifindex));
    let before = play();
    let trace = Stream::start(&demux, "trace");
    assert_eq!(play(), before);
    trace.end(Signal::SIGKILL);
    assert_eq!(play(), before);
    // The lease of the dead runs out, and whoever comes next takes his place at once.
    let next = Stream::start(&demux, "trace --count 1");
    play();
    assert_eq!(next.ended(), Some(0));
    assert_eq!(demux.item("dump CONFIG")["trace_until"], 0);
}

#[test]
fn bad_words_are_refused() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    for (line, words) in [
        ("trace state established", "state"),
        ("trace dir in", "dir"),
        ("trace --way out --verdict drop", "no verdict"),
        ("trace lport x", "x"),
    ] {
        demux.refused(line, 2, "invalid_argument").says(&[words]);
    }
    for line in [
        "trace --verdict x",
        "trace --reason x",
        "trace --sample 0",
        "trace --count 0",
        "trace --duration 0",
    ] {
        assert_eq!(demux.run(line).status, 2, "{line}");
    }
    let run = demux.run("trace --iface nowhere0");
    assert_eq!(run.status, 3, "{run}");
}
