//! Loading: what is said about it, and what it refuses.

mod common;

use common::{
    demux::Demux,
    netns::{Netns, Queues},
    nftables::{Hook, add_nat_chain},
    sockets::{connect, connect_result, listen, start_connecting, talk},
    wait::wait_for,
};
use demux_user::interface::XdpMode;
use netlink_packet_route::link::MacVlanMode;
use rtnetlink::{LinkBridge, LinkMacVlan};

fn with_veth() -> Netns {
    let netns = Netns::new();
    netns.veth_with_queues("v0", Queues::ONE, &netns, "v1", Queues::ONE);
    netns
}

#[test]
fn loading_says_how_it_attached_and_the_tables_have_their_usual_size() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    let run = demux.ok("load v0");
    assert!(run.stderr.contains("v0: attached in native mode"), "{run}");
    assert_eq!(run.stdout, "");
    let status = demux.item("status");
    assert_eq!(status["max_connections"], 131_072);
    let xdp = netns.interface("v0").xdp.unwrap();
    assert_eq!(xdp.mode, XdpMode::Native);
    assert_eq!(xdp.program_name().as_deref(), Some("demux_xdp"));
    assert_eq!(demux.interface("v0").unwrap()["program_id"], xdp.program_id);
    let quiet = demux.ok("-q load v1");
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn loading_again_is_a_note_and_other_options_are_a_conflict() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    demux.ok("load v0 --mode native --max-connections 64 --track bound --default drop");
    for line in [
        "load v0",
        "load v0 --mode auto",
        "load v0 --mode native",
        "load v0 --default drop --track bound --max-connections 64",
    ] {
        let before = demux.snapshot();
        let run = demux.ok(line);
        assert!(
            run.stderr.contains("v0: loaded already, in native mode"),
            "{run}"
        );
        assert_eq!(demux.snapshot(), before, "{run}");
    }
    let row = demux.item("load v0");
    assert_eq!(
        (&row["interface"], &row["already"]),
        (&"v0".into(), &true.into())
    );

    for (line, difference, remedy) in [
        (
            "load v0 --default pass",
            "default of v0 is drop, not pass",
            "demux set default@v0=pass",
        ),
        (
            "load v0 --track local",
            "track is bound, not local",
            "demux set track=local",
        ),
        (
            "load v0 --no-kernel-sockets",
            "kernel-sockets is on, not off",
            "demux set kernel-sockets=off",
        ),
        (
            "load v0 --mode generic",
            "mode of v0 is native, not generic",
            "demux unload",
        ),
        (
            "load v0 --max-connections 128",
            "max-connections is 64, not 128",
            "demux unload --all",
        ),
        (
            "load v1 --track local",
            "track is bound, not local",
            "demux set track=local",
        ),
    ] {
        demux
            .refused(line, 5, "options_differ")
            .says(&[difference])
            .hints(&[remedy]);
    }
    let refusal = demux.refused("load v0 --track local --default pass", 5, "options_differ");
    let remedy = refusal.hint.split("demux set ").nth(1).unwrap();
    demux.ok(&format!("set {remedy}"));
    demux.ok("load v0 --track local --default pass");
}

#[test]
fn several_interfaces_share_one_instance() {
    let netns = with_veth();
    netns.veth("w0", &netns, "w1");
    let demux = Demux::new(&netns);
    demux.ok("load v0 w0 v0 --max-connections 64");
    demux.ok("bind tcp :80 --name web");
    let run = demux.ok("load v0 w1");
    assert!(run.stderr.contains("v0: loaded already"), "{run}");
    assert!(run.stderr.contains("w1: attached"), "{run}");
    for name in ["v0", "w0", "w1"] {
        assert_eq!(demux.interface(name).unwrap()["attached"], true);
    }
    assert_eq!(demux.interface("v1"), None);
    demux.directory();

    demux.ok("unload w0 w1");
    assert_eq!(netns.interface("w0").xdp, None);
    assert!(netns.interface("v0").xdp.is_some());
    demux.ok("unload v0");
    // The bindings are kept for the next load.
    assert_eq!(demux.item("bindings")["name"], "web");
    demux.ok("load w0");
    assert_eq!(demux.item("bindings")["name"], "web");
    demux.ok("unload --all");
    demux.refused("status", 3, "not_loaded");
}

