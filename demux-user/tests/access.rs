//! Who may do what: members of the group demux read everything and change nothing; each writing command
//! works with the capabilities that its help names, and with no fewer.

mod common;

use std::{
    fs,
    io::ErrorKind,
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::Path,
    process::Command,
    thread,
};

use common::{
    demux::{Demux, Run},
    inside::{run, run_live},
    netns::Netns,
    pair::{Family, HOST, Pair},
    privileges::{PublicBinary, remount_read_only, with_group},
    sockets::{connect, listen},
};
use demux_common::layout::{map, program};
use demux_user::bpf;
use rustix::{
    process::{Gid, Uid},
    thread::{CapabilitySet, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// A user with a group of its own, and the number of the group demux.
const USER: u32 = 45_990;
const GROUP: u32 = 45_991;

const NONE: CapabilitySet = CapabilitySet::empty();

/// A host with demux on it, in a BPF file system as systemd mounts it, and users of that host.
struct World<'p> {
    demux: Demux<'p>,
    public: PublicBinary,
}

impl<'p> World<'p> {
    fn new(pair: &'p Pair) -> Self {
        let demux = Demux::new(&pair.host);
        fs::set_permissions(demux.bpffs(), fs::Permissions::from_mode(0o700)).unwrap();
        let world = Self {
            demux,
            public: PublicBinary::new(),
        };
        world.load();
        world
    }

    fn load(&self) {
        let line = format!("load {HOST} --max-connections 64");
        let run = self
            .demux
            .run_with(&line, |command| with_group(command, GROUP));
        assert_eq!(run.status, 0, "{run}");
    }

    /// Runs a command as a member of the group with these capabilities alone.
    fn member(&self, line: &str, capabilities: CapabilitySet) -> Run {
        self.demux
            .run_with(line, |command| self.become_member(command, capabilities))
    }

    fn become_member(&self, command: &mut Command, capabilities: CapabilitySet) {
        self.public
            .run_as_member(command, USER, &[GROUP], capabilities);
    }
}

/// Runs `work` on a thread of a user in the group, without capabilities.
fn as_member(work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
            set_thread_groups(&[Gid::from_raw(GROUP)]).unwrap();
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
            work();
        });
    });
}

#[test]
fn members_of_the_group_read_everything_without_capabilities() {
    let pair = Pair::new();
    let world = World::new(&pair);
    let mode = fs::metadata(world.demux.bpffs()).unwrap().permissions();
    assert_eq!(mode.mode() & 0o7777, 0o710, "passing, and not listing");
    world.demux.ok("bind tcp :80 --name web");
    world.demux.ok("bind tcp :81 --name off --to drop");
    world.demux.ok("allocate tcp 10.0.0.1:9");
    let listener = listen(&pair.host, Family::V4.any(80));
    let _ends = connect(&pair.peer, &listener, Family::V4.at_host(80));
    let _others = listen(&pair.host, Family::V4.any(90));

    let mut lines: Vec<String> = [
        "status",
        "settings",
        "counters",
        "bindings",
        "connections",
        "connections state established",
        "ports",
        "ports 80",
        "xsks",
        "maps",
        "explain tcp from 10.0.0.1:9 to 10.0.0.2:81",
        "explain tcp from 10.0.0.2:80 to 10.0.0.1:9 out --flags ack",
        "kill lport 80 --dry-run",
    ]
    .map(Into::into)
    .into();
    // The kernel shows the sockets in a map to nobody.
    let shown = map::ALL.iter().filter(|&&name| name != map::XSKS);
    lines.extend(shown.map(|name| format!("dump {name}")));
    for line in &lines {
        let run = world.member(&format!("{line} -j"), NONE);
        assert_eq!(run.status, 0, "{run}");
        let items = run.json()["items"].as_array().unwrap().len();
        let own = world.demux.run(&format!("{line} -j"));
        assert_eq!(own.status, 0, "{own}");
        let of_root = own.json()["items"].as_array().unwrap().len();
        assert_eq!(items, of_root, "{run}\n{own}");
    }
    let explained = world.member("explain tcp from 10.0.0.1:9 to 10.0.0.2:81 -j", NONE);
    assert_eq!(explained.json()["items"][0]["verdict"], "drop");
    let verified = world.member("connections --verify", NONE);
    let own = world.demux.run("connections --verify");
    assert_eq!(
        (verified.status, &verified.stdout),
        (own.status, &own.stdout)
    );
    let doctor = world.member("doctor -j", NONE);
    assert_eq!(doctor.status, 0, "{doctor}");
    let text = doctor.stdout;
    assert!(
        text.contains("may read as a member of the group demux"),
        "{text}"
    );
}

