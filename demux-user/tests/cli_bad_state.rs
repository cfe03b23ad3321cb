//! What is in the way of a command: other programs, other commands, and state that is not its own.

mod common;

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::Path,
};

use common::{
    bpf::{GENERIC, NATIVE, attach_xdp, xdp_program},
    demux::Demux,
    netns::Netns,
    snapshot::Snapshot,
};
use demux_common::layout::{LAYOUT_VERSION, Meta, map};
use demux_user::bpf;
use zerocopy::{FromBytes as _, IntoBytes as _};

/// What reads and what writes an instance, and nothing else.
const READERS: [&str; 8] = [
    "status",
    "settings",
    "counters",
    "bindings",
    "connections",
    "ports",
    "maps",
    "explain tcp from 10.0.0.1:1 to 10.0.0.2:2",
];
const WRITERS: [&str; 6] = [
    "bind tcp :81",
    "unbind web",
    "set track=bound",
    "confirm",
    "unload v0",
    "load v0",
];

fn loaded(netns: &Netns) -> Demux<'_> {
    netns.veth("v0", netns, "v1");
    let demux = Demux::new(netns);
    demux.ok("load v0 --max-connections 64");
    demux.ok("bind tcp :80 --name web");
    demux
}

/// Changes what an instance says of itself.
fn change_meta(directory: &Path, change: impl FnOnce(&mut Meta)) {
    let pin = bpf::object_get(&directory.join(map::META), false).unwrap();
    let mut bytes = [0; size_of::<Meta>()];
    bpf::map_lookup(pin.as_fd(), 0_u32.as_bytes(), &mut bytes).unwrap();
    let mut meta = Meta::read_from_bytes(&bytes).unwrap();
    change(&mut meta);
    bpf::map_update(pin.as_fd(), 0_u32.as_bytes(), meta.as_bytes(), 0).unwrap();
}

#[test]
fn an_interface_with_another_xdp_program_is_left_to_it() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    netns.veth("w0", &netns, "w1");
    let demux = Demux::new(&netns);
    for (mode, flag) in [("native", NATIVE), ("generic", GENERIC)] {
        let program = xdp_program("somebody_elses", 2);
        let index = netns.index("v0");
        let _link = netns.enter(|| attach_xdp(program.as_fd(), index, flag));
        let id = netns.interface("v0").xdp.unwrap().program_id;
        for line in [
            "load v0",
            "load v0 --mode native",
            "load v0 --mode generic",
            "load w0 v0",
        ] {
            demux
                .refused(line, 5, "hook_busy")
                .says(&["v0", "somebody_elses", &format!("id {id}"), mode])
                .hints(&["bpftool net", "v0"]);
        }
    }
    // It goes on where nothing is in the way.
    demux.ok("load w0 v0 --max-connections 64");
}

#[test]
fn an_interface_with_another_xdp_program_does_not_join_an_instance() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    netns.veth("w0", &netns, "w1");
    let program = xdp_program("somebody_elses", 2);
    let index = netns.index("w1");
    let _link = netns.enter(|| attach_xdp(program.as_fd(), index, NATIVE));
    demux
        .refused("load w0 w1", 5, "hook_busy")
        .says(&["w1", "somebody_elses"]);
    assert_eq!(netns.interface("w0").xdp, None);
}

#[test]
fn a_command_waits_for_another_one_and_then_names_it() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let directory = File::open(demux.directory()).unwrap();
    directory.lock().unwrap();
    let holder = format!("process {}", std::process::id());
    std::thread::scope(|scope| {
        for line in ["status", "bind tcp :81", "load v0", "unload --all"] {
            let (demux, holder) = (demux.clone(), holder.as_str());
            scope.spawn(move || {
                demux
                    .refused(line, 5, "locked")
                    .says(&["another demux command", holder])
                    .hints(&["try again"]);
            });
        }
    });
    // Readers do not exclude each other.
    directory.unlock().unwrap();
    directory.lock_shared().unwrap();
    demux.ok("status");
    demux.refused("bind tcp :81", 5, "locked");
    directory.unlock().unwrap();
    demux.ok("bind tcp :81");
}

