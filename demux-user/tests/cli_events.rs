//! `demux events`: what becomes of connections, told as it happens.

mod common;

use std::{collections::HashSet, net::SocketAddr};

use common::{
    demux::Demux,
    inside::{Inside, SYN, Stations},
    pair::{FAMILIES, Family, HOST, PEER, Pair},
    sockets::{ask, connect, listen, talk, udp},
    stream::Stream,
    wait::{wait_for, wait_for_some},
};
use nix::sys::signal::Signal;
use serde_json::Value;

fn loaded(pair: &Pair, connections: u32) -> Demux<'_> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections {connections}"));
    demux
}

/// The events of one local port, with the state that each has led to.
fn of_port(rows: &[Value], port: u16) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rows.iter()
        .filter(|row| row["local_port"] == port)
        .map(|row| (text(&row["event"]), text(&row["state"])))
        .collect()
}

#[test]
fn a_tcp_connection_is_told_from_its_first_packet_to_its_last() {
    let pair = Pair::new();
    let demux = loaded(&pair, 1024);
    demux.ok("bind tcp :80 --name web");
    let events = Stream::start(&demux, "events");
    for family in FAMILIES {
        let listener = listen(&pair.host, family.at_host(80));
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
        talk(&mut client, &mut server);
        let remote = client.local_addr().unwrap().to_string();
        // This host finishes first, so nothing is left in TIME-WAIT at the peer.
        drop(server);
        drop(client);
        let is_last = |row: &Value| row["remote"] == *remote && row["state"] == "TIME-WAIT";
        let last = events.wait_for("TIME-WAIT", is_last);
        assert_eq!(
            (&last["event"], &last["previous_state"], &last["binding"]),
            (&"state".into(), &"FIN-WAIT-2".into(), &"web".into())
        );
        assert!(last["rx_packets"].as_u64() >= Some(4), "{last}");
        assert!(last["tx_bytes"].as_u64() >= Some(200), "{last}");
        let seen: Vec<Value> = events
            .rows()
            .into_iter()
            .filter(|row| row["remote"] == *remote)
            .collect();
        let seen = of_port(&seen, 80);
        let seen: Vec<_> = seen
            .iter()
            .map(|(event, state)| (event.as_str(), state.as_str()))
            .collect();
        // Which of the two FINs is acknowledged first is chance.
        let begin = [
            ("new", "LISTEN"),
            ("state", "SYN-RECEIVED"),
            ("established", "ESTABLISHED"),
            ("state", "FIN-WAIT-1"),
        ];
        assert_eq!(seen[..begin.len()], begin, "{seen:?}");
    }
    assert_eq!(events.end(Signal::SIGINT), Some(0));
    // Its place is given back.
    wait_for("nobody", || demux.items("dump LISTENERS").is_empty());
    assert_eq!(demux.item("dump CONFIG")["events_until"], 0);
}

#[test]
fn datagrams_and_resets_are_told() {
    let pair = Pair::new();
    let demux = loaded(&pair, 1024);
    let events = Stream::start(&demux, "events");
    let server = udp(&pair.host, Family::V4.at_host(53));
    let client = udp(&pair.peer, Family::V4.at_peer(4000));
    ask(&client, &server, Family::V4.at_host(53));
    ask(&client, &server, Family::V4.at_host(53));
    events.wait_for("ASSURED", |row| {
        row["event"] == "established" && row["state"] == "ASSURED" && row["protocol"] == "udp"
    });
    // Nobody listens there: the kernel answers with a reset, which ends the row.
    let refused = pair
        .peer
        .enter(|| std::net::TcpStream::connect(Family::V4.at_host(81)));
    assert!(refused.is_err());
    let closed = events.wait_for("the end", |row| {
        row["event"] == "closed" && row["local_port"] == 81
    });
    assert_eq!(closed["tx_packets"], 1, "{closed}");
}

#[test]
fn what_a_user_ends_and_what_expires_is_told() {
    let pair = Pair::new();
    let demux = loaded(&pair, 1024);
    let events = Stream::start(&demux, "events --event closed,expired");
    let server = udp(&pair.host, Family::V4.at_host(53));
    let client = udp(&pair.peer, Family::V4.at_peer(4000));
    ask(&client, &server, Family::V4.at_host(53));
    demux.ok("kill --forget lport 53");
    events.wait_for("closed", |row| row["event"] == "closed");
    demux.ok("set timeout.replied=1 timeout.unreplied=1");
    ask(&client, &server, Family::V4.at_host(53));
    let expired = wait_for_some("expired", || {
        demux.ok("clean");
        events
            .rows()
            .into_iter()
            .find(|row| row["event"] == "expired")
    });
    assert_eq!(
        (&expired["local_port"], &expired["expires_ms"]),
        (&53.into(), &0.into())
    );
    assert!(events.rows().iter().all(|row| row["event"] != "new"));
}