/// What changes something, with the capabilities that it needs beside CAP_DAC_OVERRIDE, which opens
/// root's pins.
fn writers() -> Vec<(&'static str, CapabilitySet)> {
    const DAC: CapabilitySet = CapabilitySet::DAC_OVERRIDE;
    let unload = DAC | CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
    let load = unload | CapabilitySet::PERFMON;
    vec![
        ("load v0", load),
        ("set track=bound", DAC),
        ("set default=drop --try 60", DAC | CapabilitySet::NET_ADMIN),
        ("confirm", DAC),
        ("set default=pass", DAC),
        ("set ephemeral.algorithm=random", DAC),
        ("bind tcp :8080 --name web", DAC),
        (
            "bind tcp :80 --name low",
            DAC | CapabilitySet::NET_BIND_SERVICE,
        ),
        ("bind tcp :8081 --name cpus --to cpu:0", DAC),
        ("bind tcp :8082 --name off --to drop", DAC),
        ("unbind off", DAC),
        ("unbind web", DAC),
        ("allocate tcp 10.0.0.1:9 --from 10.0.0.2:40000", DAC),
        ("release tcp 10.0.0.2:40000 10.0.0.1:9", DAC),
        ("allocate tcp 10.0.0.1:9 --from 10.0.0.2:40000", DAC),
        ("kill rport 9 --forget", DAC),
        ("allocate tcp 10.0.0.1:9 --from 10.0.0.2:40000", DAC),
        ("kill rport 9", DAC | CapabilitySet::NET_ADMIN),
        (
            "clean",
            DAC | CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE,
        ),
        ("exec -- true", load),
        ("unload v0", unload),
        ("unload --all", unload),
    ]
}

#[test]
fn members_of_the_group_change_nothing_and_are_told_what_they_lack() {
    let pair = Pair::new();
    let world = World::new(&pair);
    pair.host.veth("v0", &pair.host, "v1");
    world.demux.ok("bind tcp :80 --name web");
    world.demux.ok("bind tcp :81 --name off --to drop");
    world
        .demux
        .ok("allocate tcp 10.0.0.1:9 --from 10.0.0.2:40000");
    world
        .demux
        .ok(&format!("set default@{HOST}=drop --try 600"));
    for (line, _) in writers() {
        let line = line.replace("unload v0", &format!("unload {HOST}"));
        let status = if line.starts_with("exec") { 125 } else { 4 };
        world
            .demux
            .refused_with(&line, status, "permission_denied", |command| {
                world.become_member(command, NONE);
            })
            .says(&["CAP_"])
            .hints(&["grant the capability"]);
    }
    let daemon = world.member("daemon --socket /tmp/no.sock", NONE);
    assert_eq!(daemon.status, 4, "{daemon}");
    assert!(daemon.stderr.contains("CAP_BPF"), "{daemon}");
}

#[test]
fn whoever_is_not_in_the_group_is_refused_everything_with_a_hint() {
    let pair = Pair::new();
    let world = World::new(&pair);
    pair.host.veth("v0", &pair.host, "v1");
    world.demux.ok("bind tcp :80 --name web");
    let outsider = |command: &mut Command| {
        world.public.run_as_member(command, USER, &[], NONE);
    };
    let readers = [
        "status",
        "settings",
        "counters",
        "bindings",
        "connections",
        "ports",
        "xsks",
        "maps",
        "dump BINDINGS",
        "explain tcp from 10.0.0.1:9 to 10.0.0.2:80",
    ];
    for line in readers {
        world
            .demux
            .refused_with(line, 4, "permission_denied", outsider)
            .hints(&["root", "group demux"]);
    }
    for (line, _) in writers() {
        let status = if line.starts_with("exec") { 125 } else { 4 };
        world
            .demux
            .refused_with(line, status, "permission_denied", outsider)
            .hints(&["root"]);
    }
}

