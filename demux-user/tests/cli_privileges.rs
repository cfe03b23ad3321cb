//! Commands that may not do what they are told, and machines on which they cannot.

mod common;

use std::{fs, os::unix::fs::symlink};

use common::{
    demux::{BINARY, Demux, Run, bare, finish, refusal},
    netns::Netns,
    pair::{Family, HOST, Pair},
    privileges::{
        CAP_SYS_ADMIN, PublicBinary, as_ip_netns_exec_does, share_with, with_an_old_kernel,
        without_capability,
    },
    sockets::{connect, listen},
    user::NOBODY,
};
use nix::sys::statfs::statfs;

fn with_veth() -> Netns {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    netns
}

#[test]
fn users_without_capabilities_are_told_which_are_missing() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    let public = PublicBinary::new();
    let as_nobody = |command: &mut std::process::Command| public.run_as(command, NOBODY);
    for line in ["load v0", "load v0 --check", "load nosuch0"] {
        demux
            .refused_with(line, 4, "permission_denied", as_nobody)
            .says(&[
                "load BPF programs",
                "CAP_BPF and CAP_NET_ADMIN and CAP_PERFMON missing",
            ])
            .hints(&["root"]);
    }
    demux.ok("load v0 --max-connections 64");
    for line in ["unload v0", "unload --all"] {
        demux
            .refused_with(line, 4, "permission_denied", as_nobody)
            .says(&["CAP_BPF and CAP_NET_ADMIN missing"]);
    }
    for line in [
        "status",
        "bindings",
        "connections",
        "ports",
        "kill lport 80 --forget",
        "bind tcp :80",
        "set track=bound",
        "confirm",
    ] {
        demux
            .refused_with(line, 4, "permission_denied", as_nobody)
            .hints(&["root", "group demux"]);
    }
    let selector = format!("-N {} status", netns.selector());
    demux.refused_with(&selector, 4, "permission_denied", as_nobody);
}

#[test]
fn entering_a_namespace_needs_a_capability_that_is_named() {
    let netns = Netns::named();
    let demux = Demux::new(&netns);
    demux
        .refused_with(
            &format!("-N {} status", netns.selector()),
            4,
            "permission_denied",
            |command| without_capability(command, CAP_SYS_ADMIN),
        )
        .says(&["CAP_SYS_ADMIN", &netns.selector()]);
}

#[test]
fn a_kernel_that_is_too_old_is_named_and_left_alone() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    for line in ["load v0", "load v0 --check"] {
        demux
            .refused_with(line, 6, "kernel_too_old", with_an_old_kernel)
            .says(&["Linux 2.6.", "too old", "5.18"])
            .hints(&["5.18"]);
    }
}

#[test]
fn a_bpf_file_system_that_cannot_be_mounted_is_an_error_of_its_own() {
    let netns = with_veth();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("full")).unwrap();
    fs::write(path("full/file"), "").unwrap();
    fs::write(path("file"), "").unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    fs::create_dir(path("empty")).unwrap();

    let refused = |name: &str, status, code, change: fn(&mut std::process::Command)| {
        let run = |json: &str| {
            let line = format!("{json} --bpffs {} load v0", path(name).display());
            let mut command = bare(&line);
            change(&mut command);
            netns.enter(|| finish(&mut command, &line))
        };
        let refusal = refusal(&run(""), &run("-j"), status, code);
        assert_eq!(netns.interface("v0").xdp, None);
        refusal.says(&[path(name).to_str().unwrap()])
    };
    for (name, reason) in [
        ("missing", "there is no such directory"),
        ("file", "there is no such directory"),
        ("dangling", "there is no such directory"),
        ("full", "the directory is not empty"),
    ] {
        refused(name, 1, "bpffs_unavailable", |_| {})
            .says(&["cannot mount the BPF file system", reason])
            .hints(&["mount -t bpf bpf", "--bpffs"]);
    }
    refused("empty", 4, "permission_denied", |command| {
        without_capability(command, CAP_SYS_ADMIN);
    })
    .says(&["mount the BPF file system", "CAP_SYS_ADMIN"]);
    let parent = statfs(directory.path()).unwrap().filesystem_type();
    assert_eq!(statfs(&path("empty")).unwrap().filesystem_type(), parent);
}