#[test]
fn where_one_interface_refuses_none_is_attached() {
    let netns = with_veth();
    let crowded = Queues { rx: 2, tx: 2 };
    netns.veth_with_queues("w0", Queues::ONE, &netns, "w1", crowded);
    let demux = Demux::new(&netns);
    demux
        .refused("load v0 w0 --mode native", 6, "unsupported")
        .says(&["w0", "native", "fewer receive queues", "ENOSPC"])
        .hints(&["--check"]);
    assert_eq!(netns.interface("v0").xdp, None);
    demux.refused("status", 3, "not_loaded");
    demux.ok("load v0 --max-connections 64");
    demux.refused("load v1 w0 --mode native", 6, "unsupported");
    assert_eq!(netns.interface("v1").xdp, None);
}

#[test]
fn a_driver_that_cannot_is_replaced_loudly() {
    let netns = Netns::new();
    let crowded = Queues { rx: 2, tx: 2 };
    netns.veth_with_queues("v0", Queues::ONE, &netns, "v1", crowded);
    let demux = Demux::new(&netns);
    let run = demux.ok("load v0 --max-connections 64");
    for word in [
        "warning:",
        "v0",
        "generic mode",
        "fewer receive queues",
        "ENOSPC",
    ] {
        assert!(run.stderr.contains(word), "{word} is missing: {run}");
    }
    assert_eq!(netns.interface("v0").xdp.unwrap().mode, XdpMode::Generic);
    assert_eq!(demux.interface("v0").unwrap()["mode"], "generic");
    demux.ok("unload --all");
    let row = demux.item("load v0 --max-connections 64");
    assert_eq!(row["mode"], "generic");
    assert!(
        row["mode_reason"].as_str().unwrap().contains("ENOSPC"),
        "{row}"
    );
}

#[test]
fn the_loopback_interface_can_be_loaded() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    let run = demux.ok("load lo --default drop --max-connections 64");
    assert!(run.stderr.contains("warning:"), "{run}");
    for (address, closed) in [
        ("127.0.0.1:80", "127.0.0.1:81"),
        ("[::1]:80", "[::1]:81"),
        ("127.9.9.9:80", "127.9.9.9:81"),
    ] {
        let listener = listen(&netns, address.parse().unwrap());
        let (mut client, mut server) = connect(&netns, &listener, address.parse().unwrap());
        talk(&mut client, &mut server);
        // Both sides are here, so there are two rows.
        let port = client.local_addr().unwrap().port();
        let rows = demux.items(&format!("connections lport {port} or rport {port}"));
        assert_eq!(rows.len(), 2, "{rows:?}");

        let dropped = demux.count("drop", "no-socket");
        let attempt = start_connecting(&netns, closed.parse().unwrap());
        wait_for("the SYN to be dropped", || {
            demux.count("drop", "no-socket") > dropped
        });
        assert!(connect_result(&attempt).is_none());
    }
}

#[test]
fn a_default_of_drop_is_refused_where_packets_may_have_no_socket() {
    let netns = with_veth();
    netns.veth("w0", &netns, "w1");
    netns.veth("x0", &netns, "x1");
    netns.add_link(LinkBridge::new("br0").build());
    netns.set_master("w0", "br0");
    netns.add_link(LinkMacVlan::new("mac0", netns.index("w1"), MacVlanMode::Bridge).build());
    let demux = Demux::new(&netns);
    demux.ok("load x0 w0 --max-connections 64");
    let refused = |name: &str, risk: &str| {
        for line in [
            format!("load {name} --default drop"),
            format!("load {name} x1 --default drop --try 60"),
        ] {
            demux
                .refused(&line, 5, "unsafe_default")
                .says(&["default of drop", name, risk])
                .hints(&["--force"]);
        }
    };
    refused("w1", "the macvlan mac0 takes packets from w1");
    demux
        .refused("set default@w0=drop", 5, "unsafe_default")
        .says(&["w0 belongs to the bridge br0"]);
    demux.ok("set default@x0=drop");
    netns.enter(|| add_nat_chain("gateway", "in", Hook::Prerouting, &["redir"]));
    refused("v0", "1 redirect rule in chain inet gateway in");
    // What applies already is not refused again, but what is new is.
    demux.ok("set default@x0=drop");
    demux.refused("set default=drop", 5, "unsafe_default");
    demux.ok("load w1");
    demux.ok("load v0 --default drop --force");
    demux.ok("set default=drop --force");
    assert_eq!(demux.interface("w0").unwrap()["default"], "drop");
}

