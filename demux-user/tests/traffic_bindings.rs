//! Bindings and settings that take effect on real traffic at once.

mod common;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use common::{
    demux::Demux,
    frames::FrameSocket,
    in_both_modes,
    pair::{FAMILIES, Family, HOST, PEER, Pair},
    sockets::{
        ask, connect, connect_result, is_silent, listen, ping, start_connecting, talk, udp, udp_to,
    },
    wait::{wait_for, wait_for_some},
};
use etherparse::{PacketBuilder, VlanId};

in_both_modes! {
    a_binding_to_drop_stops_a_connection_at_once_and_unbinding_lets_it_go_on
    a_binding_to_drop_stops_datagrams_at_once
    a_binding_to_the_stack_owns_its_connections
    the_default_is_changed_for_one_interface_or_for_all
    tagged_frames_are_judged_like_others
    a_connection_stays_up_through_everything
    probation_of_a_setting_ends_by_itself
    probation_of_a_load_ends_by_itself
}

fn load<'n>(pair: &'n Pair, mode: &str) -> Demux<'n> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --mode {mode} --max-connections 256"));
    demux
}

fn a_binding_to_drop_stops_a_connection_at_once_and_unbinding_lets_it_go_on(mode: &str) {
    let pair = Pair::new();
    let demux = load(&pair, mode);
    for family in FAMILIES {
        let listener = listen(&pair.host, family.any(80));
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
        talk(&mut client, &mut server);

        let dropped = demux.count("drop", "bound");
        // The port alone would be refused: a socket has it.
        demux.ok("bind tcp :80-81 --to drop --name closed");
        client.write_all(b"data").unwrap();
        wait_for("the segment to be dropped", || {
            demux.count("drop", "bound") > dropped
        });
        server.set_nonblocking(true).unwrap();
        let error = server.read(&mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        server.set_nonblocking(false).unwrap();
        let attempt = start_connecting(&pair.peer, family.at_host(80));
        ping(&pair.peer, family.host());
        assert!(connect_result(&attempt).is_none());
        let port = client.local_addr().unwrap().port();
        assert_eq!(demux.items(&format!("connections rport {port}")), [0; 0]);
        let binding = demux.item("bindings");
        assert!(binding["packets"].as_u64().unwrap() >= 2, "{binding}");
        assert_eq!(
            (&binding["target"], &binding["connections"]),
            (&"drop".into(), &0.into())
        );

        demux.ok("unbind closed");
        // TCP sends it again.
        let mut word = [0; 4];
        server.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"data");
        talk(&mut client, &mut server);
    }
}

fn a_binding_to_drop_stops_datagrams_at_once(mode: &str) {
    let pair = Pair::new();
    let demux = load(&pair, mode);
    for family in FAMILIES {
        let server = udp(&pair.host, family.at_host(53));
        let other = udp(&pair.host, family.at_host(54));
        let client = udp_to(&pair.peer, family.any(0), family.at_host(53));
        let elsewhere = udp(&pair.peer, family.any(0));
        client.send(b"1").unwrap();
        server.recv(&mut [0; 8]).unwrap();

        let dropped = demux.count("drop", "bound");
        let name = demux.ok(&format!("bind udp {}-53 --to drop", family.at_host(52)));
        client.send(b"2").unwrap();
        // What came after it has arrived.
        ask(&elsewhere, &other, family.at_host(54));
        assert!(is_silent(&server));
        assert_eq!(demux.count("drop", "bound"), dropped + 1);
        assert!(client.take_error().unwrap().is_none());
        demux.ok(&format!("unbind {}", name.stdout.trim()));
        client.send(b"3").unwrap();
        let mut word = [0; 8];
        assert_eq!(server.recv(&mut word).unwrap(), 1);
        assert_eq!(word[0], b'3');
    }
}

fn a_binding_to_the_stack_owns_its_connections(mode: &str) {
    let pair = Pair::new();
    let demux = load(&pair, mode);
    for family in FAMILIES {
        let listener = listen(&pair.host, family.any(80));
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
        talk(&mut client, &mut server);
        let port = client.local_addr().unwrap().port();
        let row = || demux.item(&format!("connections rport {port}"));
        assert_eq!(row()["binding"], serde_json::Value::Null);

        demux.ok("bind tcp :80 --name web");
        let other = demux.ok(&format!("bind udp {} --dev {HOST}", family.at_host(80)));
        talk(&mut client, &mut server);
        assert_eq!(
            (&row()["binding"], &row()["target"]),
            (&"web".into(), &"stack".into())
        );
        let bindings = demux.items("bindings");
        let web = bindings
            .iter()
            .find(|binding| binding["name"] == "web")
            .unwrap();
        assert_eq!(web["connections"], 1);
        assert!(web["packets"].as_u64().unwrap() >= 1);

        demux.ok("unbind web");
        talk(&mut client, &mut server);
        assert_eq!(row()["binding"], serde_json::Value::Null);
        demux.ok(&format!("unbind {}", other.stdout.trim()));
    }
}

