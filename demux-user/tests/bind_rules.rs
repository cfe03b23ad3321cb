//! What `demux bind` refuses and what it says, and bindings that share their endpoints.

mod common;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use common::{
    demux::Demux,
    inside::{Inside, SYN, Stations, XDP_DROP},
    netns::Netns,
    pair::{FAMILIES, Family, HOST, PEER, Pair},
    privileges::{CAP_NET_BIND_SERVICE, without_capability},
    sockets::{bind, connect, listen, socket, udp, udp_to},
    wait::wait_for,
};
use demux_common::{binding::Binding, protocol::Protocol};
use demux_user::{
    bindings::{self, BindRequest, Destination, Pattern, Selector, change::name_of},
    bpffs::BpfFs,
};
use netlink_packet_route::route::{RouteHeader, RouteProtocol, RouteScope, RouteType};
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use rtnetlink::RouteMessageBuilder;

fn loaded(netns: &Netns) -> Demux<'_> {
    netns.veth("v0", netns, "v1");
    let demux = Demux::new(netns);
    demux.ok("load v0 --max-connections 64 --max-bindings 200");
    demux
}

/// The names of the bindings, as they are listed.
fn names(demux: &Demux<'_>) -> Vec<String> {
    demux
        .items("bindings")
        .iter()
        .map(|row| row["name"].as_str().unwrap().to_owned())
        .collect()
}

/// How a refusal names this process.
fn this_process() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    format!("process {} ({})", process::id(), name.trim_end())
}

#[test]
fn the_binding_that_is_in_the_way_is_named() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    demux.ok("bind tcp 127.0.0.1:80 --name one --reuse-port");
    demux.ok("bind tcp 127.0.0.2:80 --name two --reuse-addr");
    for line in ["bind tcp :80", "bind tcp 0.0.0.0:80 --reuse-addr"] {
        demux
            .refused(line, 5, "address_in_use")
            .says(&["binding \"one\""])
            .hints(&["demux bindings", "--reuse-port"]);
    }
    for line in [
        "bind tcp [::ffff:0.0.0.0]:80 --reuse-port",
        "bind tcp [::ffff:127.0.0.2]:80 --reuse-port",
    ] {
        demux
            .refused(line, 5, "address_in_use")
            .says(&["binding \"two\""]);
    }
    // The same number in another protocol, another port, and IPv6 alone are something else.
    demux.ok("bind udp :80");
    demux.ok("bind tcp :81");
    demux.ok("bind tcp [::]:80 --v6-only");
}

#[test]
fn ranges_and_prefixes_conflict_with_the_same_only() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    demux.ok("bind tcp :8000-8999 --name wide");
    for line in [
        "bind tcp :8080 --name exact",
        "bind tcp :8000-8998",
        "bind tcp 0.0.0.0:8000-8999",
        "bind tcp :8000-8999 --dev v0",
        "bind tcp [::]:8000-8999 --v6-only",
        "bind tcp 10.0.0.0/8:80",
        "bind tcp 10.0.0.0/9:80",
        "bind tcp 10.0.0.0/8:* --name network",
        "bind tcp :*",
    ] {
        demux.ok(line);
    }
    demux
        .refused("bind tcp :8000-8999 --reuse-addr", 5, "address_in_use")
        .says(&["\"wide\""]);
    demux
        .refused("bind tcp 10.0.0.0/8:0-65535", 5, "address_in_use")
        .says(&["\"network\""]);
    demux
        .refused("bind tcp 127.0.0.1:8080", 5, "address_in_use")
        .says(&["\"exact\""]);
    demux
        .refused("bind tcp :8999-8000", 2, "invalid_argument")
        .says(&["ends before it starts"]);
}

#[test]
fn devices_keep_bindings_apart() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    demux.ok("bind udp :53 --dev v0 --name inside");
    demux.ok("bind udp :53 --dev v1 --name outside");
    for line in ["bind udp :53", "bind udp 127.0.0.1:53 --dev v0"] {
        demux
            .refused(line, 5, "address_in_use")
            .says(&["\"inside\""]);
    }
    demux.refused("bind udp :54 --dev nosuch0", 3, "unknown_interface");
}

