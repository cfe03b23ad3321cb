//! A host without rules as a port scanner sees it: nmap, from the peer, on every port of TCP and UDP.
//!
//! What *finds exactly the listening ports* means: nmap calls open the TCP ports with a listener and
//! the UDP ports whose socket answers, and no others. Of silence nmap says `filtered` for TCP and
//! `open|filtered` for UDP, where it cannot tell a port that drops from a socket that does not answer
//! datagrams it does not understand; so a UDP socket that never answers looks like a closed port.
//!
//! That the host's kernel never sees the probes to the others is told by its own counters
//! (`/proc/net/snmp` and `snmp6`): it has received what demux passed and nothing more, has found no
//! UDP port closed, and has sent neither a reset nor an ICMP error.
//!
//! The scan sends without a pause, every unanswered probe twice: 262,140 of them take about 13 s.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, iter,
    net::{TcpListener, UdpSocket},
    os::fd::AsFd as _,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use common::{
    bpf::{NATIVE, attach_xdp, xdp_program},
    demux::Demux,
    netns::Netns,
    pair::{Family, HOST, PEER, Pair},
    sockets::{listen, ping, udp},
};

/// Listeners of every kind: a port of each end, and some that nmap has no name for.
const TCP: [u16; 6] = [1, 22, 80, 8080, 40_000, 65_535];

/// UDP sockets that answer. nmap knows what to ask some of these, and sends nothing to the others.
const UDP: [u16; 5] = [1, 53, 161, 33_333, 65_535];

/// A UDP socket that never answers.
const MUTE: u16 = 5000;

/// What an XDP program returns to let a packet go on.
const XDP_PASS: u8 = 2;

/// Every port but 0.
const PORTS: usize = 65_535;

#[test]
fn a_scan_of_every_port_finds_the_listening_ones_and_the_kernel_does_not_notice() {
    scan_everything("native", Family::V4);
}

#[test]
fn a_scan_of_every_port_over_ipv6_in_generic_mode() {
    scan_everything("generic", Family::V6);
}

fn scan_everything(mode: &str, family: Family) {
    let pair = Pair::new();
    let services = Services::open(&pair.host, family);
    let demux = load(&pair, mode, "drop");
    // Neighbours find each other first: what waits for an address is no part of the scan.
    ping(&pair.peer, family.host());

    let before = Seen::of(&demux);
    let report = services.during(|| {
        let eager = "-p- -T5 --min-rate 20000 --max-retries 1";
        nmap(&pair.peer, family, &format!("-sS -sU {eager}"))
    });
    let unanswered = services.read_mute();
    let after = Seen::of(&demux);

    assert!(unanswered > 0, "the mute socket was not asked");
    assert_eq!(report.in_state("open"), open_ports(), "{report:?}");
    assert_eq!(report.silent("filtered"), PORTS - TCP.len());
    assert_eq!(report.silent("open|filtered"), PORTS - UDP.len());

    let since = |count: fn(&Seen) -> u64| count(&after) - count(&before);
    assert_eq!(
        since(|seen| seen.received),
        since(|seen| seen.passed),
        "the kernel has received what demux has passed: {before:?} {after:?}"
    );
    let closed = 2 * PORTS - TCP.len() - UDP.len() - 1;
    assert!(since(|seen| seen.dropped) as usize >= closed, "{after:?}");
    assert_eq!(
        since(|seen| seen.refused),
        0,
        "the kernel has refused something: {before:?} {after:?}"
    );
}