fn the_default_is_changed_for_one_interface_or_for_all(mode: &str) {
    let pair = Pair::new();
    pair.host.veth("other0", &pair.peer, "other1");
    let demux = Demux::new(&pair.host);
    demux.ok(&format!(
        "load {HOST} other0 --mode {mode} --max-connections 256"
    ));
    let defaults = || -> Vec<String> {
        let status = demux.item("status");
        let interfaces = status["interfaces"].as_array().unwrap();
        [HOST, "other0"]
            .iter()
            .map(|name| {
                let entry = interfaces.iter().find(|entry| entry["name"] == *name);
                entry.unwrap()["default"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let client = udp(&pair.peer, Family::V4.any(0));
    let mut dropped = 0;
    for (line, expected) in [
        (format!("set default@{HOST}=drop"), ["drop", "pass"]),
        (
            format!("set default@{HOST}=pass default@other0=drop"),
            ["pass", "drop"],
        ),
        ("set default=drop".to_owned(), ["drop", "drop"]),
        ("set default=pass".to_owned(), ["pass", "pass"]),
    ] {
        demux.ok(&line);
        assert_eq!(defaults(), expected, "{line}");
        client.send_to(b"hello", Family::V4.at_host(9)).unwrap();
        ping(&pair.peer, Family::V4.host());
        dropped += u64::from(expected[0] == "drop");
        assert_eq!(demux.count("drop", "no-socket"), dropped, "{line}");
    }
}

fn tagged_frames_are_judged_like_others(mode: &str) {
    let pair = Pair::new();
    let demux = load(&pair, mode);
    demux.ok("bind tcp :80 --to drop --name closed");
    let socket = FrameSocket::new(&pair.peer, PEER);
    let (from, to) = (pair.peer.mac(PEER), pair.host.mac(HOST));
    let tag = |number| VlanId::try_new(number).unwrap();
    let ethernet = || PacketBuilder::ethernet2(from, to);
    let frame = |tagged: etherparse::PacketBuilderStep<etherparse::VlanHeader>, family| {
        let ip = match family {
            Family::V4 => tagged.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
            Family::V6 => {
                let address = |last| std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
                tagged.ipv6(address(1).octets(), address(2).octets(), 64)
            }
        };
        let mut frame = Vec::new();
        ip.tcp(40_000, 80, 1, 1024)
            .syn()
            .write(&mut frame, &[])
            .unwrap();
        frame
    };
    let mut expected = 0;
    for family in FAMILIES {
        for frame in [
            frame(ethernet().single_vlan(tag(5)), family),
            frame(ethernet().double_vlan(tag(5), tag(6)), family),
        ] {
            let path = std::env::temp_dir().join(format!("demux-{}-{mode}", std::process::id()));
            std::fs::write(&path, common::frames::pcap(std::slice::from_ref(&frame))).unwrap();
            let explained = demux.item(&format!("explain --pcap {}", path.display()));
            std::fs::remove_file(&path).unwrap();
            assert_eq!(
                (
                    &explained["verdict"],
                    &explained["reason"],
                    &explained["binding"]
                ),
                (&"drop".into(), &"bound".into(), &"closed".into())
            );
            socket.send(&frame);
            expected += 1;
            wait_for("the frame to be dropped", || {
                demux.count("drop", "bound") == expected
            });
        }
    }
}

/// Sends numbers over a connection for as long as it is told to, and checks that they all come back.
fn echo_for_ever(client: &mut TcpStream, stop: &AtomicBool, rounds: &AtomicU64) {
    let mut round = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        client.write_all(&round.to_be_bytes()).expect("sending");
        let mut back = [0; 8];
        client.read_exact(&mut back).expect("the echo");
        assert_eq!(u64::from_be_bytes(back), round);
        rounds.store(round, Ordering::Relaxed);
    }
}

fn a_connection_stays_up_through_everything(mode: &str) {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let (stop, rounds) = (
        AtomicBool::new(false),
        [AtomicU64::new(0), AtomicU64::new(0)],
    );
    thread::scope(|scope| {
        for (family, rounds) in FAMILIES.into_iter().zip(&rounds) {
            let listener = listen(&pair.host, family.any(22));
            let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(22));
            scope.spawn(move || {
                let mut word = [0; 8];
                while server.read_exact(&mut word).is_ok() {
                    server.write_all(&word).expect("echoing");
                }
            });
            let stop = &stop;
            scope.spawn(move || echo_for_ever(&mut client, stop, rounds));
        }
        let stopping = StopOnDrop(&stop);
        let goes_on = || {
            for rounds in &rounds {
                let before = rounds.load(Ordering::Relaxed);
                wait_for("the echo to go on", || {
                    rounds.load(Ordering::Relaxed) > before + 2
                });
            }
        };
        goes_on();
        for line in [
            &format!("load {HOST} --mode {mode} --max-connections 256"),
            "bind tcp :22 --name shell",
            "set default=drop",
            "bind tcp 10.0.0.0/8:* --name inside",
            "unbind shell",
            "set track=bound",
            "unbind inside",
            "set kernel-sockets=off default=pass",
            "bind tcp :22 --untracked --name shell",
            "set kernel-sockets=on default=drop --try 600",
            "confirm",
            &format!("unload {HOST}"),
            &format!("load {HOST} --mode {mode} --default drop"),
            "unload --all",
        ] {
            demux.ok(line);
            goes_on();
        }
        drop(stopping);
    });
}

/// Lets the echo end also where a test fails, which would else wait for its threads.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn probation_of_a_setting_ends_by_itself(mode: &str) {
    let pair = Pair::new();
    let demux = load(&pair, mode);
    assert_probation_ends(&pair, &demux, "set default=drop --try 2");
}

fn probation_of_a_load_ends_by_itself(mode: &str) {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let line = format!("load {HOST} --mode {mode} --max-connections 256 --default drop --try 2");
    assert_probation_ends(&pair, &demux, &line);
}

fn assert_probation_ends(pair: &Pair, demux: &Demux<'_>, line: &str) {
    // Tries all the time, so that the probation is seen from both sides however slow the machine is.
    let (stop, refused, silent) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let try_for_ever = || {
        while !stop.load(Ordering::Relaxed) {
            let to = Family::V4.at_host(9);
            let error = pair
                .peer
                .enter(|| TcpStream::connect_timeout(&to, Duration::from_millis(50)))
                .unwrap_err();
            match error.kind() {
                ErrorKind::ConnectionRefused => refused.fetch_add(1, Ordering::Relaxed),
                ErrorKind::TimedOut => silent.fetch_add(1, Ordering::Relaxed),
                _ => panic!("{error}"),
            };
        }
    };
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(try_for_ever);
        let stopping = StopOnDrop(&stop);
        wait_for("a refusal by the kernel", || count(&refused) > 0);
        let run = demux.ok(line);
        assert!(run.stderr.contains("demux confirm"), "{run}");
        // From here on no process of demux lives until the kernel refuses again.
        wait_for("silence", || count(&silent) > 0);
        let before = count(&refused);
        wait_for("the default to be pass again", || {
            count(&refused) > before + 1
        });
        drop(stopping);
    });
    assert!(demux.count("drop", "no-socket") > 0);
    assert!(demux.count("pass", "probation") > 0);
    demux
        .refused("confirm", 5, "probation_over")
        .says(&[HOST])
        .hints(&["--try"]);
    let status = demux.item("status");
    assert_eq!(status["interfaces"][0]["default"], "pass");
}

#[test]
fn what_was_confirmed_stays() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!(
        "load {HOST} --default drop --try 5 --max-connections 256"
    ));
    let left = demux.item("status")["interfaces"][0]["probation_left_ms"].clone();
    assert!(left.as_u64().is_some_and(|left| left <= 5000), "{left}");
    demux.ok("confirm");
    let status = demux.item("status");
    assert_eq!(
        status["interfaces"][0]["probation_left_ms"],
        serde_json::Value::Null
    );
    assert_eq!(status["interfaces"][0]["default"], "drop");
    // Another probation, which is not confirmed, marks the time.
    let clock = Pair::new();
    let other = Demux::new(&clock.host);
    other.ok(&format!(
        "load {HOST} --default drop --try 6 --max-connections 256"
    ));
    wait_for_some("the probation of another instance to end", || {
        (other.item("status")["interfaces"][0]["default"] == "pass").then_some(())
    });
    let client = udp(&pair.peer, Family::V4.any(0));
    client.send_to(b"hello", Family::V4.at_host(9)).unwrap();
    wait_for("the datagram to be dropped", || {
        demux.count("drop", "no-socket") == 1
    });
    let run = demux.ok("confirm");
    assert!(run.stderr.contains("nothing is on probation"), "{run}");
}
