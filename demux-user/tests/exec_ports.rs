//! The source ports of programs under `demux exec`: real programs, real connections.
//!
//! The program is this test binary once more, which [`client`] makes a client of: it connects as its
//! environment says and tells what became of it.

mod common;

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    process::Command,
};

use common::{
    demux::{Demux, Run},
    pair::{Family, HOST, Pair},
    sockets::{bind, connect_to, listen, socket, udp},
    wait::wait_for,
};

/// Tells [`client`] what to do; other tests have no such variable.
const STEPS: &str = "DEMUX_TEST_CLIENT";

/// Not a test of its own: the client that others run. Steps are separated by blanks:
/// `tcp=ADDRESS:PORT`, `udp=…` connect and keep the socket; `tcp-from=LOCAL=REMOTE` binds first,
/// `no-port-from=…` with IP_BIND_ADDRESS_NO_PORT; `close` closes the oldest socket; `child=STEP` has a
/// child take a step; `reuse` tells whether the last socket has SO_REUSEADDR.
#[test]
fn client() {
    let Ok(steps) = std::env::var(STEPS) else {
        return;
    };
    let mut open: Vec<OwnedFd> = Vec::new();
    for step in steps.split_whitespace() {
        let (verb, rest) = step.split_once('=').unwrap_or((step, ""));
        match verb {
            "close" => drop(open.remove(0)),
            "reuse" => println!("@reuse {}", reuse(open.last().unwrap())),
            "child" => {
                let output = this(rest).output().unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                for line in text.lines().filter(|line| line.starts_with('@')) {
                    println!("{line}");
                }
            }
            _ => {
                let (local, remote) = match rest.split_once('=') {
                    Some((local, remote)) => (Some(local.parse::<SocketAddr>().unwrap()), remote),
                    None => (None, rest),
                };
                let remote: SocketAddr = remote.parse().unwrap();
                let kind = if verb.starts_with("udp") {
                    libc::SOCK_DGRAM
                } else {
                    libc::SOCK_STREAM
                };
                let family = if remote.is_ipv4() {
                    libc::AF_INET
                } else {
                    libc::AF_INET6
                };
                let socket = socket(family, kind, 0);
                if verb == "no-port-from" {
                    set(&socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT);
                }
                if let Some(local) = local {
                    bind(&socket, local);
                }
                println!("@{}", outcome(&socket, remote));
                open.push(socket);
            }
        }
    }
}

/// Connects, and tells the local endpoint or the number of the error.
fn outcome(socket: &OwnedFd, remote: SocketAddr) -> String {
    // The calls of streams do for datagrams too.
    let stream = UdpSocket::from(socket.try_clone().unwrap());
    match stream.connect(remote) {
        Ok(()) => stream.local_addr().unwrap().to_string(),
        Err(error) => format!("error {}", error.raw_os_error().unwrap_or_default()),
    }
}

fn set(socket: &OwnedFd, level: i32, option: i32) {
    let on = 1i32;
    // SAFETY: the value is as long as told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn reuse(socket: &OwnedFd) -> i32 {
    let mut value = 0i32;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value is as long as told.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_REUSEADDR,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    value
}

/// This binary as a client that takes these steps.
fn this(steps: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "client", "--nocapture"])
        .env(STEPS, steps);
    command
}

/// Runs the client under `demux exec` with these options, and returns what it has told.
#[track_caller]
fn exec(demux: &Demux<'_>, options: &str, steps: &str) -> Vec<String> {
    let run = run(demux, options, steps);
    assert_eq!(run.status, 0, "{run}");
    told(&run)
}

fn run(demux: &Demux<'_>, options: &str, steps: &str) -> Run {
    let this = std::env::current_exe().unwrap();
    let line = format!(
        "exec {options} -- {} --exact client --nocapture",
        this.display()
    );
    demux.run_with(&line, |command| {
        command.env(STEPS, steps);
    })
}

fn told(run: &Run) -> Vec<String> {
    run.stdout
        .lines()
        .filter_map(|line| line.strip_prefix('@').map(str::to_owned))
        .collect()
}

const SEQUENTIAL: &str = "--algorithm sequential";

fn loaded(pair: &Pair) -> Demux<'_> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 1024"));
    demux
}

/// Listeners of the peer that nobody accepts from: the kernel completes handshakes without.
fn listeners(pair: &Pair) -> Vec<TcpListener> {
    [
        Family::V4.at_peer(80),
        Family::V4.at_peer(81),
        Family::V6.at_peer(80),
    ]
    .map(|at| listen(&pair.peer, at))
    .into()
}

