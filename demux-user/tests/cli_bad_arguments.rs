//! Arguments that cannot be right: one line, a hint, the documented status, and nothing is changed.

mod common;

use common::{
    demux::{Demux, Refusal, bare, finish, refusal},
    frames::pcap,
    netns::Netns,
};

/// A small instance on a veth interface, with a binding named web.
fn loaded(netns: &Netns) -> Demux<'_> {
    netns.veth("v0", netns, "v1");
    let demux = Demux::new(netns);
    demux.ok("load v0 --max-connections 64");
    demux.ok("bind tcp :80 --name web");
    demux
}

/// A refusal of the arguments themselves.
#[track_caller]
fn invalid(demux: &Demux<'_>, line: &str) -> Refusal {
    demux.refused(line, 2, "invalid_argument")
}

#[test]
fn ports_are_numbers_from_0_to_65535() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    for (local, reason) in [
        (":65536", "\"65536\" is not a port from 0 to 65535"),
        (":-1", "\"-1\" is not a port"),
        (":abc", "\"abc\" is not a port"),
        (":http", "\"http\" is not a port"),
        (":", "\"\" is not a port"),
        (":80-79", "the range 80-79 ends before it starts"),
        (":80-65536", "\"65536\" is not a port"),
        ("10.0.0.2", "a port is missing"),
        ("80", "a port is missing"),
    ] {
        invalid(&demux, &format!("bind tcp {local}"))
            .says(&["local endpoint", local, reason])
            .hints(&["ADDRESS:PORT"]);
        invalid(&demux, &format!("unbind udp {local}")).says(&[reason]);
    }
    for (ports, reason) in [
        ("65536", "\"65536\" is not a port from 0 to 65535"),
        ("http", "\"http\" is not a port"),
        ("80-79", "the range 80-79 ends before it starts"),
        ("-1", "\"-1\" is not a port"),
        (":", "\"\" is not a port"),
    ] {
        invalid(&demux, &format!("ports {ports}")).says(&["port", ports, reason]);
    }
    for endpoint in ["10.0.0.1:65536", "10.0.0.1:-1", "10.0.0.1:abc", "10.0.0.1"] {
        let line = format!("explain tcp from {endpoint} to 10.0.0.2:80");
        invalid(&demux, &line).says(&[endpoint, "a port from 0 to 65535"]);
    }
    for filter in ["sport = 65536", "dport = :-1", "lport 80-79", "rport abc"] {
        let word = filter.rsplit(' ').next().unwrap();
        invalid(&demux, &format!("connections {filter}"))
            .says(&["filter", word])
            .hints(&["connections --help"]);
        invalid(&demux, &format!("kill {filter}")).says(&["filter", word]);
    }
}

#[test]
fn prefixes_fit_their_version_of_ip() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    for (local, reason) in [
        ("10.0.0.0/33:80", "an IPv4 prefix has 0 to 32 bits, not 33"),
        ("10.0.0.0/64:80", "an IPv4 prefix has 0 to 32 bits, not 64"),
        ("10.0.0.0/-8:80", "an IPv4 prefix has 0 to 32 bits, not -8"),
        ("[2001:db8::/129]:80", "an IPv6 prefix has 0 to 128 bits"),
        // An address of IPv6 with a prefix as IPv4 has them.
        ("[::ffff:10.0.0.0/24]:80", "lie behind its prefix"),
        ("[2001:db8::1/32]:80", "the network is 2001:db8::/32"),
        ("10.0.0.2/8:80", "the network is 10.0.0.0/8"),
        ("2001:db8::1:80", "an IPv6 address stands in brackets"),
        ("[10.0.0.2:80", "a ] is missing"),
        ("[fe80::1%v0]:80", "a device is given with --dev v0"),
    ] {
        invalid(&demux, &format!("bind udp {local}")).says(&[local, reason]);
    }
    invalid(&demux, "bind tcp 0.0.0.0:80 --v6-only").says(&["--v6-only"]);
    invalid(
        &demux,
        "explain tcp from 10.0.0.1:1 to [fd00::2]:80 --iface v0",
    )
    .says(&["both are IPv4, or both are IPv6"]);
}

#[test]
fn names_of_hosts_are_not_resolved() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    for host in ["localhost", "example.com", "[localhost]", "10.0.0"] {
        invalid(&demux, &format!("bind tcp {host}:80")).says(&["names are not resolved"]);
        invalid(&demux, &format!("unbind tcp {host}:80")).says(&["names are not resolved"]);
        invalid(&demux, &format!("explain udp from {host}:1 to 10.0.0.2:80"))
            .says(&["names are not resolved"]);
    }
    invalid(&demux, "connections dst example.com").says(&["example.com"]);
}

