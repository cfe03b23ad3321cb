//! What `explain` foretells of a frame is what then happens to it, and foretelling changes nothing.

mod common;

use std::{collections::BTreeMap, net::Ipv6Addr, path::Path};

use common::{
    demux::Demux,
    frames::{FrameSocket, pcap},
    in_both_modes,
    pair::{FAMILIES, Family, HOST, PEER, Pair},
    snapshot::Snapshot,
    sockets::{connect, listen, talk, udp},
    wait::wait_for,
};
use etherparse::{IpNumber, PacketBuilder, PacketBuilderStep, VlanId};
use serde_json::Value;

in_both_modes! {
    explanations_come_true
}

/// The link and the addresses of a frame from the peer.
struct Sender {
    from: [u8; 6],
    to: [u8; 6],
}

const GROUP: [u8; 6] = [0x01, 0, 0x5e, 1, 2, 3];

impl Sender {
    fn ip(&self, to: [u8; 6], family: Family) -> PacketBuilderStep<etherparse::IpHeaders> {
        ip(PacketBuilder::ethernet2(self.from, to), family)
    }

    fn tcp(&self, family: Family, port: u16, is_syn: bool) -> Vec<u8> {
        let segment = self.ip(self.to, family).tcp(40_000, port, 7, 1024);
        let segment = if is_syn {
            segment.syn()
        } else {
            segment.ack(1)
        };
        let mut frame = Vec::new();
        segment.write(&mut frame, b"").unwrap();
        frame
    }

    fn udp(&self, to: [u8; 6], family: Family, port: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        self.ip(to, family)
            .udp(40_000, port)
            .write(&mut frame, b"hello")
            .unwrap();
        frame
    }

    /// Frames of every kind.
    fn frames(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut frames = Vec::new();
        for family in FAMILIES {
            frames.extend([
                ("SYN to a listener", self.tcp(family, 22, true)),
                ("stray segment to a listener", self.tcp(family, 22, false)),
                ("SYN to a bound port", self.tcp(family, 80, true)),
                ("SYN to a port bound to drop", self.tcp(family, 23, true)),
                ("SYN to a closed port", self.tcp(family, 9, true)),
                ("segment to a closed port", self.tcp(family, 10, false)),
                ("datagram to a socket", self.udp(self.to, family, 53)),
                ("datagram to a closed port", self.udp(self.to, family, 9)),
                (
                    "frame to another station",
                    self.udp([2, 0, 0, 0, 0, 9], family, 53),
                ),
            ]);
        }
        let mut tagged = Vec::new();
        let tag = VlanId::try_new(7).unwrap();
        PacketBuilder::ethernet2(self.from, self.to)
            .single_vlan(tag)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(40_001, 23, 1, 1024)
            .syn()
            .write(&mut tagged, b"")
            .unwrap();
        frames.push(("tagged SYN", tagged));
        let mut other = Vec::new();
        self.ip(self.to, Family::V4)
            .write(&mut other, IpNumber::GRE, b"tunnel")
            .unwrap();
        frames.push(("packet of another protocol", other));
        frames.push(("datagram to a group", {
            let mut frame = Vec::new();
            PacketBuilder::ethernet2(self.from, GROUP)
                .ipv4([10, 0, 0, 1], [239, 1, 2, 3], 1)
                .udp(40_000, 9)
                .write(&mut frame, b"hello")
                .unwrap();
            frame
        }));
        frames.push(("SYN to an address of nobody", {
            let mut frame = Vec::new();
            PacketBuilder::ethernet2(self.from, self.to)
                .ipv4([10, 0, 0, 1], [10, 0, 0, 77], 64)
                .tcp(40_000, 9, 1, 1024)
                .syn()
                .write(&mut frame, b"")
                .unwrap();
            frame
        }));
        let mut runt = self.tcp(Family::V4, 22, true);
        runt.truncate(14 + 20 + 8);
        frames.push(("half a header", runt));
        let mut lying = self.udp(self.to, Family::V4, 53);
        lying[14 + 20 + 4..14 + 20 + 6].copy_from_slice(&500_u16.to_be_bytes());
        frames.push(("datagram with a wrong length", lying));
        let mut fragment = self.tcp(Family::V4, 9, true);
        fragment[14 + 6] = 0x20;
        frames.push(("first fragment", fragment));
        frames
    }
}

fn ip(
    ethernet: PacketBuilderStep<etherparse::Ethernet2Header>,
    family: Family,
) -> PacketBuilderStep<etherparse::IpHeaders> {
    match family {
        Family::V4 => ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
        Family::V6 => {
            let address = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).octets();
            ethernet.ipv6(address(1), address(2), 64)
        }
    }
}

fn explain(demux: &Demux<'_>, directory: &Path, frames: &[Vec<u8>]) -> Vec<Value> {
    let path = directory.join("frames");
    std::fs::write(&path, pcap(frames)).unwrap();
    demux.items(&format!("explain --pcap {}", path.display()))
}

/// The counters of all verdicts and reasons.
fn counters(demux: &Demux<'_>) -> BTreeMap<(String, String), u64> {
    demux
        .items("counters")
        .into_iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            (
                (text("verdict"), text("reason")),
                row["packets"].as_u64().unwrap(),
            )
        })
        .collect()
}