#[test]
fn the_process_that_holds_a_socket_is_named() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    let refused = |line: &str| demux.refused(line, 5, "address_in_use");
    // Other ports for the other family: what is in TIME-WAIT stays there.
    for (family, port) in FAMILIES.into_iter().zip([80, 180]) {
        let at = family.at_host(port);
        let listener = listen(&pair.host, at);
        let line = format!("bind tcp {at} --to drop --reuse-addr --reuse-port");
        refused(&line)
            .says(&[&this_process(), &format!("LISTEN {at}")])
            .hints(&["ss -"]);
        let wildcard = format!("bind tcp :{port} --to drop");
        refused(&wildcard).says(&[&this_process()]);
        // What goes to the stack takes nothing from it, and neither do a range, another address, another
        // protocol and another port.
        for line in [
            format!("bind tcp :{port}"),
            format!("bind tcp :{port}-200 --to drop"),
            format!("bind tcp 127.0.0.1:{port} --to drop"),
            format!("bind udp :{port} --to drop"),
            "bind tcp :79 --to drop".to_owned(),
        ] {
            let name = demux.ok(&line).stdout;
            demux.ok(&format!("unbind {}", name.trim()));
        }

        // A connection keeps the port when its listener is gone, and when it has ended.
        let (client, server) = connect(&pair.peer, &listener, at);
        drop(listener);
        let client_at = client.local_addr().unwrap();
        refused(&wildcard).says(&[&this_process(), &format!("ESTABLISHED {at} to {client_at}")]);
        drop(server);
        drop(client);
        wait_for("the socket to be in TIME-WAIT", || {
            let run = demux.run(&wildcard);
            assert_eq!(run.status, 5, "{run}");
            run.stderr.contains("TIME-WAIT")
        });
        refused(&wildcard).says(&["in use by the kernel: TIME-WAIT", &at.to_string()]);

        // The port of a connection that this host has opened.
        let listener = listen(&pair.peer, family.at_peer(443));
        let (client, _server) = connect(&pair.host, &listener, family.at_peer(443));
        let from = client.local_addr().unwrap();
        refused(&format!("bind tcp :{} --to drop", from.port()))
            .says(&[&this_process(), &from.to_string()]);

        let bound = pair
            .host
            .enter(|| socket(domain(family), libc::SOCK_STREAM, 0));
        bind(&bound, family.at_host(81));
        refused("bind tcp :81 --to drop").says(&[&this_process(), "BOUND"]);

        let unconnected = udp(&pair.host, family.at_host(53));
        refused("bind udp :53 --to drop").says(&[&this_process(), "UNCONNECTED"]);
        drop(unconnected);
        let _connected = udp_to(&pair.host, family.at_host(53), family.at_peer(53));
        refused("bind udp :53 --to drop").says(&[&this_process(), "ESTABLISHED"]);
    }
}

fn domain(family: Family) -> i32 {
    match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    }
}

#[test]
fn a_socket_of_another_process_or_device() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let listener = listen(&netns, "127.0.0.1:80".parse().unwrap());
    let mut child = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .spawn()
        .unwrap();
    let holder = format!("process {} (sleep)", child.id());
    demux
        .refused("bind tcp :80 --to drop", 5, "address_in_use")
        .says(&[&holder, "LISTEN 127.0.0.1:80"]);
    child.kill().unwrap();
    child.wait().unwrap();
    demux.ok("bind tcp :80 --to drop");

    let elsewhere = udp(&netns, "0.0.0.0:53".parse().unwrap());
    setsockopt(&elsewhere, BindToDevice, &"v1".into()).unwrap();
    demux.ok("bind udp :53 --to drop --dev v0 --name here");
    demux.refused(
        "bind udp 127.0.0.1:53 --to drop --dev v1",
        5,
        "address_in_use",
    );
    demux.ok("unbind here");
    demux.refused("bind udp :53 --to drop", 5, "address_in_use");
}