#[test]
fn words_are_those_of_this_version() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    for (line, reason) in [
        (
            "bind sctp :81",
            "unknown protocol \"sctp\"; available: tcp, udp",
        ),
        ("ports --proto sctp", "unknown protocol \"sctp\""),
        ("load v1 --mode fast", "unknown mode \"fast\""),
        ("load v1 --default deny", "unknown default \"deny\""),
        ("load v1 --track all", "unknown tracking \"all\""),
        ("load v1 --default drop --try 0", "0"),
        ("load v1 --max-connections many", "many"),
    ] {
        demux.refused(line, 2, "usage").says(&[reason]);
    }
    for (line, reason) in [
        ("set default=deny", "a default is pass, drop or reject"),
        ("set track=all", "track is local or bound"),
        ("set kernel-sockets=maybe", "on or off"),
        ("set timeout.established=0", "seconds"),
        ("set timeout.nosuch=5", "the states are"),
        ("set colour=blue", "the keys are"),
        ("set track", "KEY=VALUE"),
        ("set track@v0=bound", "only default@IFACE"),
        // Nothing is changed where one of several is wrong.
        ("set track=bound timeout.established=x", "timeout"),
        ("set track=bound --try 5", "--try"),
        ("load v1 --try 5", "--try"),
        ("load v1 --max-connections 0", "from 1 to"),
        ("load v1 --max-bindings 65536", "from 1 to 65535"),
        ("bind tcp :81 --name tcp", "the name of a protocol"),
        ("bind tcp :81 --name -x", "begin with a letter"),
        ("bind tcp :81 --name a/b", "other characters"),
        (
            "bind tcp :81 --name x123456789012345678901234567890123",
            "longer than 31",
        ),
        (
            "explain tcp from 10.0.0.1:1 towards 10.0.0.2:2",
            "from ENDPOINT to ENDPOINT",
        ),
        ("explain sctp from 10.0.0.1:1 to 10.0.0.2:2", "tcp or udp"),
        (
            "explain tcp from 10.0.0.1:1 to 10.0.0.2:2 sideways",
            "in or out",
        ),
        (
            "explain tcp from 10.0.0.1:1 to 10.0.0.2:2 --flags sin",
            "a flag is one of",
        ),
        ("connections state asleep", "asleep"),
        ("connections ( sport 80", "a ) is missing"),
        ("connections bogus 5", "bogus"),
    ] {
        // A name that begins like an option is one to the parser.
        if line.ends_with("-x") {
            demux.refused(line, 2, "usage");
        } else {
            invalid(&demux, line).says(&[reason]);
        }
    }
}

#[test]
fn things_that_do_not_exist_are_named() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    for line in [
        "load nosuch0",
        "load v1 nosuch0",
        "load nosuch0 --check",
        "unload nosuch0",
        "unload v0 nosuch0",
        "bind tcp :81 --dev nosuch0",
        "set default@nosuch0=drop",
        "set track=bound default@nosuch0=drop",
        "counters --iface nosuch0",
        "explain tcp from 10.0.0.1:1 to 10.0.0.2:2 --iface nosuch0",
    ] {
        demux
            .refused(line, 3, "unknown_interface")
            .says(&["\"nosuch0\""])
            .hints(&["ip link", "-N"]);
    }
    for line in [
        "unload v1",
        "unload v0 v1",
        "set default@v1=drop",
        "counters --iface v1",
    ] {
        demux
            .refused(line, 3, "not_attached")
            .says(&["v1"])
            .hints(&["demux load v1"]);
    }
    for (line, name) in [
        ("unbind nosuch", "nosuch"),
        ("unbind tcp :9", "tcp *:9"),
        ("unbind udp :80", "udp *:80"),
        ("unbind tcp 10.0.0.2:80", "tcp 10.0.0.2:80"),
    ] {
        demux
            .refused(line, 3, "binding_not_found")
            .says(&[name])
            .hints(&["demux bindings"]);
    }
    demux
        .refused("-N no-such-namespace status", 3, "unknown_namespace")
        .says(&["no-such-namespace"])
        .hints(&["ip netns list"]);
    demux.refused("-N /dev/null status", 3, "unknown_namespace");
    demux
        .refused("dump NOSUCH", 3, "map_not_found")
        .hints(&["demux maps"]);
}

