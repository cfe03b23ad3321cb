//! `demux ports`: who owns which local port.

mod common;

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    process::{self, Child, Command, Stdio},
};

use common::{
    demux::Demux,
    inside::{Inside, key},
    pair::{FAMILIES, Family, HOST, Pair},
    privileges::{PublicBinary, share_with},
    sockets::{bind, connect, listen, socket, start_connecting, udp, udp_to},
    user::NOBODY,
    wait::wait_for_some,
};
use demux_common::{
    command::Command as TableCommand, connection::State, protocol::Protocol, table::Flags,
};
use nix::sys::socket::{setsockopt, sockopt::Ipv6V6Only};
use serde_json::{Value, json};

fn loaded(pair: &Pair) -> Demux<'_> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 256"));
    demux
}

/// The name of this process.
fn own_name() -> String {
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    name.trim_end().to_owned()
}

/// The fields of a row that a test asks for.
fn chosen(row: &Value, fields: &[&str]) -> Vec<Value> {
    fields.iter().map(|&field| row[field].clone()).collect()
}

/// A child that holds a socket, and nothing else of ours.
struct Holder(Child);

impl Holder {
    fn of(socket: OwnedFd) -> Self {
        let child = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_kind_of_owner_has_its_row() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let _listener = listen(&pair.host, Family::V4.at_host(8080));
    demux.ok("bind tcp 10.0.0.2:8081 --name web");
    demux.ok(&format!(
        "bind tcp :8000-8099 --name range --to drop --dev {HOST}"
    ));
    demux.ok("bind tcp [fd00::2]:* --name rest");
    pair.host
        .sysctl("net/ipv4/ip_local_reserved_ports", "8070,8082-8090");
    let reserve = |port: u16, remote: u16| {
        let key = key(
            Protocol::Tcp,
            Family::V4.at_host(port),
            Family::V4.at_peer(remote),
        );
        TableCommand::enter(key, State::Reserved, Flags(Flags::OUT))
    };
    Inside::of(&demux)
        .control
        .execute(&[reserve(8080, 1), reserve(8080, 2), reserve(9000, 3)])
        .unwrap();

    let rows: Vec<Value> = demux
        .items("ports 8080-8082 --proto tcp")
        .iter()
        .map(|row| {
            json!(chosen(
                row,
                &[
                    "port",
                    "last_port",
                    "owner",
                    "process",
                    "binding",
                    "target",
                    "dev",
                    "local",
                    "count"
                ]
            ))
        })
        .collect();
    assert_eq!(
        rows,
        [
            json!([
                0,
                65535,
                "binding",
                null,
                "rest",
                "stack",
                null,
                ["[fd00::2]:*"],
                null
            ]),
            json!([
                8000,
                8099,
                "binding",
                null,
                "range",
                "drop",
                HOST,
                ["*:8000-8099"],
                null
            ]),
            json!([
                8080,
                8080,
                "kernel",
                own_name(),
                null,
                null,
                null,
                ["10.0.0.2:8080"],
                1
            ]),
            json!([
                8080,
                8080,
                "reservation",
                null,
                null,
                null,
                null,
                ["10.0.0.2:8080"],
                2
            ]),
            json!([
                8081,
                8081,
                "binding",
                null,
                "web",
                "stack",
                null,
                ["10.0.0.2:8081"],
                null
            ]),
            json!([8082, 8090, "reserved", null, null, null, null, [], null]),
        ]
    );

    // All of them, by protocol and port; what is reserved is so for both protocols.
    let all = demux.items("ports");
    let places: Vec<_> = all
        .iter()
        .map(|row| {
            (
                row["protocol"].as_str().unwrap(),
                row["port"].as_u64().unwrap(),
            )
        })
        .collect();
    let expected: Vec<_> = [0, 8000, 8070, 8080, 8080, 8081, 8082, 9000]
        .map(|port| ("tcp", port))
        .into_iter()
        .chain([8070, 8082].map(|port| ("udp", port)))
        .collect();
    assert_eq!(places, expected);

    let table = demux.ok("ports 8000-9000");
    for cells in [
        &["tcp", "*", "binding", "rest", "[fd00::2]:*"][..],
        &["tcp", "8000-8099", "binding", "range"],
        &["tcp", "8080", "kernel", "10.0.0.2:8080", "LISTEN"],
        &["udp", "8082-8090", "reserved"],
    ] {
        let is_there = table.stdout.lines().any(|line| {
            cells
                .iter()
                .all(|cell| line.split_whitespace().any(|word| word == *cell))
        });
        assert!(is_there, "{cells:?} are missing: {table}");
    }
    assert_eq!(table.stderr, "", "{table}");
}

#[test]
fn a_port_belongs_to_the_process_that_holds_its_sockets() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let own = listen(&pair.host, Family::V4.at_host(70));
    let _same = listen(&pair.host, Family::V6.at_host(70));
    let theirs = udp(&pair.host, Family::V4.at_host(70));
    let holder = Holder::of(theirs.as_fd().try_clone_to_owned().unwrap());
    drop(theirs);
    let shared = Holder::of(own.as_fd().try_clone_to_owned().unwrap());

    // Children of other tests hold copies of every socket until they have begun.
    let rows = wait_for_some("the owners", || {
        let rows = demux.items("ports 70");
        let pids: Vec<_> = rows.iter().map(|row| row["pid"].as_u64()).collect();
        let of = |pid: u32| Some(u64::from(pid));
        (pids == [of(process::id()), of(holder.0.id())]).then_some(rows)
    });
    assert_eq!(
        chosen(
            &rows[0],
            &["protocol", "owner", "process", "count", "local", "states"]
        ),
        [
            json!("tcp"),
            json!("kernel"),
            json!(own_name()),
            json!(2),
            json!(["10.0.0.2:70", "[fd00::2]:70"]),
            json!(["LISTEN"])
        ]
    );
    assert_eq!(
        chosen(
            &rows[1],
            &["protocol", "owner", "process", "count", "states"]
        ),
        [
            json!("udp"),
            json!("kernel"),
            json!("sleep"),
            json!(1),
            json!(["UNCONNECTED"])
        ]
    );