#[test]
fn several_are_bound_together_or_not_at_all() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let run = demux.ok("bind tcp :53 udp :53 tcp 127.0.0.1:80 --untracked");
    assert_eq!(run.stdout, "tcp-53\nudp-53\ntcp-80\n");
    assert_eq!(names(&demux), ["tcp-80", "tcp-53", "udp-53"]);
    for row in demux.items("bindings") {
        assert_eq!(row["flags"], serde_json::json!(["untracked"]), "{row}");
    }
    let more = demux.items("bind tcp :1 tcp :2");
    assert_eq!(
        (&more[0]["name"], &more[1]["name"]),
        (&"tcp-1".into(), &"tcp-2".into())
    );

    // The last is refused for what was there, for what comes before it, for a socket, for the host.
    let _held = udp(&netns, "127.0.0.1:99".parse().unwrap());
    for (line, status, code) in [
        ("bind udp :54 tcp :54 udp :53", 5, "address_in_use"),
        ("bind udp :54 tcp :54 udp 127.0.0.1:54", 5, "address_in_use"),
        (
            "bind udp :54 tcp :99 udp :99 --to drop",
            5,
            "address_in_use",
        ),
        ("bind udp :54 tcp 192.0.2.1:54", 1, "address_not_available"),
        ("bind udp :54 tcp :65536", 2, "invalid_argument"),
        ("bind udp :54 tcp", 2, "invalid_argument"),
        ("bind udp :54 sctp :54", 2, "invalid_argument"),
        ("bind udp :54 tcp :54 --name both", 2, "invalid_argument"),
    ] {
        demux.refused(line, status, code);
    }
    // 195 are free: one too many.
    let many: String = (1000..1196).map(|port| format!(" tcp :{port}")).collect();
    demux.refused(&format!("bind{many}"), 1, "binding_table_full");
    let enough: String = (1000..1195).map(|port| format!(" tcp :{port}")).collect();
    demux.ok(&format!("bind{enough}"));
}

#[test]
fn privileged_ports_need_their_capability() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let without = |command: &mut Command| without_capability(command, CAP_NET_BIND_SERVICE);
    for local in [":80", ":1023", ":1000-2000", ":*", "127.0.0.0/8:1", ":0-1"] {
        for protocol in ["tcp", "udp"] {
            demux
                .refused_with(
                    &format!("bind {protocol} {local}"),
                    4,
                    "permission_denied",
                    without,
                )
                .says(&[
                    "CAP_NET_BIND_SERVICE",
                    "below 1024",
                    local.trim_end_matches('*'),
                ])
                .hints(&["root"]);
        }
    }
    let may = |line: &str| {
        let run = demux.run_with(line, without);
        assert_eq!(run.status, 0, "{run}");
    };
    may("bind tcp :1024 tcp :2000-3000 udp :0");
    may("unbind tcp :1024");
    netns.sysctl("net/ipv4/ip_unprivileged_port_start", "80");
    may("bind tcp :80");
    demux
        .refused_with("bind tcp :79", 4, "permission_denied", without)
        .says(&["below 80"]);
    demux.ok("bind tcp :79");
}

#[test]
fn addresses_are_those_of_this_host() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    netns.add_address("v0", "10.1.0.2/24");
    let refused = |line: &str| demux.refused(line, 1, "address_not_available");
    for local in [
        "192.0.2.1:80",
        "[2001:db8::1]:80",
        "10.1.0.3:80-90",
        "[::ffff:192.0.2.1]:*",
    ] {
        refused(&format!("bind tcp {local}"))
            .says(&["no address of this host"])
            .hints(&["ip address", "--freebind"]);
        demux.ok(&format!("bind tcp {local} --freebind --name free"));
        demux.ok("unbind free");
    }
    let may = |line: &str| {
        demux.ok(&format!("{line} --name free"));
        demux.ok("unbind free");
    };
    // Its own, of any device; prefixes; and to whom one may listen besides.
    for local in [
        "10.1.0.2:80",
        "127.9.9.9:80",
        "[::1]:80",
        "10.0.0.0/8:80",
        "[2001:db8::/32]:80",
        "10.1.0.255:80",
        "255.255.255.255:80",
        "224.0.0.1:80",
        "[ff02::1]:80",
    ] {
        may(&format!("bind udp {local}"));
    }
    netns.sysctl("net/ipv4/ip_nonlocal_bind", "1");
    may("bind udp 192.0.2.1:80");
    refused("bind udp [2001:db8::1]:80");
    netns.sysctl("net/ipv4/ip_nonlocal_bind", "0");
    netns.sysctl("net/ipv6/ip_nonlocal_bind", "1");
    may("bind udp [2001:db8::1]:80");
    refused("bind udp 192.0.2.1:80");
    netns.sysctl("net/ipv6/ip_nonlocal_bind", "0");

    // Prefixes that were made local by hand.
    for (prefix, bits, local) in [
        ("192.0.2.0", 24, "192.0.2.1:80"),
        ("2001:db8::", 64, "[2001:db8::1]:80"),
    ] {
        make_local(&netns, prefix.parse().unwrap(), bits);
        may(&format!("bind udp {local}"));
    }
    refused("bind udp 192.0.3.1:80");
}