#[test]
fn source_ports_follow_the_algorithm() {
    let pair = Pair::new();
    let _listeners = listeners(&pair);
    let demux = loaded(&pair);
    let told = exec(
        &demux,
        SEQUENTIAL,
        "tcp=10.0.0.1:80 tcp=10.0.0.1:80 tcp=10.0.0.1:80 reuse",
    );
    assert_eq!(
        told,
        ["10.0.0.2:1025", "10.0.0.2:1026", "10.0.0.2:1027", "reuse 1"]
    );
    // The settings' algorithm, where none is given, keeps to the settings' range.
    let told = exec(&demux, "", "tcp=10.0.0.1:80");
    let port: u16 = told[0].strip_prefix("10.0.0.2:").unwrap().parse().unwrap();
    assert!((32_768..=60_999).contains(&port), "{told:?}");
}

#[test]
fn one_port_serves_several_remotes_at_once() {
    let pair = Pair::new();
    let _listeners = listeners(&pair);
    let demux = loaded(&pair);
    let told = exec(
        &demux,
        SEQUENTIAL,
        "tcp=10.0.0.1:80 tcp=10.0.0.1:81 udp=10.0.0.1:53 udp=10.0.0.1:54 udp=10.0.0.1:53",
    );
    assert_eq!(
        told,
        [
            "10.0.0.2:1025",
            "10.0.0.2:1025",
            "10.0.0.2:1025",
            "10.0.0.2:1025",
            "10.0.0.2:1026",
        ]
    );
}

#[test]
fn both_versions_of_ip_and_mapped_addresses() {
    let pair = Pair::new();
    let _listeners = listeners(&pair);
    let demux = loaded(&pair);
    let told = exec(
        &demux,
        SEQUENTIAL,
        "tcp=[fd00::1]:80 tcp=[fd00::1]:80 udp=[fd00::1]:53 tcp=[::ffff:10.0.0.1]:80 tcp=10.0.0.1:80",
    );
    assert_eq!(
        told,
        [
            "[fd00::2]:1025",
            "[fd00::2]:1026",
            "[fd00::2]:1025",
            "[::ffff:10.0.0.2]:1025",
            // The same four-tuple as that of the mapped address, were it not the next.
            "10.0.0.2:1026",
        ]
    );
}

#[test]
fn ports_that_others_hold_are_passed_over() {
    let pair = Pair::new();
    let _listeners = listeners(&pair);
    let demux = loaded(&pair);
    let _listener = listen(&pair.host, Family::V4.any(1025));
    let _datagrams = udp(&pair.host, Family::V6.any(1025));
    let held = pair.host.enter(|| {
        let socket = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        bind(&socket, Family::V4.any(1026));
        connect_to(&socket, Family::V4.at_peer(81));
        socket
    });
    let told = exec(
        &demux,
        SEQUENTIAL,
        "tcp=10.0.0.1:80 udp=10.0.0.1:53 tcp=10.0.0.1:80",
    );
    assert_eq!(told, ["10.0.0.2:1027", "10.0.0.2:1026", "10.0.0.2:1028"]);
    drop(held);
    // Reservations that were only made to get beyond them last for a moment.
    wait_for("the end of reservations that nobody uses", || {
        !demux.items("connections").iter().any(|row| {
            row["protocol"] == "tcp"
                && [1025, 1026].contains(&row["local_port"].as_u64().unwrap())
                && row["state"] == "RESERVED"
        })
    });
}

#[test]
fn what_the_program_binds_itself_is_left_alone() {
    let pair = Pair::new();
    let _listeners = listeners(&pair);
    pair.host.add_address(HOST, "10.0.0.9/24");
    let demux = loaded(&pair);
    let told = exec(
        &demux,
        SEQUENTIAL,
        "tcp-from=10.0.0.9:4000=10.0.0.1:80 reuse \
         no-port-from=10.0.0.9:0=10.0.0.1:80 no-port-from=10.0.0.9:0=10.0.0.1:80 \
         tcp=10.0.0.1:80",
    );
    assert_eq!(
        told,
        [
            "10.0.0.9:4000",
            "reuse 0",
            "10.0.0.9:1025",
            "10.0.0.9:1026",
            "10.0.0.2:1025",
        ]
    );
}

#[test]
fn children_are_covered() {
    let pair = Pair::new();
    let _listeners = listeners(&pair);
    let demux = loaded(&pair);
    let told = exec(
        &demux,
        SEQUENTIAL,
        "tcp=10.0.0.1:80 child=tcp=10.0.0.1:80 tcp=10.0.0.1:80",
    );
    // The child has closed its own; what is left of it is in TIME-WAIT or was reset.
    assert_eq!(told[..2], ["10.0.0.2:1025", "10.0.0.2:1026"]);
}

