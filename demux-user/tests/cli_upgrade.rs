//! `demux upgrade`: every program is replaced, everything else stays, and what goes wrong changes nothing.

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::fd::AsFd as _,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya_obj::generated::bpf_map_type;
use common::{
    bpf::{attach_tcx, egress_program, map as new_map},
    chance::{Random, cases},
    demux::Demux,
    inside::Inside,
    pair::{Family, HOST, Pair},
    places::{all_places_agree, programs_by_pin},
    privileges::PublicBinary,
    sockets::{connect, listen, talk},
    user::NOBODY,
};
use demux_common::layout::{LAYOUT_VERSION, Meta, capacity, map, program};
use demux_user::{bpf, object};

/// A host with every kind of place for a program: a tcx link, a clsact filter, hooks of bind(2).
fn load<'p>(pair: &'p Pair) -> Demux<'p> {
    pair.host.veth("v0", &pair.peer, "v1");
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 256"));
    demux.ok("load v0 --egress clsact");
    demux.ok("bind tcp :8080 --to drop --name closed");
    demux.ok("bind tcp :80 --name web");
    demux
}

/// Has the instance say that its programs are of this build.
fn pretend(demux: &Demux<'_>, build: u32) {
    let inside = Inside::of(demux);
    let meta = inside.tables.meta().unwrap();
    inside.tables.set_meta(&Meta { build, ..meta }).unwrap();
}

#[test]
fn every_program_is_replaced_and_everything_else_stays() {
    let pair = Pair::new();
    let demux = load(&pair);
    let listener = listen(&pair.host, Family::V4.at_host(80));
    let mut ends = connect(&pair.peer, &listener, Family::V4.at_host(80));
    talk(&mut ends.0, &mut ends.1);
    let counted = || {
        (
            demux.count("pass", "connection"),
            demux.count("pass", "bound"),
        )
    };
    let counters = counted();
    let rows = demux.items("connections");
    assert_eq!(rows.len(), 1);

    // Programs of this demux are left alone.
    let before = programs_by_pin(&demux);
    let run = demux.ok("upgrade");
    assert!(run.stderr.contains("up to date"), "{run}");
    let item = demux.item("upgrade");
    assert_eq!(item["changed"], false);
    assert_eq!(item["before"], item["build"]);
    assert_eq!(programs_by_pin(&demux), before);
    assert_eq!(demux.item("status")["programs"], "current");

    // Those of another one are replaced.
    pretend(&demux, 0xbad_cafe);
    let status = demux.item("status");
    assert_eq!(
        (&status["programs"], &status["build"]),
        (&"other".into(), &"0badcafe".into())
    );
    assert!(demux.ok("status").stdout.contains("demux upgrade"));
    let item = demux.item("upgrade");
    assert_eq!(item["changed"], true);
    assert_eq!(item["before"], "0badcafe");
    // Two for what arrives, two for what leaves, and four for bind(2).
    assert_eq!(item["places"], 8, "{item}");
    let after = programs_by_pin(&demux);
    assert!(before.keys().eq(after.keys()), "{before:?} {after:?}");
    for (pin, id) in &after {
        assert_ne!(before[pin], *id, "{pin} was not replaced");
    }
    all_places_agree(&demux);

    let status = demux.item("status");
    assert_eq!(status["programs"], "current");
    assert_eq!(status["warnings"], serde_json::json!([]));
    for interface in status["interfaces"].as_array().unwrap() {
        assert_eq!(interface["attached"], true, "{interface}");
        assert_eq!(interface["egress_attached"], true, "{interface}");
        assert_eq!(interface["program_tag"].as_str().unwrap().len(), 16);
    }
    let identity = |row: &serde_json::Value| (row["local"].clone(), row["remote"].clone());
    let rows_after = demux.items("connections");
    assert_eq!(identity(&rows[0]), identity(&rows_after[0]));
    assert_eq!(counted(), counters);
    talk(&mut ends.0, &mut ends.1);
    let row = demux.items("connections").remove(0);
    assert!(row["rx_packets"].as_u64() > rows[0]["rx_packets"].as_u64());

    // And all that comes after works with them.
    let again = demux.item("upgrade --force");
    assert_eq!(again["changed"], true);
    assert_eq!(again["before"], again["build"]);
    all_places_agree(&demux);
    demux.ok("unbind closed");
    demux.ok("unload v0");
    demux.ok("load v0 --egress clsact");
    demux.ok("unload --all");
}

