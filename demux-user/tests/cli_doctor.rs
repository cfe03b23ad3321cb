//! `demux doctor` from outside: machines, interfaces and users that lack something.

mod common;

use std::{
    fs,
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    process::Command,
};

use common::{
    bpf::{GENERIC, attach_xdp, xdp_program},
    bpffs::TemporaryBpfFs,
    demux::{Demux, Run, bare, finish},
    netns::{Netns, Queues},
    nftables::{Hook, add_nat_chain},
    privileges::{
        PublicBinary, as_ip_netns_exec_does, remount_read_only, with_an_old_kernel, with_group,
    },
    user::NOBODY,
};
use rtnetlink::LinkBridge;
use serde_json::Value;

/// What `doctor` found, and how it ended.
struct Found {
    run: Run,
    items: Vec<Value>,
}

impl Found {
    #[track_caller]
    fn of(run: Run) -> Self {
        let mut document = run.json();
        assert_eq!(document["schema"], "demux.v1.doctor", "{run}");
        assert_eq!(run.stderr, "", "{run}");
        let Value::Array(items) = document["items"].take() else {
            panic!("items are an array: {run}");
        };
        for item in &items {
            for key in ["id", "area", "severity", "summary"] {
                assert!(item[key].is_string(), "{key}: {item}");
            }
            for key in ["interface", "detail", "fix"] {
                assert!(
                    item[key].is_string() || item[key].is_null(),
                    "{key}: {item}"
                );
            }
        }
        let is_bad = |item: &Value| {
            ["warning", "failure"]
                .iter()
                .any(|bad| item["severity"] == *bad)
        };
        let status = if items.iter().any(is_bad) { 7 } else { 0 };
        assert_eq!(run.status, status, "{run}");
        Self { run, items }
    }

    fn with_id(&self, id: &str) -> Vec<&Value> {
        self.items.iter().filter(|item| item["id"] == id).collect()
    }

    /// Checks that exactly one finding has this id, this severity, and all of `words`.
    #[track_caller]
    fn has(&self, id: &str, severity: &str, words: &[&str]) -> &Self {
        let found = self.with_id(id);
        let [item] = found.as_slice() else {
            panic!("one {id} is due: {found:#?} in {}", self.run);
        };
        assert_eq!(item["severity"], severity, "{item:#}");
        let text = item.to_string();
        for word in words {
            assert!(text.contains(word), "{word:?} is missing in {item:#}");
        }
        self
    }
}

fn doctor(demux: &Demux<'_>, line: &str) -> Found {
    doctor_with(demux, line, |_command| {})
}

/// Runs it, and makes sure that nothing has changed.
fn doctor_with(demux: &Demux<'_>, line: &str, change: impl Fn(&mut Command)) -> Found {
    let before = demux.snapshot();
    let found = Found::of(demux.run_with(&format!("doctor -j {line}"), change));
    assert_eq!(demux.snapshot(), before, "doctor has changed something");
    found
}

fn with_veth() -> Netns {
    let netns = Netns::new();
    netns.veth_with_queues("v0", Queues::ONE, &netns, "v1", Queues::ONE);
    netns
}

#[test]
fn a_healthy_veth_on_this_machine_has_no_warning() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    let found = doctor(&demux, "v0");
    assert_eq!(found.run.status, 0, "{}", found.run);
    found
        .has("xdp-frags", "ok", &[])
        .has("test-run", "ok", &[])
        .has("batches", "ok", &[])
        .has("mappable-arrays", "ok", &[])
        .has("link-update", "ok", &[])
        .has("map-types", "ok", &["all"])
        .has("helpers", "ok", &["all"])
        .has("bpffs-mounted", "ok", &[demux.bpffs().to_str().unwrap()])
        .has("bpffs-writable", "ok", &[])
        .has("cgroup2", "ok", &["version 2"])
        .has("rights-load", "ok", &[])
        .has("hook", "ok", &["free"])
        .has("queues", "ok", &["1 receive"])
        .has("risk", "ok", &[])
        .has("egress", "ok", &[])
        .has("instance", "ok", &["not loaded"])
        .has("stale", "ok", &[]);
    // Its peer has neither GRO nor a program.
    assert!(!found.with_id("refusals").is_empty());

    demux.ok("load v0 --max-connections 64");
    // Without a name it is the interface that is loaded, and no other.
    let found = doctor(&demux, "");
    assert_eq!(found.run.status, 0, "{}", found.run);
    found
        .has("instance", "ok", &["loaded, on 1 interface"])
        .has("hook", "ok", &["v0: demux is attached"])
        .has("native", "ok", &["v0: native mode"]);
}