#[test]
fn a_four_tuple_in_time_wait_is_not_handed_out() {
    let pair = Pair::new();
    let listener = listen(&pair.peer, Family::V4.at_peer(80));
    let demux = loaded(&pair);
    // The client closes first, and so waits.
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = std::io::Read::read(&mut stream, &mut [0; 8]);
        }
    });
    let told = exec(&demux, SEQUENTIAL, "tcp=10.0.0.1:80 close");
    assert_eq!(told, ["10.0.0.2:1025"]);
    wait_for("TIME-WAIT", || {
        demux
            .items("connections")
            .iter()
            .any(|row| row["local_port"] == 1025 && row["state"] == "TIME-WAIT")
    });
    let told = exec(&demux, SEQUENTIAL, "tcp=10.0.0.1:80");
    assert_eq!(told, ["10.0.0.2:1026"]);
    server.join().unwrap();
}

/// The loopback interface is not loaded, so its connections have no rows.
#[test]
fn connections_without_rows_are_no_obstacle() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    demux.ok("set timeout.reserved=1");
    let listener = listen(&pair.host, "127.0.0.1:80".parse().unwrap());
    // From outside the group, on a port that comes first.
    let held = pair.host.enter(|| {
        let socket = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR);
        bind(&socket, "127.0.0.1:1025".parse().unwrap());
        connect_to(&socket, "127.0.0.1:80".parse().unwrap());
        socket
    });
    let told = exec(
        &demux,
        SEQUENTIAL,
        "tcp=127.0.0.1:80 tcp=127.0.0.1:80 tcp=10.0.0.2:81",
    );
    assert_eq!(told[..2], ["127.0.0.1:1026", "127.0.0.1:1027"]);
    assert_eq!(told[2], format!("error {}", libc::ECONNREFUSED));
    drop((held, listener));
}

#[test]
fn without_a_port_left_connecting_fails() {
    let pair = Pair::new();
    let _listeners = listeners(&pair);
    let demux = loaded(&pair);
    demux.ok("set ephemeral.range=40000-40001");
    let told = exec(
        &demux,
        "--algorithm hash",
        "tcp=10.0.0.1:80 tcp=10.0.0.1:80 tcp=10.0.0.1:80 tcp=10.0.0.1:81",
    );
    assert_eq!(told[2], format!("error {}", libc::EADDRNOTAVAIL));
    assert!(told[3].starts_with("10.0.0.2:4000"), "{told:?}");
}

#[test]
fn only_sockets_of_the_group_and_of_the_namespace_are_concerned() {
    let pair = Pair::new();
    let _listeners = listeners(&pair);
    let demux = loaded(&pair);
    // Outside the group the kernel chooses.
    let output = pair
        .host
        .enter(|| this("tcp=10.0.0.1:80 reuse").output().unwrap());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("@reuse 0"), "{text}");
    assert!(!text.contains(":1025"), "{text}");
    // Within the group, a socket of another namespace, where another demux is, or none.
    let line = format!(
        "exec {SEQUENTIAL} -- nsenter --net={} {} --exact client --nocapture",
        pair.peer.selector(),
        std::env::current_exe().unwrap().display()
    );
    let _listener = listen(&pair.host, Family::V4.at_host(82));
    let run = demux.run_with(&line, |command| {
        command.env(STEPS, "tcp=10.0.0.2:82 reuse");
    });
    let told = told(&run);
    assert!(told[0].starts_with("10.0.0.1:"), "{run}");
    assert_ne!(told[0], "10.0.0.1:1025", "{run}");
    assert_eq!(told[1], "reuse 0", "{run}");
}

/// A rule sends packets by tables that nobody can foresee, so nobody can say from which address.
#[test]
fn where_the_source_is_unknown_ports_are_not_shared() {
    let pair = Pair::new();
    let _listeners = listeners(&pair);
    let demux = loaded(&pair);
    add_rule(&pair);
    let told = exec(
        &demux,
        SEQUENTIAL,
        "tcp=10.0.0.1:80 reuse tcp=10.0.0.1:81 tcp=10.0.0.1:80",
    );
    assert_eq!(
        told,
        ["10.0.0.2:1025", "reuse 0", "10.0.0.2:1026", "10.0.0.2:1027"]
    );
}

fn add_rule(pair: &Pair) {
    use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
    use netlink_packet_route::{
        AddressFamily, RouteNetlinkMessage,
        rule::{RuleAction, RuleAttribute, RuleMessage},
    };
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
    rule.header.table = 100;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![RuleAttribute::Priority(500), RuleAttribute::FwMark(7)];
    pair.host.request(
        RouteNetlinkMessage::NewRule(rule),
        NLM_F_CREATE | NLM_F_EXCL,
    );
}