    // Once only the child holds it, it is the child's.
    drop(own);
    let row = wait_for_some("the child's own port", || {
        demux
            .items("ports 70 --proto tcp")
            .into_iter()
            .find(|row| row["pid"] == shared.0.id())
    });
    assert_eq!(row["local"], json!(["10.0.0.2:70"]));
}

#[test]
fn sockets_of_every_family_and_state_are_seen() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let Pair { host, peer } = &pair;
    let dual = listen(host, Family::V6.any(81));
    let only = host.enter(|| socket(libc::AF_INET6, libc::SOCK_STREAM, 0));
    setsockopt(&only, Ipv6V6Only, &true).unwrap();
    bind(&only, Family::V6.any(82));
    rustix::net::listen(&only, 1).unwrap();
    let idle = host.enter(|| socket(libc::AF_INET, libc::SOCK_STREAM, 0));
    bind(&idle, Family::V4.at_host(85));
    let _any = listen(host, Family::V4.any(83));
    let _four = connect(peer, &dual, Family::V4.at_host(81));
    let _six = connect(peer, &dual, Family::V6.at_host(81));
    let asking = FAMILIES.map(|family| udp_to(host, family.at_host(84), family.at_peer(9)));
    let listener = listen(peer, Family::V4.at_peer(443));
    let (out, _other) = connect(host, &listener, Family::V4.at_peer(443));
    let out = out.local_addr().unwrap();
    let opening = start_connecting(host, "10.0.0.77:9".parse().unwrap());

    let show = |line: &str| chosen(&demux.item(line), &["local", "states", "count"]);
    assert_eq!(
        show("ports 81"),
        [
            json!(["10.0.0.2:81", "*:81", "[fd00::2]:81"]),
            json!(["ESTABLISHED", "LISTEN"]),
            json!(3)
        ]
    );
    assert_eq!(
        show("ports :82"),
        [json!(["[::]:82"]), json!(["LISTEN"]), json!(1)]
    );
    assert_eq!(
        show("ports 83"),
        [json!(["0.0.0.0:83"]), json!(["LISTEN"]), json!(1)]
    );
    assert_eq!(
        show("ports 84"),
        [
            json!(["10.0.0.2:84", "[fd00::2]:84"]),
            json!(["ESTABLISHED"]),
            json!(2)
        ]
    );
    assert_eq!(
        show(&format!("ports {} --proto tcp", out.port())),
        [json!([out.to_string()]), json!(["ESTABLISHED"]), json!(1)]
    );
    // The kernel lists it since Linux 6.8.
    assert_eq!(
        show("ports 85"),
        [json!(["10.0.0.2:85"]), json!(["BOUND"]), json!(1)]
    );
    let is_opening = demux
        .items("ports --proto tcp")
        .iter()
        .any(|row| row["states"] == json!(["SYN-SENT"]));
    assert!(is_opening);
    drop((asking, opening, idle));
}

#[test]
fn what_waits_out_its_time_belongs_to_no_process() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let listener = listen(&pair.host, Family::V4.at_host(80));
    let (client, server) = connect(&pair.peer, &listener, Family::V4.at_host(80));
    drop(server);
    drop(client);
    let rows = wait_for_some("TIME-WAIT", || {
        let rows = demux.items("ports 80");
        (rows.len() == 2 && rows[0]["states"] == json!(["TIME-WAIT"])).then_some(rows)
    });
    assert_eq!(
        chosen(&rows[0], &["owner", "pid", "process"]),
        [json!("kernel"), Value::Null, Value::Null]
    );
    assert_eq!(rows[1]["pid"], process::id());
    assert_eq!(demux.ok("ports 80").stderr, "");
}

#[test]
fn an_unused_port_is_no_failure() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let _listener = listen(&pair.host, Family::V4.at_host(443));
    for (line, note) in [
        ("ports 444", "nothing owns port 444\n"),
        ("ports 443 --proto udp", "nothing owns udp port 443\n"),
        ("ports 1000-2000", "nothing owns port 1000-2000\n"),
        ("ports --proto udp", "nothing owns a udp port\n"),
    ] {
        assert_eq!(demux.items(line), [0; 0]);
        let run = demux.ok(line);
        assert_eq!(run.stderr, note, "{run}");
        assert_eq!(run.stdout.lines().count(), 1, "{run}");
        assert_eq!(demux.ok(&format!("-q {line}")).stderr, "");
    }
    assert_eq!(demux.items("ports 443").len(), 1);
    assert_eq!(demux.items("ports 0-443").len(), 1);
}

#[test]
fn who_may_not_look_into_processes_is_told() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    demux.ok("bind tcp :80 --name web");
    let _listener = listen(&pair.host, Family::V4.at_host(80));
    share_with(&demux, NOBODY);
    let public = PublicBinary::new();
    let run = demux.run_with("ports 80 --jsonl", |command| public.run_as(command, NOBODY));
    assert_eq!(run.status, 0, "{run}");
    let rows = run.json_lines();
    assert_eq!(
        chosen(&rows[0], &["owner", "pid", "process", "states"]),
        [json!("kernel"), Value::Null, Value::Null, json!(["LISTEN"])]
    );
    assert_eq!(rows[1]["binding"], "web");
    for words in ["1 socket without a PID", "other users", "root"] {
        assert!(run.stderr.contains(words), "{words} is missing: {run}");
    }
}
