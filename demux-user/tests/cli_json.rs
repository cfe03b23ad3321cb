//! What programs read: schemas, keys, lines and filters, on real rows.

mod common;

use std::{collections::BTreeSet, process::Stdio};

use common::{
    demux::{Demux, bare, finish},
    pair::{Family, HOST, Pair},
    scene::Scene,
    sockets::{ask, connect, listen, udp, udp_to},
};
use demux_common::layout::map;
use serde_json::{Deserializer, Value};

const STATUS: &[&str] = &[
    "netns",
    "track",
    "kernel_sockets",
    "max_connections",
    "connections",
    "confirmed",
    "displaced",
    "untracked",
    "memory_bytes",
    "bind_hooks",
    "interfaces",
];
const INTERFACE: &[&str] = &[
    "name",
    "ifindex",
    "mode",
    "default",
    "program_id",
    "attached",
    "egress",
    "egress_program_id",
    "egress_attached",
    "egress_note",
    "egress_removal",
];
const COUNTER: &[&str] = &["iface", "reason", "verdict", "packets", "bytes"];
const BINDING: &[&str] = &[
    "name",
    "protocol",
    "local",
    "dev",
    "target",
    "flags",
    "packets",
    "bytes",
    "connections",
];
const CONNECTION: &[&str] = &[
    "protocol",
    "local",
    "local_address",
    "local_port",
    "remote",
    "remote_address",
    "remote_port",
    "state",
    "direction",
    "confirmed",
    "binding",
    "target",
    "rx_packets",
    "rx_bytes",
    "tx_packets",
    "tx_bytes",
    "age_ms",
    "idle_ms",
    "expires_ms",
    "seen",
];
const PORT: &[&str] = &[
    "protocol",
    "port",
    "last_port",
    "owner",
    "pid",
    "process",
    "binding",
    "target",
    "dev",
    "local",
    "states",
    "count",
];
const EXPLANATION: &[&str] = &["verdict", "reason", "stage", "binding", "target"];

#[track_caller]
fn assert_keys(value: &Value, keys: &[&str]) {
    let object = value.as_object().unwrap_or_else(|| panic!("{value}"));
    for key in keys {
        assert!(object.contains_key(*key), "{key} is missing: {value}");
    }
    for key in object.keys() {
        let is_snake = key
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
        assert!(is_snake, "{key} is not snake_case: {value}");
    }
}

#[test]
fn items_have_the_promised_keys() {
    let mut scene = Scene::new();
    let demux = scene.load();
    let status = demux.item("status");
    assert_keys(&status, STATUS);
    assert_eq!(status["interfaces"].as_array().unwrap().len(), 1);
    assert_keys(&status["interfaces"][0], INTERFACE);
    let interface = &status["interfaces"][0];
    assert_eq!(interface["name"], HOST);
    assert_ne!(interface["egress"], "none");
    assert_eq!(interface["egress_attached"], true);
    assert!(interface["egress_program_id"].is_u64(), "{interface}");
    assert_eq!(interface["egress_note"], Value::Null);
    assert_eq!(
        (&status["displaced"], &status["untracked"]),
        (&0.into(), &0.into())
    );
    assert_eq!(status["track"], "local");
    assert_eq!(status["kernel_sockets"], true);
    assert_eq!(status["max_connections"], 256);
    assert_eq!(status["connections"], 4);
    assert!(status["memory_bytes"].as_u64().unwrap() > 0);

    for (noun, keys, count) in [
        ("counters", COUNTER, 4),
        ("bindings", BINDING, 2),
        ("connections", CONNECTION, 4),
        ("ports", PORT, 6),
        ("settings", &["key", "value"], 10),
        (
            "maps",
            &["name", "type", "max_entries", "entries"],
            map::ALL.len(),
        ),
    ] {
        let items = demux.items(noun);
        assert!(items.len() >= count, "{noun}: {items:?}");
        for item in &items {
            assert_keys(item, keys);
        }
    }
    let explanation = demux.item("explain tcp from 10.0.0.1:9 to 10.0.0.2:80");
    assert_keys(&explanation, EXPLANATION);
    let run = demux.ok("conns lport 80 -j");
    assert_eq!(run.json()["schema"], "demux.v1.connections");
}