#[test]
fn people_read_a_list_by_area_and_more_with_verbose() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    let short = demux.ok("doctor v0");
    for line in ["kernel\n", "bpffs\n", "interfaces\n", "state\n"] {
        assert!(short.stdout.contains(line), "{short}");
    }
    assert!(!short.stdout.contains("BPF_PROG_TEST_RUN"), "{short}");
    assert!(short.stdout.contains(" checks\n"), "{short}");
    let long = demux.ok("doctor v0 -v");
    assert!(long.stdout.contains("BPF_PROG_TEST_RUN"), "{long}");
    assert!(!long.stdout.contains(" checks\n"), "{long}");
    let lines = demux.ok("doctor v0 --jsonl").json_lines();
    assert!(lines.len() > 20, "{lines:?}");
    demux.refused("doctor nosuch0", 3, "unknown_interface");
}

#[test]
fn what_takes_packets_away_is_named_and_worse_under_a_default_that_drops() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    netns.add_link(LinkBridge::new("br0").build());
    netns.set_master("v0", "br0");
    doctor(&demux, "v0").has(
        "risk",
        "note",
        &["v0 belongs to the bridge br0", "load br0 instead"],
    );
    netns.enter(|| add_nat_chain("gateway", "out", Hook::Postrouting, &["masq"]));
    let found = doctor(&demux, "v1");
    assert_eq!(found.run.status, 0, "{}", found.run);
    found.has(
        "risk",
        "note",
        &[
            "1 masquerade rule in chain inet gateway out",
            "bind the ports",
        ],
    );
    demux.ok("load v1 --max-connections 64 --default drop --force");
    let found = doctor(&demux, "v1");
    assert_eq!(found.run.status, 7, "{}", found.run);
    found.has("risk", "warning", &["masquerade", "the default is drop"]);
}

#[test]
fn an_interface_that_cannot_do_its_best_says_how_it_could() {
    let netns = Netns::new();
    netns.veth_with_queues("v0", Queues::ONE, &netns, "v1", Queues { rx: 2, tx: 2 });
    let demux = Demux::new(&netns);
    let found = doctor(&demux, "v0");
    assert_eq!(found.run.status, 7, "{}", found.run);
    found.has(
        "native",
        "warning",
        &["1 receive queues", "ethtool -L v0 rx 2", "generic mode"],
    );
    let program = xdp_program("theirs", 2);
    let index = netns.index("v1");
    let _link = netns.enter(|| attach_xdp(program.as_fd(), index, GENERIC));
    doctor(&demux, "v1").has("hook", "failure", &["theirs", "bpftool net show dev v1"]);
    netns.set_down("v0");
    doctor(&demux, "v0").has("link", "note", &["ip link set v0 up"]);
}

#[test]
fn a_user_without_rights_is_told_what_could_not_be_looked_at() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    demux.ok("load v0 --max-connections 64");
    let public = PublicBinary::new();
    let found = doctor_with(&demux, "v0", |command| public.run_as(command, NOBODY));
    found
        .has(
            "rights-read",
            "note",
            &["may not read", "usermod -aG demux"],
        )
        .has(
            "rights-load",
            "note",
            &["CAP_BPF and CAP_NET_ADMIN and CAP_PERFMON missing"],
        )
        .has("rights-write", "note", &["CAP_DAC_OVERRIDE missing"])
        .has(
            "xdp-frags",
            "note",
            &["could not be looked at", "needs root"],
        )
        .has("helpers", "note", &["could not be looked at"])
        .has("risk", "note", &["could not be looked at", "CAP_NET_ADMIN"])
        .has("instance", "note", &["could not be looked at"])
        .has("kernel-version", "ok", &[])
        .has("queues", "ok", &["1 receive"]);
}

