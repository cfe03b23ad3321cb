//! `demux allocate`, `demux release` and the settings of ephemeral ports: what they say, and what they
//! refuse.

mod common;

use common::{demux::Demux, netns::Netns};
use serde_json::json;

fn loaded(netns: &Netns) -> Demux<'_> {
    let demux = Demux::new(netns);
    demux.ok("load lo --max-connections 1024");
    demux.ok("set ephemeral.range=5000-5099");
    demux
}

#[test]
fn allocations_are_written_as_lines_and_documents() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let run = demux.ok("allocate tcp 127.0.0.1:443 --from 127.0.0.2:6000");
    assert_eq!(run.stdout, "127.0.0.2:6000\n");
    assert_eq!(run.stderr, "");
    let item = demux.item("allocate tcp [::1]:443 --from [::1]:6000");
    assert_eq!(
        item,
        json!({"protocol": "tcp", "local": "[::1]:6000", "remote": "[::1]:443"})
    );
    let item = demux.item("allocate udp [::ffff:127.0.0.1]:53 --from ::ffff:127.0.0.3");
    assert_eq!(item["remote"], "127.0.0.1:53");
    assert!(item["local"].as_str().unwrap().starts_with("127.0.0.3:50"));
    assert_eq!(demux.items("allocate tcp 127.0.0.1:443 --count 5").len(), 5);
    let rows = demux.items("connections state reserved");
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|row| row["state"] == "RESERVED"
        && row["direction"] == "out"
        && row["rx_packets"] == 0
        && row["tx_packets"] == 0));
    let item = demux.item("release tcp 127.0.0.2:6000 127.0.0.1:443");
    assert_eq!(
        item,
        json!({"protocol": "tcp", "local": "127.0.0.2:6000", "remote": "127.0.0.1:443"})
    );
    let run = demux.ok("release tcp [::1]:6000 [::1]:443");
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    assert_eq!(demux.items("connections state reserved").len(), 6);
}

#[test]
fn allocations_that_cannot_be_are_refused() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    for line in [
        "tcp 127.0.0.1:0",
        "tcp 224.0.0.1:80",
        "tcp [ff02::1]:80",
        "tcp 0.0.0.0:80",
        "tcp [::]:80",
        "udp 255.255.255.255:67",
        "tcp 127.0.0.1:80 --from ::1",
        "tcp [::1]:80 --from 127.0.0.1",
        "tcp 127.0.0.1:80 --from 0.0.0.0",
        "tcp 127.0.0.1:80 --from 127.0.0.1:6000 --count 2",
        "tcp 127.0.0.1:80 --ttl 0",
        "tcp 127.0.0.1:80 --ttl 86401",
    ] {
        demux.refused(&format!("allocate {line}"), 2, "invalid_argument");
    }
    for line in [
        "tcp 127.0.0.1:80 --algorithm fast",
        "tcp 127.0.0.1:80 --algorithm Random",
        "tcp 127.0.0.1:80 --count 0",
        "tcp 127.0.0.1:80 --count 65536",
        "tcp 127.0.0.1:80 --to drop",
        "tcp 127.0.0.1:80 --from 127.0.0.1:0",
        "tcp 127.0.0.1:80 --from 127.0.0.1:65536",
        "tcp 127.0.0.1:80 --from ::1:6000x",
        "tcp 127.0.0.1",
        "tcp localhost:80",
        "sctp 127.0.0.1:80",
    ] {
        demux.refused(&format!("allocate {line}"), 2, "usage");
    }
    demux
        .refused(
            "allocate tcp 127.0.0.1:80 --from 192.0.2.1",
            1,
            "address_not_available",
        )
        .says(&["192.0.2.1"]);
    // There is no route.
    for remote in ["192.0.2.1:80", "[2001:db8::1]:80"] {
        demux.refused(
            &format!("allocate tcp {remote}"),
            1,
            "address_not_available",
        );
    }
    // All or none: what was reserved on the way is given back.
    let run = demux.run("allocate tcp 127.0.0.1:80 --count 101 -j");
    assert_eq!(run.status, 1, "{run}");
    assert_eq!(run.json()["error"]["code"], "address_not_available");
    assert_eq!(demux.items("connections"), [0; 0]);
    assert_eq!(
        demux.items("allocate tcp 127.0.0.1:80 --count 100").len(),
        100
    );
}