/// Makes a prefix local, as `ip route add local PREFIX dev lo` does.
fn make_local(netns: &Netns, prefix: IpAddr, bits: u8) {
    let lo = netns.index("lo");
    let mut route = match prefix {
        IpAddr::V4(prefix) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(prefix, bits)
            .output_interface(lo)
            .build(),
        IpAddr::V6(prefix) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(prefix, bits)
            .output_interface(lo)
            .build(),
    };
    route.header = RouteHeader {
        table: libc::RT_TABLE_LOCAL,
        kind: RouteType::Local,
        scope: RouteScope::Host,
        protocol: RouteProtocol::Boot,
        ..route.header
    };
    netns.add_route(route);
}

/// The ring of a group, by names, from a member on; read from the map itself.
fn ring(demux: &Demux<'_>, from: &str) -> Vec<String> {
    let bindings = Inside::of(demux).tables.bindings().unwrap();
    let by_index = |index: u16| bindings.iter().find(|(other, _)| *other == index).unwrap();
    let start = bindings
        .iter()
        .find(|(_, binding)| name_of(binding) == from)
        .unwrap();
    let (mut met, mut next) = (vec![from.to_owned()], start.1.next_member);
    while next != 0 && next != start.0 {
        met.push(name_of(&by_index(next).1));
        next = by_index(next).1.next_member;
    }
    met
}

#[test]
fn members_of_a_group_come_and_go() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let explained = || {
        let row = demux.item("explain tcp from 127.0.0.9:9 to 127.0.0.1:80");
        row["binding"].as_str().unwrap().to_owned()
    };
    for name in ["a", "b", "c"] {
        demux.ok(&format!("bind tcp 127.0.0.1:80 --reuse-port --name {name}"));
        assert!(["a", "b", "c"].contains(&explained().as_str()));
    }
    demux.ok("bind tcp :80 --reuse-port --name any");
    demux.ok("bind tcp 127.0.0.1:81 --name other");
    assert_eq!(names(&demux), ["c", "b", "a", "other", "any"]);
    assert_eq!(ring(&demux, "c"), ["c", "a", "b"]);
    assert_eq!(ring(&demux, "any"), ["any"]);
    for row in demux.items("bindings") {
        let is_shared = row["name"] != "other";
        let flags = if is_shared {
            vec!["reuse-port"]
        } else {
            vec![]
        };
        assert_eq!(row["flags"], serde_json::json!(flags), "{row}");
    }
    let run = demux.ok("bindings");
    assert!(run.stdout.contains("reuse-port"), "{run}");

    demux
        .refused("unbind tcp 127.0.0.1:80", 5, "ambiguous_binding")
        .says(&["a, b, c"])
        .hints(&["name one"]);
    demux
        .refused("bind tcp 127.0.0.1:80 --reuse-addr", 5, "address_in_use")
        .says(&["binding \"a\""]);
    demux.ok("unbind c");
    assert_eq!(ring(&demux, "b"), ["b", "a"]);
    demux.ok("bind tcp 127.0.0.1:80 --reuse-port --name d");
    assert_eq!(ring(&demux, "a"), ["a", "b", "d"]);
    demux.ok("unbind a");
    assert_eq!(ring(&demux, "b"), ["b", "d"]);
    demux.ok("unbind d");
    assert_eq!(ring(&demux, "b"), ["b"]);
    assert_eq!(explained(), "b");
    // The only one of its pattern again.
    demux.ok("unbind tcp 127.0.0.1:80");
    assert_eq!(explained(), "any");
}