/// A command that runs under `demux exec` until the value is dropped.
struct Hooked(Child);

impl Hooked {
    fn start(demux: &Demux<'_>) -> Self {
        let mut command = demux.command("exec --");
        command
            .args(["sh", "-c", "echo ready; exec sleep 1000"])
            .stdout(Stdio::piped());
        let mut child = demux.netns().enter(|| command.spawn()).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        // It passes the signal on.
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// The ids of the programs for connect(2) in these control groups.
fn connect_programs(groups: &[u64]) -> Vec<u32> {
    let mut programs: Vec<u32> = bpf::link_ids()
        .unwrap()
        .into_iter()
        .filter_map(|id| bpf::link_info(bpf::link_open_by_id(id).ok()?.as_fd()).ok())
        .filter(|info| info.cgroup.is_some_and(|group| groups.contains(&group.id)))
        .map(|info| info.program_id)
        .collect();
    programs.sort_unstable();
    programs
}

#[test]
fn what_runs_under_exec_gets_the_new_programs_too() {
    let pair = Pair::new();
    let demux = load(&pair);
    let _hooked = Hooked::start(&demux);
    let inside = Inside::of(&demux);
    let groups: Vec<u64> = inside
        .tables
        .exec_groups()
        .unwrap()
        .iter()
        .map(|(id, _)| *id)
        .collect();
    let before = connect_programs(&groups);
    assert_eq!(before.len(), 2);
    let item = demux.item("upgrade --force");
    assert_eq!(item["places"], 10, "{item}");
    assert_eq!(item["note"], serde_json::Value::Null);
    let programs = programs_by_pin(&demux);
    let mut expected: Vec<u32> = [program::CONNECT_V4, program::CONNECT_V6]
        .iter()
        .map(|name| programs[&format!("progs/{name}")])
        .collect();
    expected.sort_unstable();
    assert_eq!(connect_programs(&groups), expected);
    assert!(before.iter().all(|id| !expected.contains(id)));
}

#[test]
fn another_layout_is_refused_with_the_remedy() {
    let pair = Pair::new();
    let demux = load(&pair);
    let remedy = ["demux export", "demux unload --all", "demux apply"];

    // A map of another size, of another demux with the same number.
    let pin = demux.directory().join(map::FRAGMENTS);
    let fd = bpf::object_get(&pin, false).unwrap();
    let info = bpf::map_info(fd.as_fd()).unwrap();
    assert_eq!(info.max_entries, capacity::FRAGMENTS);
    let other = new_map(
        bpf_map_type::BPF_MAP_TYPE_LRU_HASH,
        info.key_size,
        info.value_size,
        64,
        info.flags,
    );
    let kept = demux.directory().join("links/kept");
    bpf::object_pin(fd.as_fd(), &kept).unwrap();
    fs::remove_file(&pin).unwrap();
    bpf::object_pin(other.as_fd(), &pin).unwrap();
    demux
        .refused("upgrade --force", 5, "layout_mismatch")
        .says(&["FRAGMENTS", "64 entries"])
        .hints(&remedy);
    fs::rename(&kept, &pin).unwrap();

    // A map that this demux does not know.
    let unknown = demux.directory().join("UNKNOWN");
    bpf::object_pin(other.as_fd(), &unknown).unwrap();
    demux
        .refused("upgrade --force", 5, "layout_mismatch")
        .says(&["UNKNOWN"])
        .hints(&remedy);
    fs::remove_file(&unknown).unwrap();
    demux.ok("upgrade --force");

    // Another number.
    let inside = Inside::of(&demux);
    let meta = inside.tables.meta().unwrap();
    let older = Meta {
        layout_version: LAYOUT_VERSION - 1,
        ..meta
    };
    inside.tables.set_meta(&older).unwrap();
    for line in ["upgrade", "upgrade --force"] {
        demux
            .refused(line, 5, "layout_mismatch")
            .says(&[&format!("layout {}", LAYOUT_VERSION - 1)])
            .hints(&remedy);
    }
}

#[test]
fn where_a_program_is_refused_half_way_all_old_ones_are_back() {
    let pair = Pair::new();
    let demux = load(&pair);
    pretend(&demux, 0xbad_cafe);
    // The last place but the hooks of bind(2) is one in which the program for arriving frames cannot
    // run: it is a hook for what leaves.
    let program = egress_program("test_egress");
    let link = pair
        .host
        .enter(|| attach_tcx(program.as_fd(), pair.host.index(HOST)));
    let pin = demux.directory().join("links/xdp_4000000000");
    bpf::object_pin(link.as_fd(), &pin).unwrap();
    demux
        .refused("upgrade", 1, "io_error")
        .says(&["demux_xdp", "4000000000"]);
    assert!(!demux.directory().join("progs-next").exists());
    assert_eq!(demux.item("status")["build"], "0badcafe");
    fs::remove_file(&pin).unwrap();
    all_places_agree(&demux);
    demux.ok("upgrade");
    all_places_agree(&demux);
}

#[test]
fn whoever_may_not_upgrade_is_told_what_is_missing() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.refused("upgrade", 3, "not_loaded");
    demux.ok(&format!("load {HOST} --max-connections 64"));
    let public = PublicBinary::new();
    demux
        .refused_with("upgrade", 4, "permission_denied", |command| {
            public.run_as(command, NOBODY);
        })
        .says(&["CAP_BPF"]);
}

/// Waits without a rest, because what comes next is over soon.
fn wait_at_once(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::yield_now();
    }
}

