//! `bind --to cpu:` and `--to xsk:` as commands: what is refused, and what is shown.

mod common;

use common::{
    demux::Demux,
    pair::{HOST, Pair},
};
use serde_json::{Value, json};

fn loaded(pair: &Pair) -> Demux<'_> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    demux
}

#[test]
fn targets_that_cannot_be_are_refused_and_change_nothing() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let before = demux.snapshot();
    let invalid = "invalid_argument";
    for target in [
        "nowhere", "cpu", "cpu:", "cpu:x", "cpu:1-0", "cpu:0,,1", "xsk", "xsk:", "xsk:-a",
        "xsk:a/b", "stack:1",
    ] {
        demux
            .refused(&format!("bind tcp :80 --to {target}"), 2, invalid)
            .says(&["invalid"])
            .hints(&["--help"]);
    }
    demux
        .refused("bind tcp :80 --to cpu:0-900", 2, invalid)
        .says(&["room for 64 CPUs"]);
    demux
        .refused("bind tcp :80 --to cpu:4000", 2, invalid)
        .says(&["no CPU 4000", "online: 0"]);
    demux
        .refused(
            &format!("bind tcp :80 --to xsk:{}", "n".repeat(32)),
            2,
            invalid,
        )
        .says(&["longer than 31 bytes"]);
    for target in ["stack", "drop", "reject"] {
        demux
            .refused(
                &format!("bind tcp :80 --to {target} --fallback stack"),
                2,
                invalid,
            )
            .says(&["fallback", target]);
    }
    demux
        .refused("bind tcp :80 --to xsk:web --fallback elsewhere", 2, "usage")
        .says(&["elsewhere", "drop, stack"]);
    // Of several, none.
    demux.refused("bind tcp :80 udp :99999 --to xsk:web", 2, invalid);
    assert_eq!(demux.snapshot(), before);
}

#[test]
fn bindings_show_their_targets_and_fallbacks() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    demux.ok("bind tcp :80 --to cpu:0 --name cpus");
    demux.ok("bind tcp :81 --to xsk:web --name sockets");
    demux.ok("bind udp :53 --to xsk:dns --fallback stack --name falling");
    demux.ok("bind tcp :82 --to cpu:0 --fallback drop --name strict");
    demux.ok("bind tcp :83 --name plain");
    let shown = |name: &str| {
        let bindings = demux.items("bindings");
        let binding = bindings.iter().find(|row| row["name"] == name).unwrap();
        (binding["target"].clone(), binding["fallback"].clone())
    };
    assert_eq!(shown("cpus"), (json!("cpu:0"), json!("stack")));
    assert_eq!(shown("sockets"), (json!("xsk:web"), json!("drop")));
    assert_eq!(shown("falling"), (json!("xsk:dns"), json!("stack")));
    assert_eq!(shown("strict"), (json!("cpu:0"), json!("drop")));
    assert_eq!(shown("plain"), (json!("stack"), Value::Null));

    let explained = |port: u16| {
        demux.item(&format!(
            "explain tcp from 10.0.0.1:4000 to 10.0.0.2:{port}"
        ))
    };
    let row = explained(80);
    assert_eq!(
        [&row["verdict"], &row["reason"], &row["target"]],
        ["redirect", "bound", "cpu:0"],
        "{row}"
    );
    // Nobody has opened the set.
    let row = explained(81);
    assert_eq!(
        [
            &row["verdict"],
            &row["reason"],
            &row["target"],
            &row["binding"]
        ],
        ["drop", "no-target", "drop", "sockets"],
        "{row}"
    );
    let row = demux.item("explain udp from 10.0.0.1:4000 to 10.0.0.2:53");
    assert_eq!(
        [&row["verdict"], &row["reason"], &row["target"]],
        ["pass", "no-target", "stack"],
        "{row}"
    );
}

#[test]
fn sets_are_listed_while_bindings_name_them() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    assert_eq!(demux.items("xsks"), [0; 0]);
    demux.ok("bind tcp :80 --to xsk:web --name one");
    demux.ok("bind udp :80 --to xsk:web --name two");
    demux.ok("bind udp :53 --to xsk:dns");
    let sets: Vec<_> = demux
        .items("xsks")
        .iter()
        .map(|set| {
            (
                set["name"].clone(),
                set["access"].clone(),
                set["pid"].clone(),
            )
        })
        .collect();
    assert_eq!(
        sets,
        [
            (json!("dns"), json!("free"), Value::Null),
            (json!("web"), json!("free"), Value::Null)
        ]
    );
    demux.ok("unbind one");
    assert_eq!(demux.items("xsks").len(), 2);
    demux.ok("unbind two");
    assert_eq!(demux.item("xsks")["name"], "dns");
    demux.ok("unbind udp-53");
    assert_eq!(demux.items("xsks"), [0; 0]);
}

#[test]
fn there_is_room_for_63_sets() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    for number in 1..=63 {
        demux.ok(&format!(
            "bind tcp :{number} --to xsk:set{number} --name b{number}"
        ));
    }
    demux
        .refused("bind tcp :100 --to xsk:another", 1, "socket_slots_full")
        .says(&["all 63 are in use"])
        .hints(&["demux unbind", "demux xsks"]);
    // A set that is named already takes no more room.
    demux.ok("bind tcp :101 --to xsk:set7");
    demux.ok("unbind b63");
    demux.ok("bind tcp :100 --to xsk:another");
}

#[test]
fn maps_and_dumps_show_what_is_steered() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    demux.ok("bind tcp :80 --to cpu:0 --name cpus");
    demux.ok("bind tcp :81 --to xsk:web");
    let entries = |name: &str| {
        let maps = demux.items("maps");
        maps.iter().find(|map| map["name"] == name).unwrap()["entries"].clone()
    };
    assert_eq!(entries("CPUS"), 1);
    assert_eq!(entries("CPU_LISTS"), 1);
    assert_eq!(entries("XSK_SETS"), 1);
    assert_eq!(entries("XSKS"), Value::Null);
    assert_eq!(demux.item("dump CPUS")["cpu"], 0);
    assert_eq!(demux.item("dump CPU_LISTS")["cpus"], json!([0]));
    let set = demux.item("dump XSK_SETS");
    assert_eq!(
        (&set["name"], &set["ownership"]),
        (&json!("web"), &json!("none"))
    );
    demux
        .refused("dump XSKS", 6, "unsupported")
        .says(&["the kernel shows its entries to nobody"]);
    assert_eq!(demux.items("dump FRAGMENTS"), [0; 0]);
}

#[test]
fn a_port_of_sockets_is_owned_and_one_of_cpus_is_not() {
    use std::net::{TcpListener, UdpSocket};
    let pair = Pair::new();
    let demux = loaded(&pair);
    let held = pair
        .host
        .enter(|| TcpListener::bind("10.0.0.2:80").unwrap());
    demux
        .refused("bind tcp :80 --to xsk:web", 5, "address_in_use")
        .says(&["address in use"]);
    demux.ok("bind tcp :80 --to cpu:0");
    drop(held);
    demux.ok("bind udp :53 --to xsk:dns");
    let taken = pair.host.enter(|| UdpSocket::bind("10.0.0.2:53"));
    assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    pair.host
        .enter(|| TcpListener::bind("10.0.0.2:80").unwrap());
}