/// Packets find a member, whoever comes and goes.
#[test]
fn a_group_is_never_without_a_member() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    let stations = Stations {
        from: pair.peer.mac(PEER),
        to: pair.host.mac(HOST),
    };
    let (inside, ifindex) = (Inside::of(&demux), pair.host.index(HOST));
    let request = |name: &str| BindRequest {
        pattern: Pattern::parse(Protocol::Tcp, "10.0.0.2:80", false).unwrap(),
        // An entry that is free has the stack for its target.
        target: Destination::Drop,
        fallback: None,
        name: Some(name.to_owned()),
        ifindex: 0,
        // Without rows, so that every packet asks anew.
        flags: Binding::REUSE_PORT | Binding::UNTRACKED,
        freebind: false,
    };
    let is_over = AtomicBool::new(false);
    let asked = AtomicU64::new(0);
    pair.host.enter(|| {
        let bpffs = BpfFs::find(Some(demux.bpffs())).unwrap();
        bindings::bind(&bpffs, &request("stays")).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut port = 1024;
                while !is_over.load(Ordering::Relaxed) {
                    port = if port == u16::MAX { 1024 } else { port + 1 };
                    let from = Family::V4.at_peer(port);
                    let syn = stations.segment(from, Family::V4.at_host(80), SYN, [1, 0]);
                    if inside.arrives(&syn, ifindex) != XDP_DROP {
                        break;
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                is_over.store(true, Ordering::Relaxed);
            });
            for round in 0..20 {
                let before = asked.load(Ordering::Relaxed);
                let both = [request("one"), request("two")];
                bindings::bind_all(&bpffs, &both).unwrap();
                for name in if round % 2 == 0 {
                    ["one", "two"]
                } else {
                    ["two", "one"]
                } {
                    bindings::unbind(&bpffs, &Selector::Name(name.to_owned())).unwrap();
                }
                wait_for("packets to be judged", || {
                    is_over.load(Ordering::Relaxed) || asked.load(Ordering::Relaxed) > before
                });
            }
            assert!(
                !is_over.swap(true, Ordering::Relaxed),
                "a packet found no member"
            );
        });
    });
    println!("{} packets", asked.into_inner());
}

#[test]
fn of_those_that_share_by_reuse_addr_the_last_wins() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let winner = || {
        let row = demux.item("explain udp from 127.0.0.9:9 to 127.0.0.1:53");
        row["binding"].as_str().unwrap().to_owned()
    };
    for name in ["first", "second"] {
        demux.ok(&format!(
            "bind udp :53 --reuse-addr --reuse-port --name {name}"
        ));
    }
    demux.ok("bind udp :53 --reuse-addr --name last");
    assert_eq!(winner(), "last");
    assert_eq!(names(&demux), ["last", "second", "first"]);
    for name in ["first", "second", "last"] {
        assert_eq!(ring(&demux, name), [name]);
    }
    demux.ok("unbind last");
    assert_eq!(ring(&demux, "first"), ["first", "second"]);
    demux.ok("bind udp :53 --reuse-addr --name last");
    demux.ok("unbind second");
    assert_eq!(winner(), "last");
}

#[test]
fn a_group_has_64_members() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let pairs = " tcp :80".repeat(64);
    demux.ok(&format!("bind --reuse-port{pairs}"));
    demux
        .refused("bind tcp :80 --reuse-port", 1, "group_full")
        .says(&["tcp *:80", "64 bindings"])
        .hints(&["demux unbind"]);
    assert_eq!(ring(&demux, "tcp-80").len(), 64);
    let line = format!("bind --reuse-port{} tcp :81", " tcp :81".repeat(64));
    demux.refused(&line, 1, "group_full");
    demux.ok("unbind tcp-80-7");
    demux.ok("bind tcp :80 --reuse-port --name last");
    let last = ring(&demux, "last");
    assert_eq!((last.len(), last[1].as_str()), (64, "tcp-80"));
}

#[test]
fn mapped_addresses_are_those_of_ipv4() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    demux.ok("bind tcp [::ffff:127.0.0.1]:80 --name one");
    demux.ok("bind udp [::ffff:0.0.0.0]:80 --name any");
    let locals: Vec<_> = demux
        .items("bindings")
        .iter()
        .map(|row| row["local"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(locals, ["127.0.0.1:80", "0.0.0.0:80"]);
    demux.refused("bind tcp 127.0.0.1:80", 5, "address_in_use");
    demux.refused("bind udp 127.0.0.1:80", 5, "address_in_use");
    let _held = listen(&netns, SocketAddr::from(([127, 0, 0, 1], 90)));
    demux.refused(
        "bind tcp [::ffff:127.0.0.1]:90 --to drop",
        5,
        "address_in_use",
    );
}