#[test]
fn rows_say_what_the_sockets_know() {
    let mut scene = Scene::new();
    let demux = scene.load();
    let web = demux.item("connections lport 80");
    assert_eq!(web["protocol"], "tcp");
    assert_eq!(web["local"], "10.0.0.2:80");
    assert_eq!(web["local_address"], "10.0.0.2");
    assert_eq!(web["local_port"], 80);
    assert_eq!(web["remote_address"], "10.0.0.1");
    assert_eq!(
        web["remote"],
        format!("10.0.0.1:{}", web["remote_port"].as_u64().unwrap())
    );
    assert_eq!(web["state"], "ESTABLISHED");
    assert_eq!(web["direction"], "in");
    assert_eq!(web["confirmed"], true);
    assert_eq!(web["binding"], "web");
    assert_eq!(web["target"], "stack");
    assert!(web["rx_packets"].as_u64().unwrap() >= 3, "{web}");
    assert!(web["rx_bytes"].as_u64().unwrap() >= 3 * 54, "{web}");
    // What is sent counts like what comes: SYN with ACK, data, and what acknowledges data.
    assert!(web["tx_packets"].as_u64().unwrap() >= 2, "{web}");
    assert!(web["tx_bytes"].as_u64().unwrap() >= 2 * 54, "{web}");
    assert_eq!(web["seen"], "both");
    // As many units of the table's clock as make up 8000 s at least.
    assert!(web["expires_ms"].as_u64().unwrap() <= 8_000_064, "{web}");

    let shell = demux.item("connections lport 22");
    assert_eq!(shell["local"], "[fd00::2]:22");
    assert_eq!(shell["binding"], Value::Null);
    let out = demux.item("connections rport 443");
    assert_eq!(
        (&out["direction"], &out["remote"]),
        (&"out".into(), &"10.0.0.1:443".into())
    );
    let dns = demux.item("connections proto udp");
    assert_eq!(dns["remote"], "[fd00::1]:40053");
    // The host has answered, and the peer has not gone on.
    assert_eq!(
        (&dns["state"], &dns["confirmed"], &dns["seen"]),
        (&"REPLIED".into(), &false.into(), &"both".into())
    );

    let bindings = demux.items("bindings");
    let names: Vec<_> = bindings
        .iter()
        .map(|binding| binding["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["web", "udp-5000-5999"]);
    assert_eq!(bindings[0]["connections"], 1);
    assert_eq!(
        (&bindings[1]["dev"], &bindings[1]["target"]),
        (&HOST.into(), &"drop".into())
    );
    assert_eq!(
        (&bindings[1]["local"], &bindings[1]["flags"]),
        (&"*:5000-5999".into(), &Value::Array(vec![]))
    );
}

#[test]
fn rows_say_where_their_packets_were_seen() {
    let pair = Pair::new();
    let Pair { host, peer } = &pair;
    let demux = Demux::new(host);
    let old = listen(host, Family::V4.at_host(22));
    let _old = connect(peer, &old, Family::V4.at_host(22));
    let row = |filter: &str| demux.item(&format!("connections {filter}"));
    let packets = |row: &Value| [row["rx_packets"].as_u64(), row["tx_packets"].as_u64()];

    demux.ok(&format!("load {HOST} --max-connections 256"));
    let imported = row("lport 22");
    assert_eq!(
        (
            &imported["seen"],
            &imported["state"],
            &imported["confirmed"]
        ),
        (&"nowhere".into(), &"ESTABLISHED".into(), &true.into())
    );
    assert_eq!(packets(&imported), [Some(0), Some(0)]);
    let asking = udp_to(host, Family::V4.at_host(5001), Family::V4.at_peer(9));
    asking.send(b"anybody?").unwrap();
    let unanswered = row("rport 9");
    assert_eq!(
        (
            &unanswered["seen"],
            &unanswered["state"],
            &unanswered["direction"]
        ),
        (&"egress".into(), &"UNREPLIED".into(), &"out".into())
    );
    assert_eq!(packets(&unanswered), [Some(0), Some(1)]);
    assert_eq!(unanswered["tx_bytes"], 14 + 20 + 8 + 8);

    demux.ok("unload --all");
    demux.ok(&format!("load {HOST} --egress none --max-connections 256"));
    let server = udp(host, Family::V6.at_host(53));
    let client = udp(peer, Family::V6.at_peer(40_053));
    ask(&client, &server, Family::V6.at_host(53));
    let answered = row("lport 53");
    assert_eq!(
        (&answered["seen"], &answered["state"]),
        (&"ingress".into(), &"UNREPLIED".into())
    );
    assert_eq!(packets(&answered), [Some(1), Some(0)]);
    assert_eq!(answered["tx_bytes"], 0);
    let interface = demux.interface(HOST).unwrap();
    assert_eq!(interface["egress"], "none");
    assert_eq!(interface["egress_attached"], false);
    assert!(interface["egress_note"].is_string(), "{interface}");
}

#[test]
fn filters_choose_among_real_rows() {
    let mut scene = Scene::new();
    let demux = scene.load();
    let chosen = |filter: &str| -> BTreeSet<u64> {
        demux
            .items(&format!("connections {filter}"))
            .iter()
            .map(|row| {
                let port = |key: &str| row[key].as_u64().unwrap();
                port("local_port").min(port("remote_port"))
            })
            .collect()
    };
    for (filter, expected) in [
        ("", &[22, 53, 80, 443][..]),
        ("state established", &[22, 80, 443]),
        ("state ESTAB", &[22, 80, 443]),
        ("state time-wait", &[]),
        ("exclude established", &[53]),
        ("proto tcp", &[22, 80, 443]),
        ("proto udp", &[53]),
        ("local 10.0.0.2", &[80, 443]),
        ("src 10.0.0.2:80", &[80]),
        ("local [fd00::2]:22", &[22]),
        ("remote 10.0.0.0/8", &[80, 443]),
        ("dst [fd00::/16]", &[22, 53]),
        ("lport 80", &[80]),
        ("sport = :80", &[80]),
        ("sport < 80", &[22, 53]),
        ("lport le 80", &[22, 53, 80]),
        ("lport 20-60", &[22, 53]),
        ("lport ne 80 and lport lt 100", &[22, 53]),
        ("rport eq 443", &[443]),
        ("dport > :443 and proto tcp", &[22, 80]),
        ("binding web", &[80]),
        ("dir out", &[443]),
        ("not dir out", &[22, 53, 80]),
        ("proto udp or lport 80", &[53, 80]),
        (
            "( proto udp or lport 80 ) and dir in and not lport 80",
            &[53],
        ),
        ("state established and remote 10.0.0.1", &[80, 443]),
    ] {
        let expected: BTreeSet<u64> = expected.iter().copied().collect();
        assert_eq!(chosen(filter), expected, "{filter}");
    }
}

#[test]
fn every_noun_writes_lines_documents_and_tables() {
    let mut scene = Scene::new();
    let demux = scene.load();
    let mut nouns: Vec<String> = [
        "status",
        "settings",
        "counters",
        "bindings",
        "connections",
        "ports",
        "maps",
        "xsks",
        "explain tcp from 10.0.0.1:9 to 10.0.0.2:80",
    ]
    .map(str::to_owned)
    .into();
    // The kernel shows the sockets in the slots to nobody.
    let shown = map::ALL.iter().filter(|name| **name != map::XSKS);
    nouns.extend(shown.map(|name| format!("dump {name}")));
    for noun in &nouns {
        // Counters and times move; what stays is which rows there are.
        let count = demux.items(noun).len();
        let lines = demux.ok(&format!("{noun} --jsonl")).json_lines();
        assert_eq!(lines.len(), count, "{noun}");
        assert!(lines.iter().all(Value::is_object), "{noun}");
        let pretty = demux.ok(&format!("{noun} --pretty"));
        assert_eq!(pretty.json()["items"].as_array().unwrap().len(), count);
        assert!(pretty.stdout.lines().count() > 3, "{pretty}");
        assert_eq!(demux.ok(&format!("{noun} -j")).stdout.lines().count(), 1);

        let table = demux.ok(noun);
        let bare = demux.ok(&format!("-H {noun}"));
        assert!(!table.stdout.contains('\x1b'), "{table}");
        if noun.starts_with("explain") || noun == "status" {
            continue;
        }
        assert_eq!(bare.stdout.lines().count(), count, "{bare}");
        let header = usize::from(count > 0 || !table.stdout.is_empty());
        assert_eq!(table.stdout.lines().count(), count + header, "{table}");
        let coloured = demux.ok(&format!("{noun} --color always"));
        assert!(count == 0 || coloured.stdout.contains('\x1b'), "{coloured}");
    }
}

#[test]
fn dumps_show_what_the_maps_hold() {
    let mut scene = Scene::new();
    let demux = scene.load();
    let only = |name: &str| demux.item(&format!("dump {name}"));
    let meta = only("META");
    let status = demux.item("status");
    assert_eq!(meta["netns_cookie"], status["netns_cookie"]);
    assert_eq!(meta["layout_version"], demux_common::layout::LAYOUT_VERSION);
    assert_eq!(only("CONFIG")["timeouts"]["established"], 8000);
    let interface = only("INTERFACES");
    assert_eq!(
        (&interface["iface"], &interface["default"]),
        (&HOST.into(), &"drop".into())
    );

    let bindings = demux.items("dump BINDINGS");
    assert_eq!(bindings[0]["name"], "web");
    assert_eq!(bindings[0]["local"], "10.0.0.2:80");
    assert_eq!(bindings[1]["target"], "drop");
    let address = |local: &str| {
        let entries = demux.items("dump ADDRESSES");
        entries
            .into_iter()
            .find(|entry| entry["address"] == local)
            .unwrap()
    };
    assert_eq!(
        (
            &address("10.0.0.2")["ports"],
            &address("10.0.0.2")["binding"]
        ),
        (&"80".into(), &1.into())
    );
    assert_eq!(
        (&address("::")["ports"], &address("::")["dev"]),
        (&"5000-5999".into(), &HOST.into())
    );
    let ports = demux.items("dump PORTS");
    assert_eq!(ports.len(), 1 + 1000);
    assert_eq!(
        (&ports[0]["protocol"], &ports[0]["port"]),
        (&"tcp".into(), &80.into())
    );
    let rows = demux.items("dump CONNECTIONS");
    assert_eq!(rows.len(), 4);
    let row = |port: u16| rows.iter().find(|row| row["local_port"] == port).unwrap();
    assert_eq!(
        (
            &row(80)["local_address"],
            &row(80)["state"],
            &row(80)["occupancy"]
        ),
        (&"10.0.0.2".into(), &"ESTABLISHED".into(), &"live".into())
    );
    // The addresses of IPv6 stand beside their line.
    assert_eq!(row(22)["local_address"], Value::Null);
    let cold = demux.items("dump CONNECTION_COLD");
    let beside = cold
        .iter()
        .find(|line| line["index"] == row(22)["index"])
        .unwrap();
    assert_eq!(
        (&beside["local_address"], &beside["remote_address"]),
        (&"fd00::2".into(), &"fd00::1".into())
    );
    assert_eq!(beside["generation"], row(22)["generation"]);
    let entered: u64 = demux
        .items("dump TABLE_COUNTS")
        .iter()
        .map(|counts| counts["entered"].as_u64().unwrap())
        .sum();
    assert_eq!(entered, 4);
    let locals: BTreeSet<_> = demux
        .items("dump LOCALS")
        .iter()
        .map(|local| local["address"].as_str().unwrap().to_owned())
        .collect();
    for address in ["10.0.0.2", "fd00::2", "127.0.0.1", "::1"] {
        assert!(locals.contains(address), "{locals:?}");
    }
    let counters = demux.items("dump COUNTERS");
    let bound: u64 = counters
        .iter()
        .filter(|counter| counter["reason"] == "bound" && counter["verdict"] == "pass")
        .map(|counter| counter["packets"].as_u64().unwrap())
        .sum();
    assert_eq!(bound, demux.count("pass", "bound"));
    let counts = demux.items("dump BINDING_COUNTS");
    assert!(counts.iter().all(|count| count["index"] == 1), "{counts:?}");

    demux.ok("bind udp 192.0.2.0/24:7 --name network");
    let prefix = only("PREFIXES");
    assert_eq!(
        (&prefix["prefix"], &prefix["ports"]),
        (&"192.0.2.0/24".into(), &"7".into())
    );
    assert!(demux.items("dump PORT_PROFILES").len() >= 3);
    assert_eq!(demux.items("dump LOCAL_PREFIXES"), [0; 0]);
    assert_eq!(
        demux.ok("dump bindings").stdout,
        demux.ok("dump BINDINGS").stdout
    );
}

#[test]
fn the_key_of_the_hash_is_shown_to_nobody() {
    let mut scene = Scene::new();
    let demux = scene.load();
    let listed: BTreeSet<String> = demux
        .items("maps")
        .iter()
        .map(|map| map["name"].as_str().unwrap().to_owned())
        .collect();
    let expected: BTreeSet<String> = map::ALL.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(listed, expected);
    for name in map::PRIVATE {
        assert!(!listed.contains(*name));
        demux.refused(&format!("dump {name}"), 3, "map_not_found");
        assert!(demux.directory().join(name).exists());
    }
}

#[test]
fn samples_of_counters_are_documents_or_lines() {
    let mut scene = Scene::new();
    let demux = scene.load();
    let run = demux.ok("counters --interval 1 --count 2 --all -j");
    let documents: Vec<Value> = Deserializer::from_str(&run.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(documents.len(), 2, "{run}");
    for document in &documents {
        assert_eq!(document["schema"], "demux.v1.counters");
        assert_keys(&document["items"][0], COUNTER);
    }
    let run = demux.ok("counters --interval 1 --count 1 --jsonl --all");
    for line in run.json_lines() {
        assert_keys(&line, COUNTER);
    }
}

#[test]
fn commands_that_change_something_answer_in_json_too() {
    let mut scene = Scene::new();
    let demux = scene.load();
    let row = demux.item(&format!("load {HOST}"));
    assert_eq!(
        (&row["interface"], &row["already"]),
        (&HOST.into(), &true.into())
    );
    let killed = demux.item("kill lport 80 --forget");
    assert_eq!(
        (&killed["action"], &killed["state"]),
        (&"forgotten".into(), &"ESTABLISHED".into())
    );
    assert_eq!(demux.item("bind tcp :81")["name"], "tcp-81");
    assert_eq!(demux.item("unbind tcp :81")["name"], "tcp-81");
    assert_eq!(demux.items("confirm"), [0; 0]);
    assert_eq!(demux.items("clean"), [0; 0]);
    assert_eq!(demux.item(&format!("unload {HOST}"))["name"], HOST);
    assert_eq!(demux.items("unload --all"), [0; 0]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut scene = Scene::new();
    let demux = scene.load();
    let mut command = demux.command("dump PORTS --jsonl");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = demux.netns().enter(|| command.spawn().unwrap());
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stderr, b"");
}

#[test]
fn completions_and_manual_pages_are_written() {
    for shell in ["bash", "zsh", "fish"] {
        let line = format!("completions {shell}");
        let run = finish(&mut bare(&line), &line);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{run}");
        for word in ["connections", "ports", "kill", "bind", "netns"] {
            assert!(run.stdout.contains(word), "{word} is missing for {shell}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let line = format!("man {}", directory.path().display());
    let run = finish(&mut bare(&line), &line);
    assert_eq!(run.status, 0, "{run}");
    for page in ["demux.1", "demux-load.1", "demux-connections.1"] {
        let text = std::fs::read_to_string(directory.path().join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
}