#[test]
fn a_file_system_that_is_read_only_or_missing_is_told() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    demux.ok("load v0 --max-connections 64");
    remount_read_only(demux.bpffs(), true);
    // No snapshot: it opens pins to write.
    let found = Found::of(demux.run("doctor -j v0"));
    assert_eq!(found.run.status, 7, "{}", found.run);
    found
        .has(
            "bpffs-writable",
            "failure",
            &["read-only", "mount -o remount,rw"],
        )
        .has("instance", "ok", &["loaded"]);
    remount_read_only(demux.bpffs(), false);
    doctor(&demux, "v0").has("bpffs-writable", "ok", &[]);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let line = format!("doctor -j v1 --bpffs {path}");
    let found = Found::of(netns.enter(|| finish(&mut bare(&line), &line)));
    found.has(
        "bpffs-mounted",
        "note",
        &["none is mounted", "mount -t bpf bpf"],
    );
    assert!(found.with_id("bpffs-writable").is_empty());
    assert!(directory.path().read_dir().unwrap().next().is_none());
}

#[test]
fn a_file_system_that_would_vanish_is_a_failure_with_the_way_out() {
    let netns = Netns::named();
    netns.veth("v0", &netns, "v1");
    let line = "doctor -j v0";
    let mut command = bare(line);
    as_ip_netns_exec_does(&mut command);
    let found = Found::of(netns.enter(|| finish(&mut command, line)));
    let way_out = format!("demux -N {}", netns.selector());
    found.has("bpffs-mounted", "failure", &["private", &way_out]);
}

#[test]
fn a_kernel_that_is_too_old_is_a_failure() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    let found = doctor_with(&demux, "v0", with_an_old_kernel);
    assert_eq!(found.run.status, 7, "{}", found.run);
    found.has("kernel-version", "failure", &["too old", "5.18"]);
}

#[test]
fn the_group_that_is_shut_out_is_told_and_how_to_let_it_in() {
    const GROUP: u32 = 45_991;
    let netns = with_veth();
    let demux = Demux::new(&netns);
    doctor(&demux, "v0").has("group", "note", &["there is no group demux"]);
    // Where systemd has mounted the file system, it is root's alone.
    fs::set_permissions(demux.bpffs(), fs::Permissions::from_mode(0o700)).unwrap();
    let with_group = |command: &mut Command| with_group(command, GROUP);
    let found = doctor_with(&demux, "v0", with_group);
    assert_eq!(found.run.status, 7, "{}", found.run);
    found.has("group", "ok", &["45991"]).has(
        "bpffs-way",
        "warning",
        &["0700", "demux load does it"],
    );
    let loaded = demux.run_with("load v0 --max-connections 64", with_group);
    assert_eq!(loaded.status, 0, "{loaded}");
    let found = doctor_with(&demux, "v0", with_group);
    assert_eq!(found.run.status, 0, "{}", found.run);
    found
        .has("bpffs-way", "ok", &[])
        .has("instance-group", "ok", &[]);
}

#[test]
fn an_instance_from_before_the_group_was_there_is_told() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    demux.ok("load v0 --max-connections 64");
    let found = doctor_with(&demux, "v0", |command| with_group(command, 45_991));
    assert_eq!(found.run.status, 7, "{}", found.run);
    found.has("instance-group", "warning", &["chgrp demux"]);
}

#[test]
fn state_of_a_namespace_that_is_gone_is_to_be_cleaned() {
    let bpffs = TemporaryBpfFs::new();
    let here = Netns::new();
    let run = |netns: &Netns, line: &str| -> Run {
        let line = format!("--bpffs {} {line}", bpffs.path().display());
        netns.enter(|| finish(&mut bare(&line), &line))
    };
    let gone = with_veth();
    let loaded = run(&gone, "load v0 --max-connections 64");
    assert_eq!(loaded.status, 0, "{loaded}");
    Found::of(run(&here, "doctor -j lo")).has("stale", "ok", &[]);
    drop(gone);
    let found = Found::of(run(&here, "doctor -j lo"));
    assert_eq!(found.run.status, 7, "{}", found.run);
    found.has("stale", "warning", &["demux clean"]);
    assert_eq!(run(&here, "clean").status, 0);
    Found::of(run(&here, "doctor -j lo")).has("stale", "ok", &[]);
}