#[test]
fn bindings_that_are_in_the_way_are_named() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    demux
        .refused("bind udp :53 --name web", 5, "name_taken")
        .says(&["\"web\""])
        .hints(&["demux unbind web"]);
    demux
        .refused("bind tcp :80 --to drop", 5, "address_in_use")
        .says(&["tcp *:80", "web"])
        .hints(&["demux bindings"]);
    demux
        .refused("bind tcp :80 --dev v0", 5, "address_in_use")
        .says(&["web"]);
    demux.ok("bind tcp :79 --dev v0 --name inside");
    demux.ok("bind tcp :79 --dev v1 --name outside");
    demux
        .refused("unbind tcp :79", 5, "ambiguous_binding")
        .says(&["inside", "outside"])
        .hints(&["name one"]);
}

#[test]
fn a_full_binding_table_takes_no_more() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let demux = Demux::new(&netns);
    demux.ok("load v0 --max-connections 64 --max-bindings 4");
    for port in 1..=4 {
        demux.ok(&format!("bind tcp :{port}"));
    }
    demux
        .refused("bind tcp :5", 1, "binding_table_full")
        .says(&["(4 bindings)"])
        .hints(&["demux unbind"]);
    demux.ok("unbind tcp :3");
    demux.ok("bind tcp :5");
    let names: Vec<_> = demux
        .items("bindings")
        .iter()
        .map(|binding| binding["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["tcp-1", "tcp-2", "tcp-4", "tcp-5"]);
}

#[test]
fn files_that_are_no_captures_are_refused() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("capture");
    let line = format!("explain --pcap {}", path.display());
    demux.refused(&line, 1, "io_error").says(&["No such file"]);

    let refused = |contents: &[u8], reason: &str| {
        std::fs::write(&path, contents).unwrap();
        demux
            .refused(&line, 1, "bad_capture")
            .says(&[path.to_str().unwrap(), reason])
            .hints(&["tcpdump"]);
    };
    refused(b"", "it is empty");
    refused(
        b"This is a text and no capture at all.\n",
        "neither pcap nor pcapng",
    );
    let whole = pcap(&[vec![0; 60]]);
    refused(&whole[..10], "");
    refused(&whole[..whole.len() - 1], "ends within a packet");
    refused(&whole[..30], "ends within a packet");
    let mut wireless = whole.clone();
    wireless[20] = 105;
    refused(&wireless, "not captured on Ethernet");

    std::fs::write(&path, &whole).unwrap();
    assert_eq!(demux.items(&line).len(), 1);
}

#[test]
fn usage_errors_end_with_2_and_say_where_help_is() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    for line in [
        "--bogus",
        "frobnicate",
        "load",
        "unload",
        "unload v0 --all",
        "bind",
        "bind tcp",
        "unbind",
        "set",
        "explain",
        "status extra",
        "status --bogus",
        "completions nosuchshell",
        "-q -v status",
        "explain --pcap x tcp from 10.0.0.1:1 to 10.0.0.2:2",
        "counters --interval 0",
    ] {
        let refusal = demux.refused(line, 2, "usage");
        let hint = &refusal.hint;
        assert!(
            hint.contains("--help") || hint.contains("similar"),
            "{hint}"
        );
    }
    let run = finish(&mut bare(""), "");
    assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{run}");
    assert!(run.stderr.contains("Usage: demux"), "{run}");
}

#[test]
fn help_and_version_are_no_errors() {
    for line in ["--help", "-h", "--version", "load --help", "bind -h"] {
        let run = finish(&mut bare(line), line);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{run}");
        assert!(run.stdout.contains("demux"), "{run}");
    }
}

#[test]
fn nothing_is_loaded_is_told_by_every_command_that_needs_it() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let demux = Demux::new(&netns);
    let needing = [
        "status",
        "settings",
        "counters",
        "bindings",
        "connections",
        "ports",
        "ports 80",
        "kill lport 80",
        "maps",
        "dump CONFIG",
        "explain tcp from 10.0.0.1:1 to 10.0.0.2:2",
        "bind tcp :80",
        "unbind web",
        "set track=bound",
        "confirm",
        "unload v0",
        "unload --all",
    ];
    for line in needing {
        demux
            .refused(line, 3, "not_loaded")
            .says(&["not loaded"])
            .hints(&["demux load"]);
    }
    // Nor is it where there is no BPF file system at all; and none is mounted.
    let directory = tempfile::tempdir().unwrap();
    for line in needing {
        let line = format!("--bpffs {} {line}", directory.path().display());
        let run = |line: &str| netns.enter(|| finish(&mut bare(line), line));
        refusal(&run(&line), &run(&format!("-j {line}")), 3, "not_loaded")
            .says(&["no BPF file system", directory.path().to_str().unwrap()]);
    }
    assert!(directory.path().read_dir().unwrap().next().is_none());
}
