//! What `bpftool` shows of the pins to somebody who does not have demux.

mod common;

use std::process::Command;

use common::{
    demux::Demux,
    pair::{Family, HOST, Pair},
    sockets::{connect, listen, talk},
};
use demux_common::layout::map;
use serde_json::Value;

/// The words that bpftool prints of a map: lines without the blanks before them.
fn dump(demux: &Demux<'_>, map: &str) -> (Vec<String>, Value) {
    let pin = demux.directory().join(map);
    let output = Command::new("bpftool")
        .args(["map", "dump", "pinned"])
        .arg(&pin)
        .output()
        .unwrap_or_else(|error| panic!("bpftool, of cargo xtask setup --tests: {error}"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{map}: {text}");
    let value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{map}: {error}: {text}"));
    let lines = text.lines().map(|line| line.trim().to_owned()).collect();
    (lines, value)
}

#[track_caller]
fn assert_lines(lines: &[String], expected: &[&str]) {
    for line in expected {
        assert!(
            lines.iter().any(|found| found == line),
            "{line} is missing:\n{}",
            lines.join("\n")
        );
    }
}

/// The first entry whose value has something under a key.
fn entry<'v>(entries: &'v Value, key: &str, wanted: impl Into<Value>) -> &'v Value {
    let wanted = wanted.into();
    entries
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["value"][key] == wanted)
        .unwrap_or_else(|| panic!("no entry has {key}: {wanted}"))
}

#[test]
fn dumps_have_the_names_of_fields_and_of_choices() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!(
        "load {HOST} --default drop --track bound --max-connections 64"
    ));
    demux.ok("bind tcp 10.0.0.2:80 --name web");
    demux.ok(&format!(
        "bind udp [2001:db8::/32]:8000-8999 --to drop --dev {HOST} --name some"
    ));
    let listener = listen(&pair.host, Family::V4.any(80));
    let mut ends = connect(&pair.peer, &listener, Family::V4.at_host(80));
    talk(&mut ends.0, &mut ends.1);
    let port = ends.0.local_addr().unwrap().port();

    let (lines, rows) = dump(&demux, map::CONNECTIONS);
    assert_lines(
        &lines,
        &[
            "\"occupancy\": \"Live\",",
            "\"state\": \"Established\",",
            "\"local_address\": [10,0,0,2",
            "\"remote_address\": [10,0,0,1",
            "\"local_port\": 80,",
            &format!("\"remote_port\": {port},"),
        ],
    );
    let line = entry(&rows, "occupancy", "Live");
    // The remote's end of the stream is this host's acknowledgement, and the other way round.
    let value = &line["value"];
    for (one, other) in [("remote", "local"), ("local", "remote")] {
        assert!(value[one]["next"].as_u64().unwrap() > 0, "{value}");
        assert_eq!(value[one]["next"], value[other]["ack"], "{value}");
    }
    let (_, cold) = dump(&demux, map::CONNECTION_COLD);
    let beside = &cold[line["key"].as_u64().unwrap() as usize];
    assert_eq!(beside["key"], line["key"]);
    assert!(beside["value"]["created"].as_u64().unwrap() > 0, "{beside}");

    let (lines, bindings) = dump(&demux, map::BINDINGS);
    assert_lines(
        &lines,
        &[
            "\"first_port\": 8000,",
            "\"last_port\": 8999,",
            "\"family\": \"Ipv6\",",
            "\"protocol\": \"Udp\",",
            "\"prefix_len\": 32,",
            "\"target\": \"Drop\",",
            "\"target\": \"Stack\",",
        ],
    );
    let some = &entry(&bindings, "last_port", 8999)["value"];
    let address: Vec<u64> = some["address"]["bytes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|byte| byte.as_u64().unwrap())
        .collect();
    assert_eq!(address[..5], [0x20, 0x01, 0x0d, 0xb8, 0]);
    assert_eq!(some["ifindex"], pair.host.index(HOST));

    let (lines, _) = dump(&demux, map::CONFIG);
    assert_lines(
        &lines,
        &[
            "\"track\": \"Bound\",",
            "\"kernel_sockets\": 1,",
            "\"established\": 8000,",
        ],
    );
    let (_, interfaces) = dump(&demux, map::INTERFACES);
    let host = &entry(&interfaces, "ifindex", pair.host.index(HOST))["value"];
    assert_eq!(
        (&host["default"], &host["mode"]),
        (&"Drop".into(), &"Native".into())
    );
    let station: Vec<Value> = pair.host.mac(HOST).into_iter().map(Value::from).collect();
    assert_eq!(host["station"], Value::Array(station));

    let (lines, addresses) = dump(&demux, map::ADDRESSES);
    assert_lines(
        &lines,
        &[
            "\"scope\": \"Ipv4\"",
            "\"first_port\": 80,",
            "\"protocol\": \"Tcp\",",
        ],
    );
    assert_eq!(addresses[0]["key"]["address"]["bytes"][12], 10);
    let (lines, prefixes) = dump(&demux, map::PREFIXES);
    assert_lines(
        &lines,
        &[
            "\"protocol\": \"Udp\",",
            "\"family\": \"Ipv6\",",
            "\"prefix_len\": 32",
        ],
    );
    assert_eq!(prefixes[0]["key"]["data"]["first_port"], 8000);

    let (lines, counters) = dump(&demux, map::COUNTERS);
    assert_lines(
        &lines,
        &[
            "\"pass\": {",
            "\"drop\": {",
            "\"no_socket\": {",
            "\"bound\": {",
        ],
    );
    let bound: u64 = counters
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|entry| entry["values"].as_array().unwrap())
        .map(|copy| copy["value"]["pass"]["bound"]["packets"].as_u64().unwrap())
        .sum();
    assert_eq!(bound, demux.count("pass", "bound"));

    let (lines, ports) = dump(&demux, map::PORTS);
    assert_lines(
        &lines,
        &["\"any_v4\": 0,", "\"any_v6\": 0,", "\"profile\": 1,"],
    );
    assert_eq!(ports.as_array().unwrap().len(), 1 << 17);
    assert_ne!(ports[80]["value"]["profile"], 0);

    let (_, meta) = dump(&demux, map::META);
    assert_eq!(
        meta[0]["value"]["layout_version"],
        demux_common::layout::LAYOUT_VERSION
    );
    let (lines, _) = dump(&demux, map::LOCALS);
    assert_lines(
        &lines,
        &["\"bytes\": [0,0,0,0,0,0,0,0,0,0,255,255,10,0,0,2"],
    );
    for name in [map::BINDING_COUNTS, map::PORT_PROFILES, map::LOCAL_PREFIXES] {
        dump(&demux, name);
    }
}

#[test]
fn the_program_and_its_interface_are_named() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    let id = demux.item("status")["interfaces"][0]["program_id"]
        .as_u64()
        .unwrap();
    let output = Command::new("bpftool")
        .args(["-j", "prog", "show", "id", &id.to_string()])
        .output()
        .expect("bpftool");
    let program: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&program["type"], &program["name"]),
        (&"xdp".into(), &"demux_xdp".into())
    );
}