#[test]
fn each_command_works_with_the_capabilities_that_its_help_names_and_with_no_fewer() {
    let pair = Pair::new();
    let world = World::new(&pair);
    pair.host.veth("v0", &pair.host, "v1");
    let mut wrong = Vec::new();
    for (line, needed) in writers() {
        let name = line.split(' ').next().unwrap();
        let help = world.demux.ok(&format!("{name} --help")).stdout;
        for capability in needed.iter() {
            let word = word(capability);
            if !help.contains(&word) {
                wrong.push(format!("the help of {name} does not name {word}"));
            }
            let fewer = world.member(line, needed - capability);
            let status = if name == "exec" { 125 } else { 4 };
            if fewer.status != status || !fewer.stderr.contains(&word) {
                wrong.push(format!("without {word}: {fewer}"));
            }
        }
        let run = world.member(line, needed);
        if run.status != 0 {
            wrong.push(format!("with all: {run}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        !world
            .demux
            .bpffs()
            .join("demux")
            .read_dir()
            .unwrap()
            .any(|_| true)
    );
    // Whoever has loaded owns the pins, and needs no right over those of others.
    let load = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
    let first = format!("load {HOST} --max-connections 64");
    let run = world.member(&first, load | CapabilitySet::DAC_OVERRIDE);
    assert_eq!(run.status, 0, "{run}");
    for line in ["bind tcp :8080 --name web", "set track=bound", "unbind web"] {
        let run = world.member(line, NONE);
        assert_eq!(run.status, 0, "{run}");
    }
    // The directory of all instances is root's here, who made it first; nothing is half-removed.
    let before = world.demux.snapshot();
    let run = world.member("unload --all", load);
    assert_eq!(run.status, 4, "{run}");
    assert_eq!(world.demux.snapshot(), before);
    let run = world.member("unload --all", load | CapabilitySet::DAC_OVERRIDE);
    assert_eq!(run.status, 0, "{run}");
}

fn word(capability: CapabilitySet) -> String {
    let mut names = capability.iter_names();
    format!("CAP_{}", names.next().expect("one capability").0)
}

#[test]
fn pins_of_live_programs_and_the_secret_are_shut() {
    let pair = Pair::new();
    let world = World::new(&pair);
    world.demux.ok("bind tcp :81 --name off --to drop");
    let directory = world.demux.directory();
    let listed = |name: &str| -> Vec<_> {
        let entries = fs::read_dir(directory.join(name)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let (programs, links) = (listed("progs"), listed("links"));
    assert!(programs.len() >= program::ALL.len() && links.len() >= 2);
    let shut = |path: &Path, read_only: bool| {
        let error = bpf::object_get(path, read_only).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::PermissionDenied,
            "{}",
            path.display()
        );
    };
    as_member(|| {
        for path in programs.iter().chain(&links) {
            shut(path, false);
            if !path.ends_with(program::EXPLAIN) {
                shut(path, true);
            }
        }
        shut(&directory.join(map::SECRET), true);
        for name in map::ALL {
            let path = directory.join(name);
            shut(&path, false);
            let map = bpf::object_get(&path, true).unwrap();
            let error = bpf::map_update(map.as_fd(), &[0; 64], &[0; 4096], 0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{name}");
            // Nor by way of another pin, an id, or memory.
            let pin = world.demux.bpffs().join("mine");
            assert!(bpf::object_pin(map.as_fd(), &pin).is_err(), "{name}");
        }
        for entry in [
            &directory,
            &directory.join("progs"),
            &directory.join("links"),
        ] {
            assert!(fs::create_dir(entry.join("mine")).is_err());
            assert!(fs::set_permissions(entry, fs::Permissions::from_mode(0o777)).is_err());
        }
        assert!(fs::remove_file(&links[0]).is_err());
        assert!(bpf::program_open_by_id(1).is_err());
    });
}

#[test]
fn the_twin_changes_nothing_and_injects_nothing() {
    let pair = Pair::new();
    let world = World::new(&pair);
    world.demux.ok("bind udp :53 --name dns");
    let index = pair.host.index(HOST);
    let receiver = common::sockets::udp(&pair.host, Family::V4.any(53));
    receiver.set_nonblocking(true).unwrap();
    let stations = common::inside::Stations {
        from: pair.peer.mac(common::pair::PEER),
        to: pair.host.mac(HOST),
    };
    let frames = [
        stations.datagram(Family::V4.at_peer(9), Family::V4.at_host(53), b"forged"),
        stations.segment(
            Family::V4.at_peer(9),
            Family::V4.at_host(80),
            common::inside::SYN,
            [1, 0],
        ),
    ];
    let twin = world.demux.directory().join("progs").join(program::EXPLAIN);
    let snapshot = || common::snapshot::Snapshot::with_traffic(world.demux.bpffs(), &pair.host);
    // Neighbours are asked for before.
    let _ends = common::sockets::udp(&pair.peer, Family::V4.any(9));
    let before = snapshot();
    pair.host.enter(|| {
        as_member(|| {
            let twin = bpf::object_get(&twin, true).unwrap();
            for frame in &frames {
                assert_eq!(
                    run(twin.as_fd(), frame, index, 100),
                    common::inside::XDP_DROP
                );
                run_live(twin.as_fd(), frame, index, 100);
            }
        });
    });
    assert_eq!(snapshot(), before);
    let mut buffer = [0; 16];
    let error = receiver.recv(&mut buffer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_read_only_file_system_is_read_and_every_change_refused_with_the_remedy() {
    for only_mount in [false, true] {
        let netns = Netns::new();
        netns.veth("v0", &netns, "v1");
        let demux = Demux::new(&netns);
        demux.ok("load v0 --max-connections 64");
        demux.ok("bind tcp :80 --name web");
        demux.ok("allocate tcp 127.0.0.1:9 --from 127.0.0.1:40000");
        let before = demux.snapshot();
        if only_mount {
            common::privileges::remount_mount_read_only(demux.bpffs(), true);
        } else {
            remount_read_only(demux.bpffs(), true);
        }
        for line in [
            "load v1",
            "load v1 --check",
            "load v0",
            "bind tcp :81",
            "bind tcp :81 --to drop",
            "unbind web",
            "set track=bound",
            "confirm",
            "unload v0",
            "unload --all",
            "clean",
        ] {
            let (plain, json) = (demux.run(line), demux.run(&format!("{line} -j")));
            common::demux::refusal(&plain, &json, 1, "read_only_bpffs")
                .says(&["read-only", demux.bpffs().to_str().unwrap()])
                .hints(&["mount -o remount,rw"]);
        }
        for line in ["status", "bindings", "connections", "maps", "dump PORTS"] {
            demux.ok(line);
        }
        if only_mount {
            common::privileges::remount_mount_read_only(demux.bpffs(), false);
        } else {
            for line in ["allocate tcp 127.0.0.1:8", "kill rport 9 --forget"] {
                let (plain, json) = (demux.run(line), demux.run(&format!("{line} -j")));
                common::demux::refusal(&plain, &json, 1, "read_only_bpffs");
            }
            remount_read_only(demux.bpffs(), false);
        }
        assert_eq!(demux.snapshot(), before, "something has changed");
        demux.ok("unload --all");
    }
    // Nor is anything loaded where nothing is yet.
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let demux = Demux::new(&netns);
    remount_read_only(demux.bpffs(), true);
    let (plain, json) = (demux.run("load v0"), demux.run("load v0 -j"));
    common::demux::refusal(&plain, &json, 1, "read_only_bpffs");
    demux.refused("bind tcp :80", 3, "not_loaded");
    assert_eq!(netns.interface("v0").xdp, None);
}
