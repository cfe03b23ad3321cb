//! The daemon follows this host: interfaces that vanish and return, addresses, stations, and instances.

mod common;

use std::{fs::File, net::SocketAddr};

use common::{
    bpf::{NATIVE, attach_xdp, xdp_program},
    daemon::Daemon,
    demux::Demux,
    in_both_modes,
    netns::Netns,
    pair::{FAMILIES, Family, HOST, PEER, Pair},
    sockets::{ask, udp},
    wait::{wait_for, wait_for_some},
};
use demux_user::netlink::Netlink;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
};
use nix::sys::signal::Signal;

in_both_modes! {
    an_interface_that_vanishes_and_returns_is_attached_as_it_was
    one_that_is_not_there_at_start_is_attached_when_it_comes
}

/// The cable is pulled out, and what was on it is gone.
fn pull(pair: &Pair) {
    pair.host.delete_link(HOST);
}

/// The cable is back, with all addresses.
fn plug(pair: &Pair) {
    pair.host.veth(HOST, &pair.peer, PEER);
    for family in FAMILIES {
        let bits = match family {
            Family::V4 => 24,
            Family::V6 => 64,
        };
        pair.host
            .add_address(HOST, &format!("{}/{bits}", family.host()));
        pair.peer
            .add_address(PEER, &format!("{}/{bits}", family.peer()));
    }
}

fn load<'n>(pair: &'n Pair, options: &str) -> Demux<'n> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 256 {options}"));
    demux
}

/// Sends to a port that nobody has until that is dropped.
#[track_caller]
fn is_judged(pair: &Pair, demux: &Demux<'_>, to: SocketAddr) {
    let client = udp(&pair.peer, Family::V4.any(0));
    let before = demux.count("drop", "no-socket");
    wait_for("a drop", || {
        client.send_to(b"anybody?", to).unwrap();
        demux.count("drop", "no-socket") > before
    });
}

fn an_interface_that_vanishes_and_returns_is_attached_as_it_was(mode: &str) {
    let pair = Pair::new();
    let demux = load(&pair, &format!("--mode {mode} --default drop"));
    demux.ok("bind udp :5353 --to drop --name mdns");
    let before = demux.interface(HOST).unwrap();
    let mut daemon = Daemon::start(&demux, "");
    for _ in 0..2 {
        pull(&pair);
        plug(&pair);
        let after = wait_for_some("the interface", || {
            demux
                .interface(HOST)
                .filter(|entry| entry["attached"] == true)
        });
        assert_ne!(after["ifindex"], before["ifindex"]);
        for key in ["mode", "default", "egress", "egress_attached", "reply"] {
            assert_eq!(after[key], before[key], "{key}");
        }
        let status = demux.item("status");
        let entries = status["interfaces"].as_array().unwrap();
        assert_eq!(entries.len(), 1, "{status}");
        is_judged(&pair, &demux, Family::V4.at_host(9));
        let server = udp(&pair.host, Family::V4.any(53));
        let client = udp(&pair.peer, Family::V4.any(0));
        ask(&client, &server, Family::V4.at_host(53));
    }
    daemon.says(&format!(
        "{HOST} is back, and attached again in {mode} mode"
    ));
    let names: Vec<_> = demux.items("bindings");
    assert_eq!(names[0]["name"], "mdns");
    assert_eq!(daemon.stop(), 0);
}

fn one_that_is_not_there_at_start_is_attached_when_it_comes(mode: &str) {
    let pair = Pair::new();
    let demux = load(
        &pair,
        &format!("--mode {mode} --default drop --egress none"),
    );
    pull(&pair);
    let status = demux.ok("status").stdout;
    assert!(status.contains(HOST), "{status}");
    let daemon = Daemon::start(&demux, "");
    plug(&pair);
    daemon.says(&format!("{HOST} is back"));
    let entry = demux.interface(HOST).unwrap();
    assert_eq!(
        (&entry["mode"], &entry["egress"]),
        (&mode.into(), &"none".into())
    );
    is_judged(&pair, &demux, Family::V4.at_host(9));
}