fn explanations_come_true(mode: &str) {
    let pair = Pair::new();
    let _sockets = FAMILIES.map(|family| {
        (
            listen(&pair.host, family.at_host(22)),
            udp(&pair.host, family.at_host(53)),
        )
    });
    let demux = Demux::new(&pair.host);
    demux.ok(&format!(
        "load {HOST} --mode {mode} --default drop --max-connections 64"
    ));
    demux.ok("bind tcp :80 --name web");
    demux.ok("bind tcp :23 --to drop --name telnet");
    let sender = Sender {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    };
    let directory = tempfile::tempdir().unwrap();
    let socket = FrameSocket::new(&pair.peer, PEER);
    let mut seen = std::collections::BTreeSet::new();
    for (what, frame) in sender.frames() {
        let explained = explain(&demux, directory.path(), std::slice::from_ref(&frame)).remove(0);
        let key = (
            explained["verdict"].as_str().unwrap().to_owned(),
            explained["reason"].as_str().unwrap().to_owned(),
        );
        let before = counters(&demux).get(&key).copied().unwrap_or(0);
        socket.send(&frame);
        wait_for(&format!("{what} to be counted as {key:?}"), || {
            counters(&demux).get(&key).copied().unwrap_or(0) > before
        });
        seen.insert(key);
    }
    for (verdict, reason) in [
        ("pass", "kernel-socket"),
        ("pass", "bound"),
        ("drop", "bound"),
        ("drop", "no-socket"),
        ("pass", "other-host"),
        ("pass", "other-protocol"),
        ("pass", "multicast"),
        ("pass", "not-local"),
        ("pass", "bad-udp-header"),
        ("pass", "fragment"),
    ] {
        let key = (verdict.to_owned(), reason.to_owned());
        assert!(seen.contains(&key), "{key:?} was not foretold: {seen:?}");
    }
}

#[test]
fn explaining_changes_no_map_and_delivers_nothing() {
    let pair = Pair::new();
    let listener = listen(&pair.host, Family::V4.at_host(22));
    let mut ends = connect(&pair.peer, &listener, Family::V4.at_host(22));
    let receiver = udp(&pair.host, Family::V4.at_host(53));
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --default drop --max-connections 64"));
    talk(&mut ends.0, &mut ends.1);
    demux.ok("bind tcp :23 --to drop --name telnet");
    let sender = Sender {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    };
    let frames: Vec<_> = sender
        .frames()
        .into_iter()
        .map(|(_, frame)| frame)
        .collect();
    let port = ends.0.local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    // Without the peer nothing but a leak of explain itself could change a map.
    pair.peer.set_down(PEER);
    let before = Snapshot::with_traffic(demux.bpffs(), &pair.host);
    for _ in 0..3 {
        assert_eq!(
            explain(&demux, directory.path(), &frames).len(),
            frames.len()
        );
        for flags in ["syn", "rst", "fin,ack", "ack"] {
            let line = format!("explain tcp from 10.0.0.1:{port} to 10.0.0.2:22 --flags {flags}");
            let explained = demux.item(&line);
            assert_eq!(explained["stage"], "connection", "{explained}");
        }
    }
    assert_eq!(Snapshot::with_traffic(demux.bpffs(), &pair.host), before);
    assert!(common::sockets::is_silent(&receiver));
    pair.peer.set_up(PEER);
    for (family, bits) in FAMILIES.into_iter().zip([24, 64]) {
        if family == Family::V6 {
            // Addresses of IPv6 go when the interface goes down.
            pair.peer
                .add_address(PEER, &format!("{}/{bits}", family.peer()));
        }
    }
    talk(&mut ends.0, &mut ends.1);
}

#[test]
fn an_explanation_names_what_decides() {
    let pair = Pair::new();
    let _listener = listen(&pair.host, Family::V4.at_host(22));
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --default drop --max-connections 64"));
    demux.ok("bind tcp :80 --name web");
    demux.ok("bind udp 10.0.0.0/8:53 --to drop --name dns");
    for (packet, expected) in [
        (
            "tcp from 10.0.0.1:9 to 10.0.0.2:80",
            ["pass", "bound", "binding", "web", "stack"],
        ),
        (
            "udp from 10.0.0.1:9 to 10.0.0.2:53",
            ["drop", "bound", "binding", "dns", "drop"],
        ),
        (
            "tcp from 10.0.0.1:9 to 10.0.0.2:22",
            ["pass", "kernel-socket", "kernel-socket", "", "stack"],
        ),
        (
            "tcp from 10.0.0.1:9 to 10.0.0.2:9",
            ["drop", "no-socket", "default", "", "drop"],
        ),
        (
            "udp from [fd00::1]:9 to [fd00::2]:53",
            ["drop", "no-socket", "default", "", "drop"],
        ),
        (
            "tcp from 10.0.0.1:9 to 10.0.0.99:9",
            ["pass", "not-local", "default", "", "stack"],
        ),
        (
            "udp from 10.0.0.1:9 to 239.1.1.1:9",
            ["pass", "multicast", "parse", "", "stack"],
        ),
    ] {
        let row = demux.item(&format!("explain {packet}"));
        let found = ["verdict", "reason", "stage", "binding", "target"]
            .map(|key| row[key].as_str().unwrap_or_default().to_owned());
        assert_eq!(found, expected, "{packet}");
        let words = demux.ok(&format!("explain {packet}")).stdout;
        assert!(
            words.contains(expected[0]) && words.contains(expected[3]),
            "{words}"
        );
    }
    let out = demux.item("explain tcp from 10.0.0.2:22 to 10.0.0.1:9 out");
    assert_eq!(out["verdict"], "pass");
}
