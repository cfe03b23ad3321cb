//! What the library finds out about interfaces and addresses, in namespaces made for it.

mod common;

use common::netns::{Netns, Queues};
use demux_user::{ethtool, interface, local_address};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, Prop},
    route::{RouteScope, RouteType},
};
use rtnetlink::{LinkBridge, LinkMacVlan, RouteMessageBuilder};

#[test]
fn a_veth_pair_across_namespaces() {
    let (left, right) = (Netns::new(), Netns::new());
    left.veth_with_queues("v0", Queues { rx: 2, tx: 3 }, &right, "v1", Queues::ONE);
    left.set_mtu("v0", 1400);
    let v0 = left.interface("v0");
    assert_eq!((v0.name.as_str(), v0.mtu), ("v0", 1400));
    assert_eq!(v0.kind.as_deref(), Some("veth"));
    assert!(v0.is_up && !v0.is_loopback && v0.has_ethernet_header());
    assert_eq!((v0.rx_queues, v0.tx_queues), (2, 3));
    assert_eq!((v0.master, v0.xdp), (None, None));
    assert_eq!(v0.link, Some(right.index("v1")));
    assert!(v0.link_is_elsewhere);
    assert_eq!(v0.mac.unwrap().len(), 6);

    let all = left.enter(|| interface::all().unwrap());
    assert_eq!(all.len(), 2);
    assert!(all[0].is_loopback && all[0].has_ethernet_header());
    assert_eq!(v0.peer(&all), None);
    assert!(v0.uppers(&all).is_empty());

    let channels = left.enter(|| ethtool::channels("v0").unwrap());
    assert_eq!((channels.rx, channels.tx), (2, 3));
    assert_eq!(left.enter(|| ethtool::driver("v0").unwrap()), "veth");
    assert!(!left.enter(|| ethtool::has_lro("v0").unwrap()));
}

#[test]
fn the_peer_in_the_same_namespace_is_a_peer_and_no_upper() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let all = netns.enter(|| interface::all().unwrap());
    let v0 = netns.interface("v0");
    assert_eq!(v0.peer(&all).unwrap().name, "v1");
    assert!(v0.uppers(&all).is_empty());
}

#[test]
fn names_alternative_names_and_indexes() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let mut properties = netns.link("v0").build();
    properties
        .attributes
        .push(LinkAttribute::PropList(vec![Prop::AltIfName(
            "the-uplink-of-this-machine".into(),
        )]));
    netns.request(
        RouteNetlinkMessage::NewLinkProp(properties),
        netlink_packet_core::NLM_F_CREATE | netlink_packet_core::NLM_F_EXCL,
    );
    assert_eq!(netns.interface("the-uplink-of-this-machine").name, "v0");

    let index = netns.index("v0");
    netns.set_down("v0");
    netns.rename("v0", "other");
    let renamed = netns.enter(|| interface::by_index(index).unwrap().unwrap());
    assert_eq!(renamed.name, "other");
    assert!(!renamed.is_up);

    netns.delete_link("other");
    netns.enter(|| {
        assert_eq!(interface::by_index(index).unwrap(), None);
        let error = interface::by_name("other").unwrap_err();
        assert_eq!(
            (error.code(), error.exit_status()),
            ("unknown_interface", 3)
        );
    });
}

#[test]
fn masters_and_uppers() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    netns.add_link(LinkBridge::new("br0").build());
    netns.add_link(
        LinkMacVlan::new(
            "mac0",
            netns.index("v0"),
            netlink_packet_route::link::MacVlanMode::Bridge,
        )
        .build(),
    );
    netns.set_master("v1", "br0");
    let all = netns.enter(|| interface::all().unwrap());
    let uppers: Vec<_> = netns
        .interface("v0")
        .uppers(&all)
        .iter()
        .map(|upper| (upper.name.as_str(), upper.kind.as_deref().unwrap()))
        .collect();
    assert_eq!(uppers, [("mac0", "macvlan")]);
    assert_eq!(netns.interface("v1").master, Some(netns.index("br0")));
    assert!(netns.interface("br0").uppers(&all).is_empty());
}

#[test]
fn local_prefixes_are_those_of_the_local_table() {
    let netns = Netns::new();
    let prefixes = || -> Vec<String> {
        netns
            .enter(|| local_address::local_prefixes().unwrap())
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(prefixes(), ["127.0.0.0/8", "127.0.0.1/32", "::1/128"]);

    netns.veth("v0", &netns, "v1");
    netns.sysctl("net/ipv6/conf/v0/disable_ipv6", "1");
    netns.sysctl("net/ipv6/conf/v1/disable_ipv6", "1");
    netns.sysctl("net/ipv6/conf/v0/disable_ipv6", "0");
    netns.sysctl("net/ipv6/conf/v0/addr_gen_mode", "1");
    netns.set_down("v0");
    netns.set_up("v0");
    netns.add_address("v0", "10.0.0.1/24");
    netns.add_address("v1", "10.0.0.1/16");
    netns.add_address("v0", "fd00::1/64");
    let mut any_ip = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
        .destination_prefix("10.1.0.0".parse().unwrap(), 16)
        .output_interface(netns.index("lo"))
        .scope(RouteScope::Host)
        .kind(RouteType::Local)
        .build();
    any_ip.header.table = libc::RT_TABLE_LOCAL;
    netns.add_route(any_ip);
    assert_eq!(
        prefixes(),
        [
            "10.0.0.1/32",
            "10.1.0.0/16",
            "127.0.0.0/8",
            "127.0.0.1/32",
            "::1/128",
            "fd00::1/128",
        ]
    );
}

#[test]
fn forwarding_is_a_matter_of_the_namespace_and_of_the_interface() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let forwards = |name: &str| netns.enter(|| local_address::is_forwarding(name).unwrap());
    assert!(!forwards("v0") && !forwards("v1"));
    netns.sysctl("net/ipv4/conf/v0/forwarding", "1");
    assert!(forwards("v0") && !forwards("v1"));
    netns.sysctl("net/ipv6/conf/all/forwarding", "1");
    assert!(forwards("v1"));
}