#[test]
fn unload_is_not_undone() {
    let pair = Pair::new();
    pair.host.veth("a0", &pair.peer, "a1");
    pair.host.veth("b0", &pair.peer, "b1");
    pair.host.veth("c0", &pair.peer, "c1");
    let demux = Demux::new(&pair.host);
    demux.ok("load a0 b0 c0 --max-connections 64");
    let daemon = Daemon::start(&demux, "");
    demux.ok("unload a0");
    for name in ["a0", "b0", "c0"] {
        pair.host.delete_link(name);
    }
    // One that is gone can be unloaded, too.
    demux.ok("unload b0");
    assert_eq!(demux.run("unload b0").status, 3);
    for (name, peer) in [("a0", "a1"), ("b0", "b1"), ("c0", "c1")] {
        pair.host.veth(name, &pair.peer, peer);
    }
    daemon.says("c0 is back");
    assert_eq!(pair.host.interface("a0").xdp, None);
    assert_eq!(pair.host.interface("b0").xdp, None);
    assert_eq!(
        demux.item("status")["interfaces"].as_array().unwrap().len(),
        1
    );

    // What was removed by hand stays off, too.
    demux.ok("load a0");
    let index = pair.host.index("c0");
    std::fs::remove_file(demux.directory().join(format!("links/xdp_{index}"))).unwrap();
    pair.host.delete_link("c0");
    pair.host.veth("c0", &pair.peer, "c1");
    pair.host.delete_link("a0");
    pair.host.veth("a0", &pair.peer, "a1");
    daemon.says("a0 is back");
    assert_eq!(pair.host.interface("c0").xdp, None);
}

#[test]
fn an_interface_is_known_by_the_name_that_it_had_last() {
    let pair = Pair::new();
    let demux = load(&pair, "");
    let daemon = Daemon::start(&demux, "");
    pair.host.set_down(HOST);
    pair.host.rename(HOST, "uplink");
    let index = pair.host.index("uplink");
    let kept = demux.directory().join(format!("names/{index}"));
    wait_for("the name", || {
        std::fs::read_link(&kept).is_ok_and(|name| name.as_os_str() == "uplink")
    });
    pair.host.delete_link("uplink");
    pair.host.veth("uplink", &pair.peer, PEER);
    daemon.says("uplink is back");
}

#[test]
fn another_program_in_the_way_is_told_and_waited_for() {
    let pair = Pair::new();
    let demux = load(&pair, "--default drop");
    let daemon = Daemon::start(&demux, "");
    daemon.signal(Signal::SIGSTOP);
    pull(&pair);
    plug(&pair);
    let program = xdp_program("somebody_elses", 2);
    let index = pair.host.index(HOST);
    let link = pair
        .host
        .enter(|| attach_xdp(std::os::fd::AsFd::as_fd(&program), index, NATIVE));
    daemon.signal(Signal::SIGCONT);
    daemon.says("is back, and not attached");
    drop(link);
    daemon.says(&format!("{HOST} is back, and attached again"));
}

#[test]
fn a_new_address_is_this_hosts_own() {
    let pair = Pair::new();
    let demux = load(&pair, "--default drop");
    let new: SocketAddr = "10.0.0.77:9".parse().unwrap();
    // Without the daemon its packets are left alone.
    pair.host.add_address(HOST, "10.0.0.77/24");
    let client = udp(&pair.peer, Family::V4.any(0));
    wait_for("the first packet", || {
        client.send_to(b"anybody?", new).unwrap();
        demux.count("pass", "not-local") > 0
    });
    assert_eq!(demux.count("drop", "no-socket"), 0);

    let _daemon = Daemon::start(&demux, "");
    is_judged(&pair, &demux, new);
    for address in ["10.0.0.78/24", "fd00::78/64"] {
        pair.host.add_address(HOST, address);
        let net: IpNet = address.parse().unwrap();
        wait_for(address, || locals(&demux).contains(&net.addr().to_string()));
    }
    is_judged(&pair, &demux, "10.0.0.78:9".parse().unwrap());
    change_addresses(&pair.host, &["10.0.0.78/24".parse().unwrap()], false);
    wait_for("its end", || {
        !locals(&demux).contains(&"10.0.0.78".to_owned())
    });
}

#[test]
fn a_new_station_is_this_hosts_own() {
    let pair = Pair::new();
    let demux = load(&pair, "--default drop");
    let _daemon = Daemon::start(&demux, "");
    let station = vec![2, 0, 0, 0, 0xab, 0xcd];
    pair.host.set_down(HOST);
    pair.host
        .set_link(pair.host.link(HOST).address(station).build());
    pair.host.set_up(HOST);
    is_judged(&pair, &demux, Family::V4.at_host(9));
    let status = demux.item("status");
    assert_eq!(
        status["warnings"].as_array().map(Vec::len),
        Some(0),
        "{status}"
    );
}

