//! What is rejected is answered at the driver: the sender is told at once, and the host's kernel
//! never sees the packet; with and without a peer that takes what XDP sends.

mod common;

#[expect(
    dead_code,
    unreachable_pub,
    reason = "every test program is compiled with all of it"
)]
#[path = "table/answer.rs"]
mod answer;

use std::{
    collections::HashMap,
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Duration,
};

use common::{
    bpf::{GENERIC, NATIVE, attach_xdp, xdp_program},
    demux::Demux,
    frames::{Capture, FrameSocket},
    inside::{ACK, FIN, RST, SYN, Stations},
    netns::Netns,
    pair::{FAMILIES, Family, HOST, PEER, Pair},
    sockets::{ask, connect, listen, ping, socket, talk, udp, udp_to},
    wait::{wait_for, wait_for_some},
};

/// How demux is attached, and what the peer does with what XDP sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// In the driver; the peer has an XDP program there too.
    NativeToXdp,
    /// In the driver; the peer has GRO.
    NativeToGro,
    /// In the driver; the peer takes nothing.
    NativeToNobody,
    /// In the driver; the peer has an XDP program behind its own.
    NativeToGeneric,
    /// Behind the driver.
    Generic,
    /// Behind the driver, and the peer has an XDP program in its own.
    GenericToXdp,
}

impl Path {
    const fn mode(self) -> &'static str {
        match self {
            Self::Generic | Self::GenericToXdp => "generic",
            _ => "native",
        }
    }

    const fn reply(self) -> &'static str {
        match self {
            Self::NativeToXdp | Self::NativeToGro => "redirect",
            Self::NativeToNobody | Self::NativeToGeneric => "none",
            Self::Generic | Self::GenericToXdp => "transmit",
        }
    }

    /// Whether answers come from the driver.
    fn answers(self) -> bool {
        self.reply() != "none"
    }
}

/// Two hosts and the way between them.
struct Scene {
    pair: Pair,
    _program: Option<OwnedFd>,
}

impl Scene {
    fn new(path: Path) -> Self {
        let pair = Pair::new();
        let program = match path {
            Path::NativeToXdp | Path::GenericToXdp => Some(peers_program(&pair, NATIVE)),
            Path::NativeToGeneric => Some(peers_program(&pair, GENERIC)),
            Path::NativeToGro => {
                pair.peer.enter(|| turn_gro_on(PEER));
                None
            }
            Path::NativeToNobody | Path::Generic => None,
        };
        Self {
            pair,
            _program: program,
        }
    }

    fn load(&self, path: Path, default: &str) -> Demux<'_> {
        let demux = Demux::new(&self.pair.host);
        let mode = path.mode();
        demux.ok(&format!(
            "load {HOST} --mode {mode} --default {default} --max-connections 256"
        ));
        let interface = demux.interface(HOST).unwrap();
        assert_eq!(interface["reply"], path.reply(), "{path:?}: {interface}");
        demux
    }

    fn stations(&self) -> Stations {
        Stations {
            from: self.pair.peer.mac(PEER),
            to: self.pair.host.mac(HOST),
        }
    }
}

fn peers_program(pair: &Pair, mode: u32) -> OwnedFd {
    const XDP_PASS: u8 = 2;
    let program = xdp_program("peers", XDP_PASS);
    let index = pair.peer.index(PEER);
    pair.peer.enter(|| attach_xdp(program.as_fd(), index, mode))
}

/// `ethtool -K INTERFACE gro on`.
fn turn_gro_on(interface: &str) {
    const ETHTOOL_SGRO: u32 = 0x2c;
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
    let mut value = [ETHTOOL_SGRO, 1];
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: value.as_mut_ptr().cast(),
        },
    };
    // SAFETY: the request and the value outlive the call, and the value is what the command wants.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