#[test]
fn killed_at_any_moment_it_leaves_an_instance_that_works() {
    let pair = Pair::new();
    let demux = load(&pair);
    let _hooked = Hooked::start(&demux);
    let listener = listen(&pair.host, Family::V6.at_host(80));
    let mut ends = connect(&pair.peer, &listener, Family::V6.at_host(80));
    let mut random = Random::new();
    let next = demux.directory().join("progs-next");
    let mut seen = [0; 3];
    for _ in 0..cases(12) {
        let mut command = demux.command("upgrade --force");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = demux.netns().enter(|| command.spawn()).unwrap();
        // Most of the time is the verifier's, and then there is nothing to leave behind.
        let is_over = || next.exists() || child.try_wait().unwrap().is_some();
        wait_at_once(is_over);
        let moment = Instant::now() + Duration::from_micros(random.below(150_000) as u64);
        while Instant::now() < moment {}
        child.kill().unwrap();
        child.wait().unwrap();

        let status = demux.item("status");
        let programs = status["programs"].as_str().unwrap();
        seen[["current", "mixed", "other"]
            .iter()
            .position(|word| *word == programs)
            .unwrap()] += 1;
        for interface in status["interfaces"].as_array().unwrap() {
            assert_eq!(interface["attached"], true, "{interface}");
            assert_eq!(interface["egress_attached"], true, "{interface}");
        }
        assert_eq!(status["bind_hooks"], "attached");
        demux.ok("bind tcp :81 --to drop --name other");
        demux.ok("unbind other");
        talk(&mut ends.0, &mut ends.1);
    }
    println!("current, mixed, other: {seen:?}");
    // What is left is taken off as ever, or replaced.
    demux.ok("unload v0");
    let index = pair.host.index("v0");
    let left = pair
        .host
        .enter(|| demux_user::attach::egress::programs(index).unwrap());
    assert_eq!(left, []);
    demux.ok("load v0 --egress clsact");
    demux.ok("upgrade --force");
    assert_eq!(demux.item("status")["programs"], "current");
    assert_eq!(
        object::build(),
        Inside::of(&demux).tables.meta().unwrap().build
    );
    all_places_agree(&demux);
}
