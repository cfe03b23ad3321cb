//! What is found out before anything is attached, in namespaces that have something to be found.

mod common;

use std::os::fd::AsFd as _;

use common::{
    bpf::{GENERIC, attach_sk_lookup, attach_xdp, sk_lookup_program, xdp_program},
    netns::{Netns, Queues},
    nftables::{Hook, add_nat_chain},
    pair::Family,
    sockets::{listen, udp},
};
use demux_user::{
    interface::XdpMode,
    preflight::{self, Native},
};
use netlink_packet_route::link::{MacVlanMode, MacVtapMode};
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use rtnetlink::{LinkBridge, LinkMacVlan, LinkMacVtap, LinkVxlan};

fn with_veth() -> Netns {
    let netns = Netns::new();
    netns.veth_with_queues("v0", Queues::ONE, &netns, "v1", Queues::ONE);
    netns
}

/// The lines of the risks for an interface.
fn risks(netns: &Netns, name: &str) -> Vec<String> {
    let interface = netns.interface(name);
    netns
        .enter(|| preflight::risks(&interface).unwrap())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_plain_host_has_no_risks() {
    let netns = with_veth();
    assert_eq!(risks(&netns, "v0"), [""; 0]);
    assert_eq!(risks(&netns, "lo"), [""; 0]);
}

#[test]
fn rules_of_nftables_that_translate_are_named_and_others_are_not() {
    let netns = with_veth();
    netns.enter(|| {
        add_nat_chain(
            "gateway",
            "out",
            Hook::Postrouting,
            &["counter", "masq", "masq"],
        );
        add_nat_chain("gateway", "in", Hook::Prerouting, &["redir"]);
        add_nat_chain("empty", "nat", Hook::Prerouting, &["counter"]);
    });
    assert_eq!(
        risks(&netns, "v0"),
        [
            "1 redirect rule in chain inet gateway in",
            "2 masquerade rules in chain inet gateway out",
        ]
    );
}

#[test]
fn sk_lookup_programs_are_counted() {
    let netns = with_veth();
    let program = sk_lookup_program();
    let first = attach_sk_lookup(program.as_fd(), netns.as_fd());
    assert_eq!(risks(&netns, "v0"), ["an sk_lookup program"]);
    let second_program = sk_lookup_program();
    let _second = attach_sk_lookup(second_program.as_fd(), netns.as_fd());
    assert_eq!(risks(&netns, "v0"), ["2 sk_lookup programs"]);
    drop(first);
}

#[test]
fn interfaces_that_take_packets_from_this_one_are_named() {
    let netns = with_veth();
    netns.add_link(LinkBridge::new("br0").build());
    netns.set_master("v0", "br0");
    netns.add_link(LinkMacVlan::new("mac0", netns.index("v1"), MacVlanMode::Bridge).build());
    assert_eq!(risks(&netns, "v0"), ["v0 belongs to the bridge br0"]);
    assert_eq!(
        risks(&netns, "v1"),
        ["the macvlan mac0 takes packets from v1"]
    );
    assert_eq!(risks(&netns, "br0"), [""; 0]);
}

#[test]
fn sockets_that_are_bound_to_a_device_above_are_named() {
    let netns = with_veth();
    netns.add_link(LinkBridge::new("br0").build());
    netns.set_master("v0", "br0");
    // A macvlan above the bridge, so two steps above the port.
    netns.add_link(LinkMacVlan::new("mac0", netns.index("br0"), MacVlanMode::Bridge).build());
    netns.set_up("br0");
    let any = |port| Family::V4.any(port);
    let of_bridge = listen(&netns, any(80));
    let of_macvlan = udp(&netns, Family::V6.any(53));
    let of_port = udp(&netns, any(54));
    let _free = listen(&netns, any(81));
    setsockopt(&of_bridge, BindToDevice, &"br0".into()).unwrap();
    setsockopt(&of_macvlan, BindToDevice, &"mac0".into()).unwrap();
    setsockopt(&of_port, BindToDevice, &"v0".into()).unwrap();
    assert_eq!(
        risks(&netns, "v0"),
        [
            "v0 belongs to the bridge br0",
            "the tcp socket 0.0.0.0:80 is bound to br0",
            "the udp socket [::]:53 is bound to mac0",
        ]
    );
    assert_eq!(
        risks(&netns, "br0"),
        [
            "the macvlan mac0 takes packets from br0",
            "the udp socket [::]:53 is bound to mac0",
        ]
    );
    assert_eq!(risks(&netns, "mac0"), [""; 0]);
}

#[test]
fn tap_devices_and_tunnels_over_an_interface_take_nothing_from_it() {
    let netns = with_veth();
    let vxlan = LinkVxlan::new("vxlan0", 5)
        .dev(netns.index("v0"))
        .port(4789)
        .build();
    netns.add_link(vxlan);
    netns.add_link(LinkMacVtap::new("tap0", netns.index("v1"), MacVtapMode::Bridge).build());
    assert_eq!(risks(&netns, "v0"), [""; 0]);
    // But a macvtap is a macvlan whose frames a process takes.
    assert_eq!(
        risks(&netns, "v1"),
        ["the macvtap tap0 takes packets from v1"]
    );
}

#[test]
fn every_risk_says_what_to_do() {
    let netns = with_veth();
    netns.add_link(LinkBridge::new("br0").build());
    netns.set_master("v0", "br0");
    netns.enter(|| add_nat_chain("gateway", "in", Hook::Prerouting, &["redir"]));
    netns.enter(|| add_nat_chain("gateway", "out", Hook::Postrouting, &["masq"]));
    let interface = netns.interface("v0");
    let risks = netns.enter(|| preflight::risks(&interface).unwrap());
    assert_eq!(risks.len(), 3);
    assert_eq!(
        preflight::remedies(&risks),
        [
            "bind the ports whose packets are translated or redirected",
            "load br0 instead",
        ]
    );
}

#[test]
fn the_report_on_a_veth_foretells_native_mode() {
    let netns = Netns::new();
    netns.veth_with_queues("v0", Queues::ONE, &netns, "v1", Queues { rx: 2, tx: 2 });
    let report = |name: &str| {
        let interface = netns.interface(name);
        netns.enter(|| preflight::report(&interface).unwrap())
    };
    let v0 = report("v0");
    assert_eq!(v0.driver.as_deref(), Some("veth"));
    assert_eq!((v0.mtu, v0.lro, v0.xdp), (1500, Some(false), None));
    assert_eq!(
        v0.channels.map(|channels| (channels.rx, channels.tx)),
        Some((1, 1))
    );
    assert_eq!(
        v0.peer_channels.map(|channels| (channels.rx, channels.tx)),
        Some((2, 2))
    );
    assert_eq!(v0.resets_link, Some(false));
    assert_eq!(
        v0.native,
        Native::Impossible(
            "1 receive queues are fewer than the 2 transmit queues of its peer".into()
        )
    );
    // Linux before 6.3 does not tell.
    assert!(matches!(
        report("v1").native,
        Native::Likely | Native::Unknown
    ));
    assert!(matches!(report("lo").native, Native::Impossible(_)));

    netns.add_link(LinkBridge::new("br0").build());
    let bridge = report("br0").native;
    assert!(
        bridge == Native::Unknown
            || bridge == Native::Impossible("the driver bridge has no XDP".into()),
        "{bridge:?}"
    );
}

#[test]
fn the_report_names_the_program_on_the_hook() {
    let netns = with_veth();
    let program = xdp_program("somebody_elses", 2);
    let index = netns.index("v0");
    let _link = netns.enter(|| attach_xdp(program.as_fd(), index, GENERIC));
    let interface = netns.interface("v0");
    let xdp = netns.enter(|| preflight::report(&interface).unwrap().xdp.unwrap());
    assert_eq!(xdp.mode, XdpMode::Generic);
    assert_eq!(xdp.program_name().as_deref(), Some("somebody_elses"));
}