#[test]
fn a_check_changes_nothing_and_tells_what_load_would_do() {
    let netns = with_veth();
    let crowded = Queues { rx: 2, tx: 2 };
    netns.veth_with_queues("w0", Queues::ONE, &netns, "w1", crowded);
    netns.enter(|| add_nat_chain("gateway", "out", Hook::Postrouting, &["masq"]));
    let demux = Demux::new(&netns);
    let before = demux.snapshot();
    let check = |line: &str, status: i32| {
        let plain = demux.run(line);
        assert_eq!(
            (plain.status, plain.stderr.as_str()),
            (status, ""),
            "{plain}"
        );
        let json = demux.run(&format!("-j {line}"));
        assert_eq!(json.status, status, "{json}");
        let document = json.json();
        assert_eq!(document["schema"], "demux.v1.check");
        (plain.stdout, document["items"][0].clone())
    };
    let (text, item) = check("load v0 --check", 0);
    for word in [
        "v0: could be loaded",
        "native",
        "veth",
        "1500",
        "1 rx, 1 tx",
        "stays up",
        "free",
    ] {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
    assert_eq!(
        (&item["mode"], &item["driver"], &item["mtu"], &item["ok"]),
        (&"native".into(), &"veth".into(), &1500.into(), &true.into())
    );
    assert!(item["memory_bytes"].as_u64().unwrap() > 1 << 20, "{item}");

    let (text, item) = check("load v0 --check --default drop", 7);
    assert!(text.contains("would be refused"), "{text}");
    assert!(text.contains("1 masquerade rule"), "{text}");
    assert_eq!(item["ok"], false);
    check("load v0 --check --default drop --force", 0);

    let (text, item) = check("load w0 --check", 0);
    assert!(text.contains("generic"), "{text}");
    assert!(
        item["mode_reason"]
            .as_str()
            .unwrap()
            .contains("receive queues"),
        "{item}"
    );
    let (_, item) = check("load w0 --check --mode native", 7);
    assert_eq!(item["mode"], "none");
    check("load v0 w0 --check", 0);
    assert_eq!(demux.snapshot(), before);

    // Of what is loaded it says that it is.
    demux.ok("load v0 --max-connections 64");
    let (text, item) = check("load v0 --check", 0);
    assert!(text.contains("demux's own"), "{text}");
    assert_eq!(
        (&item["loaded"], &item["memory_bytes"]),
        (&true.into(), &0.into())
    );
}

#[test]
fn a_check_foretells_the_conflict_of_options() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    demux.ok("load v0 --max-connections 64");
    let before = demux.snapshot();
    for line in [
        "load v0 --check --mode generic",
        "load v0 --check --default drop",
        "load v1 --check --track bound",
    ] {
        let run = demux.run(line);
        assert_eq!(run.status, 7, "{run}");
        assert!(run.stdout.contains("conflict"), "{run}");
        let run = demux.run(&format!("{line} -j"));
        let differences = &run.json()["items"][0]["differences"];
        assert_eq!(differences.as_array().unwrap().len(), 1, "{run}");
    }
    assert_eq!(demux.snapshot(), before);
    let run = demux.run("load v0 --check --mode native --default pass");
    assert_eq!(run.status, 0, "{run}");
}