/// nmap is not told to hurry here: it adapts to how often the host cares to refuse.
///
/// Of a veth pair, the other end must run XDP for a reply to leave from the driver in native mode; else
/// the kernel refuses, and of its ICMP errors there are too few for a scan.
#[test]
fn a_host_that_rejects_has_closed_ports_and_no_filtered_ones() {
    for (mode, family) in [("native", Family::V4), ("generic", Family::V6)] {
        let pair = Pair::new();
        let services = Services::open(&pair.host, family);
        let program = xdp_program("pass", XDP_PASS);
        let index = pair.peer.index(PEER);
        let _link = pair
            .peer
            .enter(|| attach_xdp(program.as_fd(), index, NATIVE));
        let demux = load(&pair, mode, "reject");
        ping(&pair.peer, family.host());
        let before = Seen::of(&demux);
        let report = services.during(|| {
            let ports = "-p T:1-1024,8080,40000,65535,U:1-20,53,161,33333,65535";
            nmap(&pair.peer, family, &format!("-sS -sU {ports} -T4"))
        });
        services.read_mute();
        let after = Seen::of(&demux);
        assert_eq!(report.in_state("open"), open_ports(), "{mode}: {report:?}");
        let states: BTreeSet<_> = report.states().collect();
        assert_eq!(
            states,
            BTreeSet::from(["closed", "open"]),
            "{mode}: {report:?}"
        );
        // The refusals are demux's and not the kernel's.
        assert_eq!(after.refused, before.refused, "{mode}");
        assert_eq!(
            after.received - before.received,
            after.passed - before.passed,
            "{mode}"
        );
    }
}

fn load<'n>(pair: &'n Pair, mode: &str, default: &str) -> Demux<'n> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!(
        "load {HOST} --mode {mode} --default {default} --max-connections 4096"
    ));
    demux
}

/// What nmap is to find.
fn open_ports() -> BTreeSet<(&'static str, u16)> {
    let tcp = TCP.into_iter().map(|port| ("tcp", port));
    tcp.chain(UDP.into_iter().map(|port| ("udp", port)))
        .collect()
}

/// The sockets of the host.
struct Services {
    _listeners: Vec<TcpListener>,
    responders: Vec<UdpSocket>,
    mute: UdpSocket,
}

impl Services {
    /// Opens them in turn at the wildcard of both versions of IP, of the version that is scanned, and
    /// at the host's address.
    fn open(host: &Netns, family: Family) -> Self {
        let place = |index: usize, port| match index % 3 {
            0 => Family::V6.any(port),
            1 => family.any(port),
            _ => family.at_host(port),
        };
        let listener = |(index, port)| listen(host, place(index, port));
        let responder = |(index, port)| udp(host, place(index, port));
        Self {
            _listeners: TCP.into_iter().enumerate().map(listener).collect(),
            responders: UDP.into_iter().enumerate().map(responder).collect(),
            mute: udp(host, family.any(MUTE)),
        }
    }

    /// Answers every datagram while `work` is being done.
    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Says that it is over, also where `work` has panicked.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let _over = Over(&is_over);
            for responder in &self.responders {
                responder
                    .set_read_timeout(Some(Duration::from_millis(100)))
                    .unwrap();
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut buffer = [0; 1500];
                    while !is_over.load(Ordering::Relaxed) {
                        if let Ok((_, from)) = responder.recv_from(&mut buffer) {
                            // Its client may be gone: then there is nobody to answer.
                            let _ = responder.send_to(b"answer", from);
                        }
                    }
                });
            }
            work()
        })
    }

    /// How many datagrams wait at the mute socket. The kernel counts a datagram as received when it
    /// is read.
    fn read_mute(&self) -> usize {
        self.mute.set_nonblocking(true).unwrap();
        let mut buffer = [0; 1500];
        iter::from_fn(|| self.mute.recv(&mut buffer).ok()).count()
    }
}

/// What both sides of the hook have counted.
#[derive(Debug)]
struct Seen {
    /// TCP segments and datagrams of UDP that demux has passed because of a socket.
    passed: u64,
    /// What it has dropped because there is none.
    dropped: u64,
    /// TCP segments and datagrams that the kernel has received, whether for a socket or for none.
    received: u64,
    /// Resets and ICMP errors that it has sent, and datagrams for which it found no socket.
    refused: u64,
}