#[test]
fn filters_and_a_count_choose_what_is_shown() {
    let pair = Pair::new();
    let demux = loaded(&pair, 1024);
    let events = Stream::start(&demux, "events lport 54 --event new --count 2");
    for port in [53, 54, 55, 54] {
        let from = udp(&pair.peer, Family::V4.at_peer(0));
        from.send_to(b"x", Family::V4.at_host(port)).unwrap();
    }
    let rows = wait_for_some("two rows", || {
        let rows = events.rows();
        (rows.len() == 2).then_some(rows)
    });
    assert!(
        rows.iter()
            .all(|row| row["local_port"] == 54 && row["event"] == "new")
    );
    assert_eq!(events.ended(), Some(0));
    let run = demux.run("events --event nonsense");
    assert_eq!(run.status, 2, "{run}");
    let run = demux.run("events state nonsense");
    assert_eq!(run.status, 2, "{run}");
}

#[test]
fn evicted_and_untracked_connections_are_told() {
    let pair = Pair::new();
    let demux = loaded(&pair, 64);
    let events = Stream::start(&demux, "events --event evicted,untracked");
    let inside = Inside::of(&demux);
    let stations = Stations {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    };
    let ifindex = pair.host.index(HOST);
    for port in 1..=2000 {
        let from = SocketAddr::new(Family::V4.peer(), port);
        let syn = stations.segment(from, Family::V4.at_host(80), SYN, [1, 0]);
        inside.arrives(&syn, ifindex);
    }
    let evicted = events.wait_for("evicted", |row| row["event"] == "evicted");
    assert_eq!(evicted["state"], "LISTEN");
    let displaced = demux.item("status")["displaced"].as_u64().unwrap();
    wait_for("all evicted", || {
        let rows = events.rows();
        rows.iter().filter(|row| row["event"] == "evicted").count() as u64 == displaced
    });
    // Each is a four-tuple of its own.
    let remotes: HashSet<_> = events
        .rows()
        .iter()
        .map(|row| row["remote"].to_string())
        .collect();
    assert_eq!(remotes.len() as u64, displaced);
}

#[test]
fn a_ring_that_is_full_loses_events_and_says_how_many() {
    let pair = Pair::new();
    let demux = loaded(&pair, 100_000);
    let events = Stream::start(&demux, "events");
    let inside = Inside::of(&demux);
    let stations = Stations {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    };
    let ifindex = pair.host.index(HOST);
    // The listener stands still while more is told than the ring holds.
    events.signal(Signal::SIGSTOP);
    let sent = 20_000;
    for number in 0..sent {
        let from = SocketAddr::new(
            [10, 0, 1, (number >> 14) as u8].into(),
            1 + (number & 0x3fff) as u16,
        );
        let syn = stations.segment(from, Family::V4.at_host(80), SYN, [1, 0]);
        inside.arrives(&syn, ifindex);
    }
    let lost: u64 = demux
        .items("dump LISTENER_COUNTS")
        .iter()
        .map(|row| row["lost"].as_u64().unwrap())
        .sum();
    assert!(lost > 0);
    // Packets went their way, lost events or not.
    assert_eq!(demux.item("status")["connections"], sent);
    events.signal(Signal::SIGCONT);
    events.wait_for("what was lost", |row| {
        row["event"] == "lost" && row["lost"] == lost
    });
    wait_for("the rest", || {
        let rows = events.rows();
        rows.iter().filter(|row| row["event"] == "new").count() as u64 == sent - lost
    });
}

#[test]
fn one_listens_at_a_time_and_the_dead_are_forgotten() {
    let pair = Pair::new();
    let demux = loaded(&pair, 1024);
    let first = Stream::start(&demux, "events");
    let pid = first.pid().to_string();
    demux
        .refused("events", 5, "listener_taken")
        .says(&["events", &pid, "demux"])
        .hints(&[&pid]);
    // Killed, it gives nothing back, but nobody waits for it.
    first.end(Signal::SIGKILL);
    let second = Stream::start(&demux, "events");
    let from = udp(&pair.peer, Family::V4.at_peer(0));
    from.send_to(b"x", Family::V4.at_host(9)).unwrap();
    second.wait_for("an event", |row| row["event"] == "new");
    assert_eq!(second.end(Signal::SIGTERM), Some(0));
}

#[test]
fn nobody_listens_without_an_instance() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.refused("events", 3, "not_loaded");
    demux.refused("trace", 3, "not_loaded");
}