#[test]
fn only_what_is_reserved_is_released() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    demux.ok("allocate tcp 127.0.0.1:443 --from 127.0.0.1:6000");
    for line in [
        "udp 127.0.0.1:6000 127.0.0.1:443",
        "tcp 127.0.0.1:6001 127.0.0.1:443",
        "tcp 127.0.0.2:6000 127.0.0.1:443",
        "tcp 127.0.0.1:6000 127.0.0.1:444",
        "tcp 127.0.0.1:443 127.0.0.1:6000",
    ] {
        demux
            .refused(&format!("release {line}"), 3, "not_reserved")
            .hints(&["demux connections state reserved"]);
    }
    for line in ["tcp 127.0.0.1 127.0.0.1:443", "tcp 127.0.0.1:6000", "tcp"] {
        demux.refused(&format!("release {line}"), 2, "usage");
    }
    assert_eq!(demux.items("connections").len(), 1);
}

#[test]
fn settings_that_leave_no_port_are_refused() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    for line in [
        "ephemeral.range=6000-5000",
        "ephemeral.range=",
        "ephemeral.range=-",
        "ephemeral.range=0-100",
        "ephemeral.range=5000-65536",
        "ephemeral.range=all",
        "ephemeral.range=5000-5099,6000",
        "ephemeral.reserved=5000-5099",
        "ephemeral.reserved=1-65535",
        "ephemeral.range=6000-6001 ephemeral.reserved=6000,6001",
        "ephemeral.reserved=",
        "ephemeral.reserved=7-6",
        "ephemeral.algorithm=fast",
        "ephemeral.algorithm=",
        "ephemeral.ports=1-2",
        "ephemeral=1-2",
        // All or none.
        "ephemeral.algorithm=random ephemeral.range=2-1",
    ] {
        demux.refused(&format!("set {line}"), 2, "invalid_argument");
    }
    demux.ok("set ephemeral.range=6000-6001 ephemeral.reserved=6000 ephemeral.algorithm=random");
    let run = demux.ok("allocate tcp 127.0.0.1:443");
    assert_eq!(run.stdout, "127.0.0.1:6001\n");
    demux.refused("set ephemeral.reserved=6000-6001", 2, "invalid_argument");
    demux.refused("set ephemeral.range=6000", 2, "invalid_argument");
    demux.ok("set ephemeral.reserved=none");
    let run = demux.ok("allocate tcp 127.0.0.1:443");
    assert_eq!(run.stdout, "127.0.0.1:6000\n");
}

#[test]
fn without_an_instance_there_is_nothing_to_allocate_from() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    for line in [
        "allocate tcp 127.0.0.1:443",
        "release tcp 127.0.0.1:6000 127.0.0.1:443",
        "set ephemeral.algorithm=random",
    ] {
        demux.refused(line, 3, "not_loaded");
    }
}

#[test]
fn the_maps_of_the_allocator_can_be_dumped() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    demux.ok("set ephemeral.reserved=5001,5063-5064 ephemeral.algorithm=hash");
    demux.ok("bind udp :5002");
    demux.ok("allocate tcp 127.0.0.1:443 --from 127.0.0.1:5070");
    let settings = demux.item("dump EPHEMERAL");
    assert_eq!(
        (&settings["first_port"], &settings["algorithm"]),
        (&json!(5000), &json!("hash"))
    );
    let hints = demux.items("dump PORT_HINTS");
    assert_eq!(hints.len(), 1);
    assert_eq!(hints[0]["ports"], json!([5070]));
    let barred = demux.items("dump BARRED_PORTS");
    let ports = |protocol: &str, why: &str| -> Vec<u64> {
        barred
            .iter()
            .filter(|row| row["protocol"] == protocol && row["why"] == why)
            .flat_map(|row| row["ports"].as_array().unwrap())
            .map(|port| port.as_u64().unwrap())
            .collect()
    };
    for protocol in ["tcp", "udp"] {
        assert_eq!(ports(protocol, "reserved"), [5001, 5063, 5064]);
    }
    assert_eq!(ports("udp", "bound"), [5002]);
    assert_eq!(ports("tcp", "bound"), [0; 0]);
    assert!(demux.items("dump PERTURBATION").len() > 4000);
}
