//! Interfaces that change while demux is loaded on them.

mod common;

use common::{
    demux::Demux,
    netns::{Netns, Queues},
    pair::{FAMILIES, Family, HOST, Pair},
    sockets::{connect, listen, talk},
};

fn with_veth() -> Netns {
    let netns = Netns::new();
    netns.veth_with_queues("v0", Queues::ONE, &netns, "v1", Queues::ONE);
    netns
}

#[test]
fn an_interface_that_was_renamed_is_shown_under_its_new_name() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    demux.ok("load v0 --default drop --max-connections 64");
    demux.ok("bind tcp :80 --dev v0 --name web");
    netns.set_down("v0");
    netns.rename("v0", "uplink");
    netns.set_up("uplink");
    assert_eq!(demux.interface("v0"), None);
    assert_eq!(demux.interface("uplink").unwrap()["attached"], true);
    assert_eq!(demux.item("bindings")["dev"], "uplink");
    let settings = demux.items("settings");
    let default = settings.iter().find(|row| row["key"] == "default@uplink");
    assert_eq!(default.unwrap()["value"], "drop");
    demux.refused("unload v0", 3, "unknown_interface");
    demux.ok("set default@uplink=pass");
    demux.ok("unload uplink");
    assert_eq!(netns.interface("uplink").xdp, None);
}

#[test]
fn an_interface_that_is_deleted_leaves_an_instance_that_works() {
    let netns = with_veth();
    netns.veth("w0", &netns, "w1");
    let demux = Demux::new(&netns);
    demux.ok("load v0 w0 --max-connections 64");
    let index = netns.index("v0");
    netns.delete_link("v0");
    let gone = demux.interface(&format!("#{index}")).unwrap();
    assert_eq!(gone["attached"], false, "{gone}");
    let run = demux.ok("status");
    assert!(run.stdout.contains("is gone"), "{run}");
    for line in [
        "counters",
        "settings",
        "bindings",
        "bind tcp :80",
        "set default=pass",
    ] {
        demux.ok(line);
    }
    netns.veth("v0", &netns, "v1");
    demux.ok("load v0");
    let status = demux.item("status");
    let entries = status["interfaces"].as_array().unwrap();
    assert!(
        entries.iter().all(|entry| entry["attached"] == true),
        "{status}"
    );
    assert_eq!(entries.len(), 2, "{status}");
}

#[test]
fn an_interface_that_was_moved_away_is_not_attached_and_can_come_back() {
    let pair = Pair::new();
    let elsewhere = Netns::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --default drop --max-connections 64"));
    let index = pair.host.index(HOST);
    pair.host.move_to(HOST, &elsewhere);
    let gone = demux.interface(&format!("#{index}")).unwrap();
    assert_eq!(gone["attached"], false, "{gone}");
    demux.ok("bind tcp :80");

    elsewhere.move_to(HOST, &pair.host);
    pair.host.set_up(HOST);
    for (family, bits) in FAMILIES.into_iter().zip([24, 64]) {
        pair.host
            .add_address(HOST, &format!("{}/{bits}", family.host()));
    }
    demux.ok(&format!("load {HOST} --default drop"));
    assert_eq!(demux.interface(HOST).unwrap()["attached"], true);
    let listener = listen(&pair.host, Family::V4.any(22));
    let (mut client, mut server) = connect(&pair.peer, &listener, Family::V4.at_host(22));
    talk(&mut client, &mut server);
    demux.ok("unload --all");
    assert_eq!(pair.host.interface(HOST).xdp, None);
}