impl Seen {
    fn of(demux: &Demux<'_>) -> Self {
        let counters = demux.netns().enter(counters);
        let sum = |names: &[&str]| -> u64 {
            names
                .iter()
                .map(|name| {
                    *counters
                        .get(*name)
                        .unwrap_or_else(|| panic!("the kernel has no counter {name}"))
                })
                .sum()
        };
        let refused = [
            "UdpNoPorts",
            "Udp6NoPorts",
            "TcpOutRsts",
            "IcmpOutDestUnreachs",
            "Icmp6OutDestUnreachs",
        ];
        let unclaimed = ["UdpNoPorts", "Udp6NoPorts"];
        Self {
            passed: demux.count("pass", "kernel-socket") + demux.count("pass", "connection"),
            dropped: demux.count("drop", "no-socket"),
            received: sum(&["TcpInSegs", "UdpInDatagrams", "Udp6InDatagrams"]) + sum(&unclaimed),
            refused: sum(&refused),
        }
    }
}

/// The counters of the present namespace, named as in `snmp6`: the protocol, then what is counted.
fn counters() -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    let snmp = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let lines: Vec<_> = snmp.lines().collect();
    for [names, values] in lines.as_chunks().0 {
        let (protocol, names) = names.split_once(':').unwrap();
        let (_, values) = values.split_once(':').unwrap();
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // One of them may be negative: the greatest number of connections.
            if let Ok(value) = value.parse() {
                counters.insert(format!("{protocol}{name}"), value);
            }
        }
    }
    let snmp6 = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
    counters.extend(snmp6.lines().map(|line| {
        let (name, value) = line.split_once(char::is_whitespace).unwrap();
        (name.to_owned(), value.trim().parse().unwrap())
    }));
    counters
}

/// What nmap has found.
#[derive(Debug)]
struct Report {
    /// Ports listed one by one: protocol, number, state.
    ports: Vec<(&'static str, u16, String)>,
    /// How many others are in a state.
    others: BTreeMap<String, usize>,
}

/// Scans the host from its peer.
#[track_caller]
fn nmap(peer: &Netns, family: Family, arguments: &str) -> Report {
    let mut command = Command::new("nmap");
    // No names are asked for, the host is known to be up, and the report is XML.
    command.args(["-n", "-Pn", "-oX", "-"]);
    if family == Family::V6 {
        command.arg("-6");
    }
    command
        .args(arguments.split_whitespace())
        .arg(family.host().to_string());
    let output = peer.enter(|| command.output()).unwrap_or_else(|error| {
        panic!(
            "nmap: {error} (`cargo xtask setup --tests` provides it, `cargo xtask test` finds it)"
        )
    });
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Report::parse(&text)
}

impl Report {
    fn parse(xml: &str) -> Self {
        let elements = |name: &str| {
            let start = format!("<{name} ");
            let pieces = xml.split(&start).skip(1).map(str::to_owned);
            pieces.collect::<Vec<_>>()
        };
        let ports = elements("port").into_iter().map(|port| {
            let protocol = match attribute(&port, "protocol") {
                "tcp" => "tcp",
                "udp" => "udp",
                other => panic!("nobody has asked for {other}"),
            };
            let number = attribute(&port, "portid").parse().unwrap();
            (protocol, number, attribute(&port, "state").to_owned())
        });
        let others = elements("extraports").into_iter().map(|others| {
            let count = attribute(&others, "count").parse().unwrap();
            (attribute(&others, "state").to_owned(), count)
        });
        Self {
            ports: ports.collect(),
            others: others.collect(),
        }
    }

    fn in_state(&self, state: &str) -> BTreeSet<(&'static str, u16)> {
        self.ports
            .iter()
            .filter(|(_, _, other)| other == state)
            .map(|&(protocol, port, _)| (protocol, port))
            .collect()
    }

    /// How many ports are in a state, listed or not.
    fn silent(&self, state: &str) -> usize {
        self.others.get(state).copied().unwrap_or_default() + self.in_state(state).len()
    }

    /// Every state that a port is in.
    fn states(&self) -> impl Iterator<Item = &str> {
        let listed = self.ports.iter().map(|(_, _, state)| state.as_str());
        listed.chain(self.others.keys().map(String::as_str))
    }
}

/// The value of an attribute of the element that `text` begins in.
fn attribute<'text>(text: &'text str, name: &str) -> &'text str {
    let (_, rest) = text
        .split_once(&format!("{name}=\""))
        .unwrap_or_else(|| panic!("no {name} in {text}"));
    rest.split('"').next().unwrap()
}