#[test]
fn more_changes_than_are_kept_lead_to_the_same_end() {
    let pair = Pair::new();
    let demux = load(&pair, "--default drop");
    let daemon = Daemon::start(&demux, "");
    is_judged(&pair, &demux, Family::V4.at_host(9));
    daemon.signal(Signal::SIGSTOP);
    let many: Vec<IpNet> = (0..1000_u32)
        .map(|number| {
            let [_, _, high, low] = number.to_be_bytes();
            format!("10.7.{high}.{low}/32").parse().unwrap()
        })
        .collect();
    for _ in 0..3 {
        change_addresses(&pair.host, &many, true);
        change_addresses(&pair.host, &many, false);
    }
    change_addresses(&pair.host, &many[..500], true);
    assert!(has_lost(&pair.host), "not enough changes to lose any");
    daemon.signal(Signal::SIGCONT);
    let is_of_them = |address: &String| address.starts_with("10.7.");
    wait_for("all addresses", || {
        locals(&demux)
            .iter()
            .filter(|address| is_of_them(address))
            .count()
            == 500
    });
}

#[test]
fn a_lock_that_is_held_is_waited_for_and_nobody_else_waits() {
    let pair = Pair::new();
    let demux = load(&pair, "--default drop");
    demux.ok("bind udp :7000 --to xsk:web");
    let daemon = Daemon::start(&demux, "");
    let first = daemon.open("web", HOST).unwrap();
    let directory = File::open(demux.directory()).unwrap();
    wait_for("the lock", || directory.try_lock().is_ok());
    pair.host.add_address(HOST, "10.0.0.77/24");
    // One waits for the lock, and the daemon answers another meanwhile.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| daemon.open("dns", HOST));
        for _ in 0..20 {
            first.connection.statistics().unwrap();
        }
        assert!(!waiting.is_finished());
        directory.unlock().unwrap();
        waiting.join().unwrap().unwrap();
    });
    wait_for("the address", || {
        locals(&demux).contains(&"10.0.0.77".to_owned())
    });
}

#[test]
fn an_instance_is_waited_for_and_its_end_is_noticed() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let daemon = Daemon::start(&demux, "");
    assert_eq!(daemon.open("web", HOST).unwrap_err().code(), "not_loaded");
    for _ in 0..2 {
        load_and_unload(&pair, &demux, &daemon);
    }
}

fn load_and_unload(pair: &Pair, demux: &Demux<'_>, daemon: &Daemon) {
    demux.ok(&format!("load {HOST} --default drop --max-connections 64"));
    demux.ok("bind udp :7000 --to xsk:web");
    let set = daemon.open("web", HOST).unwrap();
    pair.host.add_address(HOST, "10.0.0.77/24");
    is_judged(pair, demux, "10.0.0.77:9".parse().unwrap());
    assert!(set.connection.check().is_ok());
    demux.ok("unload --all");
    let error = wait_for_some("the end of the set", || set.connection.check().err());
    assert!(error.to_string().contains("unloaded"), "{error}");
    change_addresses(&pair.host, &["10.0.0.77/24".parse().unwrap()], false);
}

/// The addresses that the datapath takes for this host's.
fn locals(demux: &Demux<'_>) -> Vec<String> {
    demux
        .items("dump LOCALS")
        .iter()
        .map(|row| row["address"].as_str().unwrap().to_owned())
        .collect()
}

/// Adds or removes addresses, as fast as can be.
fn change_addresses(netns: &Netns, addresses: &[IpNet], is_added: bool) {
    let index = netns.index(HOST);
    netns.enter(|| {
        let mut netlink = Netlink::route().unwrap();
        for net in addresses {
            let mut message = AddressMessage::default();
            message.header.family = AddressFamily::Inet;
            message.header.index = index;
            message.header.prefix_len = net.prefix_len();
            message.attributes = vec![
                AddressAttribute::Address(net.addr()),
                AddressAttribute::Local(net.addr()),
                AddressAttribute::Flags(AddressFlags::Nodad),
            ];
            if is_added {
                let message = RouteNetlinkMessage::NewAddress(message);
                netlink.request(message, NLM_F_CREATE | NLM_F_EXCL).unwrap();
            } else {
                let message = RouteNetlinkMessage::DelAddress(message);
                netlink.request(message, 0).unwrap();
            }
        }
    });
}

/// Whether a listener of rtnetlink in the namespace has lost anything.
fn has_lost(netns: &Netns) -> bool {
    let sockets = netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap());
    sockets.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
        fields.get(1) == Some(&"0") && fields.get(8).is_some_and(|drops| *drops != "0")
    })
}