#[test]
fn a_bpf_file_system_is_mounted_where_it_is_missing() {
    let netns = with_veth();
    let directory = tempfile::tempdir().unwrap();
    let run = |line: &str| -> Run {
        let line = format!("--bpffs {} {line}", directory.path().display());
        netns.enter(|| finish(&mut bare(&line), &line))
    };
    let checked = run("load v0 --check");
    assert_eq!(checked.status, 0, "{checked}");
    assert!(directory.path().read_dir().unwrap().next().is_none());

    let loaded = run("load v0 --max-connections 64");
    assert_eq!(loaded.status, 0, "{loaded}");
    let status = run("status");
    assert_eq!(status.status, 0, "{status}");
    assert_eq!(run("unload --all").status, 0);
    nix::mount::umount(directory.path()).unwrap();
}

#[test]
fn pins_that_would_vanish_with_ip_netns_exec_are_refused() {
    let netns = Netns::named();
    netns.veth("v0", &netns, "v1");
    let name = netns.selector();
    for line in [
        "load v0",
        "load v0 --default drop",
        "status",
        "bind tcp :80",
        "clean",
    ] {
        let run = |json: &str| {
            let line = format!("{json} {line}");
            let mut command = bare(&line);
            as_ip_netns_exec_does(&mut command);
            netns.enter(|| finish(&mut command, &line))
        };
        refusal(&run(""), &run("-j"), 5, "private_bpffs")
            .says(&["/sys/fs/bpf", "private to this mount namespace"])
            .hints(&["ip netns exec", &format!("demux -N {name}")]);
        assert_eq!(netns.interface("v0").xdp, None);
    }
}

#[test]
fn a_lasting_bpf_file_system_can_be_used_under_ip_netns_exec() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    let run = demux.run_with("load v0 --max-connections 64", as_ip_netns_exec_does);
    assert_eq!(run.status, 0, "{run}");
    // The command and its mounts are gone.
    assert!(netns.interface("v0").xdp.is_some());
    demux.ok("status");
}

#[test]
fn a_namespace_is_chosen_by_name_or_by_path() {
    let (named, unnamed, outside) = (Netns::named(), Netns::new(), Netns::new());
    for netns in [&named, &unnamed] {
        netns.veth("v0", netns, "v1");
        let demux = Demux::new(&outside);
        let selector = netns.selector();
        demux.ok(&format!("-N {selector} load v0 --max-connections 64"));
        assert!(netns.interface("v0").xdp.is_some());
        let run = demux.ok(&format!("status -j -N {selector}"));
        let shown = run.json()["items"][0]["netns"].as_str().unwrap().to_owned();
        if std::ptr::eq(netns, &named) {
            assert_eq!(shown, selector);
        }
        demux.refused("status", 3, "not_loaded");
        demux.in_netns(netns).ok("status");
        demux.ok(&format!("--netns {selector} unload --all"));
    }
}

#[test]
fn who_may_read_the_maps_needs_no_capability_to_look() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    demux.ok("bind tcp :80 --name web");
    let listener = listen(&pair.host, Family::V4.any(80));
    let _ends = connect(&pair.peer, &listener, Family::V4.at_host(80));

    // The numbers that a member of the group demux would have.
    share_with(&demux, NOBODY);

    let public = PublicBinary::new();
    for (line, shown) in [
        ("bindings", "web"),
        ("connections", "10.0.0.1:"),
        ("counters", "bound"),
        ("settings", "kernel-sockets"),
        ("maps", "CONNECTIONS"),
        ("dump BINDINGS", "web"),
        ("status", HOST),
        ("explain tcp from 10.0.0.1:9 to 10.0.0.2:80", "web"),
    ] {
        let run = demux.run_with(line, |command| public.run_as(command, NOBODY));
        assert_eq!(run.status, 0, "{run}");
        assert!(run.stdout.contains(shown), "{shown} is missing: {run}");
        assert_eq!(run.stderr, "", "{run}");
    }
    for line in ["bind tcp :81", "unbind web", "set track=bound"] {
        demux.refused_with(line, 4, "permission_denied", |command| {
            public.run_as(command, NOBODY);
        });
    }
}

#[test]
fn the_binary_under_test_has_its_programs() {
    let netns = with_veth();
    let run = Demux::new(&netns).run("load v0 --max-connections 64");
    assert!(
        !run.stderr.contains("without its BPF programs"),
        "{BINARY}: run cargo xtask build first"
    );
}