macro_rules! on_every_path {
    ($($name:ident)*) => {
        mod native_to_xdp {
            $(#[test] fn $name() { super::$name(super::Path::NativeToXdp); })*
        }
        mod native_to_gro {
            $(#[test] fn $name() { super::$name(super::Path::NativeToGro); })*
        }
        mod native_to_nobody {
            $(#[test] fn $name() { super::$name(super::Path::NativeToNobody); })*
        }
        mod native_to_generic {
            $(#[test] fn $name() { super::$name(super::Path::NativeToGeneric); })*
        }
        mod generic {
            $(#[test] fn $name() { super::$name(super::Path::Generic); })*
        }
        mod generic_to_xdp {
            $(#[test] fn $name() { super::$name(super::Path::GenericToXdp); })*
        }
    };
}

on_every_path! {
    clients_of_closed_ports_are_refused_at_once
    what_somebody_wants_goes_on
    a_binding_refuses_what_listens
    checksums_decide
    what_nobody_may_answer_is_dropped
    refusals_are_limited
}

/// What the host's kernel has counted that it would have if it had seen a refused packet.
#[derive(Debug, PartialEq, Eq)]
struct Seen(Vec<(&'static str, u64)>);

impl Seen {
    fn by(netns: &Netns) -> Self {
        const NAMES: [&str; 10] = [
            "Tcp.InSegs",
            "Tcp.OutRsts",
            "Tcp.InErrs",
            "Icmp.OutDestUnreachs",
            "Udp.NoPorts",
            "Udp.InErrors",
            "Udp6NoPorts",
            "Udp6InErrors",
            "Icmp6OutDestUnreachs",
            "Ip.InHdrErrors",
        ];
        let (v4, v6) = netns.enter(|| {
            let read = |path| fs::read_to_string(path).unwrap();
            (
                read("/proc/thread-self/net/snmp"),
                read("/proc/thread-self/net/snmp6"),
            )
        });
        let mut counters = HashMap::new();
        let lines: Vec<&str> = v4.lines().collect();
        for pair in lines.chunks(2) {
            let (names, values) = (pair[0].split_whitespace(), pair[1].split_whitespace());
            let group = pair[0].split(':').next().unwrap();
            for (name, value) in names.zip(values).skip(1) {
                // Some are signed.
                counters.insert(format!("{group}.{name}"), value.parse().unwrap_or(0));
            }
        }
        for line in v6.lines() {
            let (name, value) = line.split_once(char::is_whitespace).unwrap();
            counters.insert(name.to_owned(), value.trim().parse().unwrap());
        }
        Self(NAMES.map(|name| (name, counters[name])).into())
    }
}

/// Both hosts know each other's stations afterwards.
fn introduce(pair: &Pair) {
    for family in FAMILIES {
        ping(&pair.peer, family.host());
    }
}

fn refused(path: Path, demux: &Demux<'_>, reason: &str) -> u64 {
    if path.answers() {
        demux.count("reject", reason)
    } else {
        demux.count("pass", "no-reply-path")
    }
}

#[track_caller]
fn tcp_is_refused(pair: &Pair, at: SocketAddr) {
    let patience = Duration::from_secs(20);
    let error = pair
        .peer
        .enter(|| TcpStream::connect_timeout(&at, patience))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

#[track_caller]
fn udp_is_refused(pair: &Pair, family: Family, at: SocketAddr, data: &[u8]) {
    let client = udp_to(&pair.peer, family.any(0), at);
    client.send(data).unwrap();
    let error = client.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

fn clients_of_closed_ports_are_refused_at_once(path: Path) {
    let scene = Scene::new(path);
    let pair = &scene.pair;
    let demux = scene.load(path, "reject");
    introduce(pair);
    let before = Seen::by(&pair.host);
    let mut number = 0;
    for family in FAMILIES {
        for _ in 0..3 {
            tcp_is_refused(pair, family.at_host(9));
            number += 1;
            assert_eq!(refused(path, &demux, "no-socket"), number);
        }
        for length in [0, 1, 8, 549, 1233, 1400] {
            udp_is_refused(pair, family, family.at_host(9), &vec![7; length]);
            number += 1;
            assert_eq!(refused(path, &demux, "no-socket"), number);
        }
    }
    let after = Seen::by(&pair.host);
    assert_eq!(before == after, path.answers(), "{before:?} {after:?}");
    // Neither makes a row.
    assert_eq!(demux.items("connections").len(), 0);
    assert_eq!(demux.count("drop", "bad-checksum"), 0);

    demux.ok("set default=drop");
    assert_eq!(demux.interface(HOST).unwrap()["default"], "drop");
}

fn what_somebody_wants_goes_on(path: Path) {
    let scene = Scene::new(path);
    let pair = &scene.pair;
    let mut old = Vec::new();
    for family in FAMILIES {
        let here = listen(&pair.host, family.any(22));
        old.push(connect(&pair.peer, &here, family.at_host(22)));
    }
    let demux = scene.load(path, "reject");
    for family in FAMILIES {
        ping(&pair.peer, family.host());
        let listener = listen(&pair.host, family.any(80));
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
        talk(&mut client, &mut server);
        let there = listen(&pair.peer, family.any(443));
        let (mut client, mut server) = connect(&pair.host, &there, family.at_peer(443));
        talk(&mut client, &mut server);
        let far = udp(&pair.peer, family.at_peer(53));
        ask(&udp(&pair.host, family.any(0)), &far, family.at_peer(53));
        let near = udp(&pair.host, family.any(53));
        ask(&udp(&pair.peer, family.any(0)), &near, family.at_host(53));
    }
    for (client, server) in &mut old {
        talk(client, server);
    }
    for verdict in ["reject", "drop"] {
        assert_eq!(demux.count(verdict, "no-socket"), 0);
    }
}

fn a_binding_refuses_what_listens(path: Path) {
    let scene = Scene::new(path);
    let pair = &scene.pair;
    let demux = scene.load(path, "pass");
    for (number, family) in (1..).zip(FAMILIES) {
        let listener = listen(&pair.host, family.any(80));
        let (mut client, mut server) = connect(&pair.peer, &listener, family.at_host(80));
        talk(&mut client, &mut server);
        // Of one port alone it would be refused: a socket has it.
        demux.ok("bind tcp :79-80 --to reject --name no");
        demux.ok("bind udp :79-80 --to reject --name neither");
        assert_eq!(demux.items("bindings")[0]["target"], "reject");
        if path.answers() {
            // The connection ends with its next segment, and nobody gets a new one.
            client.write_all(b"still there?").unwrap();
            let error = client.read(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            tcp_is_refused(pair, family.at_host(80));
            udp_is_refused(pair, family, family.at_host(80), b"anybody?");
            assert_eq!(demux.count("reject", "bound"), 3 * number);
        } else {
            // The kernel would take it, which is not what was asked for.
            client.write_all(b"still there?").unwrap();
            wait_for("the segment to be dropped", || {
                demux.count("drop", "no-reply-path") >= number
            });
            udp_is_refused(pair, family, family.at_host(80), b"anybody?");
            assert_eq!(demux.count("pass", "no-reply-path"), number);
        }
        demux.ok("unbind no");
        demux.ok("unbind neither");
        let (mut client, mut server) = {
            // The listener may have been given a connection in between.
            let listener = listen(&pair.host, family.any(81));
            connect(&pair.peer, &listener, family.at_host(81))
        };
        talk(&mut client, &mut server);
    }
}

/// The sum of big-endian words, with the carries added.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|pair| {
        let second = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], second]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// A frame as a sender leaves it whose device fills the checksum in.
fn partial(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let is_v4 = frame[12] == 8;
    let (addresses, protocol, transport) = if is_v4 {
        (26..34, frame[23], 34)
    } else {
        (22..54, frame[20], 54)
    };
    let field = transport + if protocol == 6 { 16 } else { 6 };
    let length = (frame.len() - transport) as u32;
    let mut pseudo = frame[addresses].to_vec();
    pseudo.extend((length as u16).to_be_bytes());
    pseudo.extend([0, protocol]);
    let folded = sum(&pseudo) as u16;
    frame[field..field + 2].copy_from_slice(&folded.to_be_bytes());
    frame
}

/// Puts VLAN tags in.
fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.splice(12..12, tags.concat());
    frame
}

/// One of everything that is answered, over a version of IP.
fn answerable(stations: Stations, family: Family) -> Vec<Vec<u8>> {
    let (from, to) = (family.at_peer(40_000), family.at_host(9));
    let mut frames = vec![
        stations.segment(from, to, SYN, [u32::MAX, 0]),
        stations.segment(from, to, ACK, [7, 0xfedc_ba98]),
        stations.segment(from, to, FIN | ACK, [7, 8]),
        stations.segment(from, to, FIN, [7, 0]),
        stations.segment(from, to, 0, [7, 0]),
        stations.segment(from, to, SYN | ACK, [7, 9]),
    ];
    for length in [0_usize, 1, 2, 3, 519, 520, 521, 1183, 1184, 1185, 1439] {
        frames.push(stations.datagram(from, to, &vec![0xa5; length]));
    }
    frames
}

fn checksums_decide(path: Path) {
    let scene = Scene::new(path);
    let pair = &scene.pair;
    let demux = scene.load(path, "reject");
    introduce(pair);
    let sender = FrameSocket::new(&pair.peer, PEER);
    let capture = Capture::new(&pair.peer, PEER);
    let tags: [&[[u8; 4]]; 3] = [
        &[],
        &[[0x81, 0, 0x60, 7]],
        &[[0x88, 0xa8, 0, 3], [0x81, 0, 0xa0, 9]],
    ];
    let before = Seen::by(&pair.host);
    let (mut sent, mut damaged) = (0, 0);
    for family in FAMILIES {
        for whole in answerable(scene.stations(), family) {
            for tags in tags {
                if !path.answers() && !tags.is_empty() {
                    // This host has no such VLAN, and its kernel ignores what is tagged.
                    continue;
                }
                for frame in [&whole, &partial(&whole)] {
                    let frame = tagged(frame, tags);
                    sender.send(&frame);
                    sent += 1;
                    if path.answers() {
                        let reply = answer_to(&capture, &frame);
                        answer::check(&frame, &reply).unwrap();
                    }
                }
                let mut wrong = tagged(&whole, tags);
                let last = wrong.len() - 1;
                wrong[last] ^= 0x40;
                if path.answers() {
                    sender.send(&wrong);
                    damaged += 1;
                }
            }
        }
        // Packets keep their order: an answer would have been here before the reply.
        ping(&pair.peer, family.host());
        if path.answers() {
            assert_eq!(next_answer(&capture, family), None);
        }
    }
    assert_eq!(refused(path, &demux, "no-socket"), sent);
    assert_eq!(demux.count("drop", "bad-checksum"), damaged);
    let after = Seen::by(&pair.host);
    assert_eq!(before == after, path.answers(), "{before:?} {after:?}");
}

/// The next frame that could be an answer.
fn next_answer(capture: &Capture, family: Family) -> Option<Vec<u8>> {
    loop {
        let frame = capture.next()?;
        let ip = answer::network(&frame);
        let (is_v4, protocol, kind) = match frame[ip - 2..ip] {
            [0x08, 0x00] => (true, frame[ip + 9], frame[ip + 20]),
            [0x86, 0xdd] => (false, frame[ip + 6], frame[ip + 40]),
            _ => continue,
        };
        let is_error = protocol == 1 && kind == 3 || protocol == 58 && kind == 1;
        if (protocol == 6 || is_error) && is_v4 == (family == Family::V4) {
            return Some(frame);
        }
    }
}

/// The answer to a frame, which must come.
#[track_caller]
fn answer_to(capture: &Capture, frame: &[u8]) -> Vec<u8> {
    let ip = answer::network(frame);
    let family = if frame[ip] >> 4 == 4 {
        Family::V4
    } else {
        Family::V6
    };
    wait_for_some("an answer", || next_answer(capture, family))
}

fn what_nobody_may_answer_is_dropped(path: Path) {
    let scene = Scene::new(path);
    let pair = &scene.pair;
    let demux = scene.load(path, "reject");
    introduce(pair);
    let sender = FrameSocket::new(&pair.peer, PEER);
    let capture = Capture::new(&pair.peer, PEER);
    let before = Seen::by(&pair.host);
    let stations = scene.stations();
    let mut sent = 0;
    for family in FAMILIES {
        let to = family.at_host(9);
        let peer = family.at_peer(40_000);
        let mut frames = vec![
            stations.segment(peer, to, RST, [1, 0]),
            stations.segment(peer, to, RST | ACK, [1, 2]),
            stations.segment(peer, to, RST | SYN, [1, 0]),
        ];
        let strangers: &[&str] = match family {
            Family::V4 => &[
                "0.0.0.0:7",
                "0.1.2.3:7",
                "127.0.0.1:7",
                "224.0.0.5:7",
                "255.255.255.255:7",
                "10.0.0.2:7",
                "10.0.0.2:9",
            ],
            Family::V6 => &[
                "[::]:7",
                "[::1]:7",
                "[ff02::5]:7",
                "[fd00::2]:7",
                "[fd00::2]:9",
            ],
        };
        for stranger in strangers {
            let from = stranger.parse().unwrap();
            frames.push(stations.segment(from, to, SYN, [1, 0]));
            frames.push(stations.datagram(from, to, b"anybody?"));
        }
        let crowd = Stations {
            from: [0x03, 0, 0, 0, 0, 1],
            ..stations
        };
        frames.push(crowd.segment(peer, to, SYN, [1, 0]));
        for frame in &frames {
            sender.send(frame);
        }
        sent += frames.len() as u64;
        ping(&pair.peer, family.host());
        assert_eq!(next_answer(&capture, family), None);
    }
    assert_eq!(demux.count("drop", "unanswerable"), sent);
    assert_eq!(demux.count("reject", "no-socket"), 0);
    assert_eq!(before, Seen::by(&pair.host));
}

fn refusals_are_limited(path: Path) {
    if !path.answers() {
        return;
    }
    let scene = Scene::new(path);
    let pair = &scene.pair;
    let demux = scene.load(path, "reject");
    introduce(pair);
    let sender = FrameSocket::new(&pair.peer, PEER);
    let frame = scene.stations().segment(
        Family::V4.at_peer(40_000),
        Family::V4.at_host(9),
        SYN,
        [1, 0],
    );
    let mut sent = 0;
    wait_for("the limit", || {
        for _ in 0..2000 {
            sender.send(&frame);
            sent += 1;
        }
        demux.count("drop", "rate-limited") > 0
    });
    assert!(demux.count("reject", "no-socket") > 0);
    wait_for("every frame to be counted", || {
        demux.count("drop", "rate-limited") + demux.count("reject", "no-socket") == sent
    });
    // What somebody wants is not limited, and there are refusals again before long.
    ping(&pair.peer, Family::V4.host());
    tcp_is_refused(pair, Family::V4.at_host(9));
}

#[test]
fn how_replies_leave_is_asked_again_when_they_are_asked_for() {
    let scene = Scene::new(Path::NativeToNobody);
    let pair = &scene.pair;
    let demux = scene.load(Path::NativeToNobody, "reject");
    let reply = || demux.interface(HOST).unwrap()["reply"].clone();
    let warning = || demux.item("status")["warnings"].to_string();
    assert!(
        warning().contains("no refusal can leave by host0"),
        "{}",
        warning()
    );
    let program = peers_program(pair, NATIVE);
    assert_eq!(reply(), "none");
    assert!(warning().contains("demux set track=local"), "{}", warning());
    demux.ok("set track=local");
    assert_eq!(reply(), "redirect");
    assert_eq!(warning(), "[]");
    tcp_is_refused(pair, Family::V4.at_host(9));
    assert_eq!(demux.count("reject", "no-socket"), 1);
    drop(program);
    demux.ok("bind tcp :23 --to reject");
    assert_eq!(reply(), "none");
    tcp_is_refused(pair, Family::V4.at_host(23));
    assert_eq!(demux.count("pass", "no-reply-path"), 1);
}

#[test]
fn a_host_refuses_itself() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok("load lo --default reject --max-connections 256");
    assert_eq!(demux.interface("lo").unwrap()["reply"], "transmit");
    let before = Seen::by(&pair.host);
    for (number, at) in (1..).zip(["127.0.0.1:9", "[::1]:9", "10.0.0.2:9", "[fd00::2]:9"]) {
        let at: SocketAddr = at.parse().unwrap();
        let error = pair.host.enter(|| TcpStream::connect(at)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{at}: {error}");
        let any = if at.is_ipv4() { Family::V4 } else { Family::V6 };
        let client = udp_to(&pair.host, any.any(0), at);
        client.send(b"anybody?").unwrap();
        let error = client.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{at}: {error}");
        assert_eq!(demux.count("reject", "no-socket"), 2 * number);
    }
    let (Seen(before), Seen(after)) = (before, Seen::by(&pair.host));
    for (before, after) in before.iter().zip(&after) {
        // Only the answers came in, four resets.
        let more = if before.0 == "Tcp.InSegs" { 4 } else { 0 };
        assert_eq!((before.0, before.1 + more), *after);
    }
}

#[test]
fn explaining_tells_and_sends_nothing() {
    let scene = Scene::new(Path::Generic);
    let demux = scene.load(Path::Generic, "reject");
    demux.ok("bind tcp :23 --to reject --name no");
    let capture = Capture::new(&scene.pair.peer, PEER);
    let before = demux.snapshot();
    for (line, reason, binding) in [
        ("tcp from 10.0.0.1:5 to 10.0.0.2:9", "no-socket", None),
        ("udp from [fd00::1]:5 to [fd00::2]:9", "no-socket", None),
        ("tcp from 10.0.0.1:5 to 10.0.0.2:23", "bound", Some("no")),
    ] {
        let item = demux.item(&format!("explain {line} --iface {HOST}"));
        assert_eq!(item["verdict"], "reject", "{item}");
        assert_eq!(item["reason"], reason, "{item}");
        assert_eq!(item["target"], "reject", "{item}");
        assert_eq!(item["binding"].as_str(), binding, "{item}");
        let people = demux.ok(&format!("explain {line} --iface {HOST}"));
        assert!(people.stdout.contains("reject"), "{people}");
    }
    assert_eq!(demux.snapshot(), before);
    ping(&scene.pair.peer, Family::V4.host());
    assert_eq!(next_answer(&capture, Family::V4), None);
}