#[test]
fn state_of_another_layout_is_refused_and_can_be_removed() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let directory = demux.directory();
    change_meta(&directory, |meta| meta.layout_version = LAYOUT_VERSION + 1);
    for line in READERS.iter().chain(&WRITERS) {
        demux
            .refused(line, 5, "layout_mismatch")
            .says(&[
                directory.to_str().unwrap(),
                &format!("layout {}", LAYOUT_VERSION + 1),
                &format!("needs {LAYOUT_VERSION}"),
            ])
            .hints(&["demux unload --all"]);
    }
    demux.ok("unload --all");
    assert_eq!(netns.interface("v0").xdp, None);
    demux.ok("load v0 --max-connections 64");
}

#[test]
fn state_that_lacks_a_map_is_of_another_layout() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    fs::remove_file(demux.directory().join(map::PREFIXES)).unwrap();
    demux
        .refused("status", 5, "layout_mismatch")
        .says(&["without a map PREFIXES"]);
    demux.ok("unload --all");
    demux.refused("status", 3, "not_loaded");
}

#[test]
fn state_of_another_namespace_or_boot_is_stale_and_clean_removes_it() {
    type Change = fn(&mut Meta);
    let changes: [(Change, &str); 2] = [
        (|meta| meta.netns_cookie += 1, "another network namespace"),
        (|meta| meta.boot_id[0] ^= 1, "before the last boot"),
    ];
    for (change, reason) in changes {
        let netns = Netns::new();
        let demux = loaded(&netns);
        let directory = demux.directory();
        change_meta(&directory, change);
        for line in READERS.iter().chain(&WRITERS) {
            demux
                .refused(line, 5, "stale_state")
                .says(&[directory.to_str().unwrap(), reason])
                .hints(&["demux clean"]);
        }
        demux.ok("clean");
        assert_eq!(
            Snapshot::instances(demux.bpffs()),
            [""; 0].map(Into::<std::path::PathBuf>::into)
        );
        assert_eq!(netns.interface("v0").xdp, None);
        demux.ok("load v0 --max-connections 64");
    }
}

#[test]
fn state_under_the_name_of_another_namespace_is_not_used_for_it() {
    let (first, second) = (Netns::new(), Netns::new());
    let one = loaded(&first);
    let other = loaded_elsewhere(&one, &second);
    let cookie = |netns: &Netns| {
        netns.enter(|| {
            demux_user::netns::NetworkNamespace::current()
                .unwrap()
                .cookie()
        })
    };
    let root = one.bpffs().join("demux");
    let place = |netns: &Netns| root.join(cookie(netns).to_string());
    other.ok("unload --all");
    fs::rename(place(&first), place(&second)).unwrap();
    one.refused("status", 3, "not_loaded");
    for line in READERS.iter().chain(&WRITERS) {
        other
            .refused(line, 5, "stale_state")
            .says(&["another network namespace"]);
    }
    one.ok("clean");
    assert!(!place(&second).exists());
    assert_eq!(first.interface("v0").xdp, None);
}

/// An instance of another namespace in the same BPF file system.
fn loaded_elsewhere<'n>(demux: &Demux<'_>, netns: &'n Netns) -> Demux<'n> {
    netns.veth("v0", netns, "v1");
    let demux = demux.in_netns(netns);
    demux.ok("load v0 --max-connections 64");
    demux
}

#[test]
fn state_of_a_dead_namespace_is_removed_and_that_of_a_living_one_is_kept() {
    let living = Netns::new();
    let demux = loaded(&living);
    let idle = Netns::new();
    let elsewhere = loaded_elsewhere(&demux, &idle);
    let dead = Netns::new();
    loaded_elsewhere(&demux, &dead);
    assert_eq!(Snapshot::instances(demux.bpffs()).len(), 3);
    demux.ok("clean");
    assert_eq!(Snapshot::instances(demux.bpffs()).len(), 3);

    drop(dead);
    let before = (demux.snapshot_of_own(), elsewhere.snapshot_of_own());
    // The kernel takes a namespace down in its own time.
    common::wait::wait_for("the state of the dead namespace to be removed", || {
        demux.ok("clean");
        Snapshot::instances(demux.bpffs()).len() == 2
    });
    assert_eq!(
        before,
        (demux.snapshot_of_own(), elsewhere.snapshot_of_own())
    );
    demux.ok("status");
    elsewhere.ok("status");
    // With nothing left to do it does nothing.
    let run = demux.ok("clean");
    assert_eq!(Snapshot::instances(demux.bpffs()).len(), 2, "{run}");
}
