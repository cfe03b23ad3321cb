//! Several commands at once, and commands that die at the worst moment.

mod common;

use std::{
    collections::BTreeSet,
    io::Read as _,
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{demux::Demux, netns::Netns, snapshot::Snapshot};
use demux_common::layout::map;

const KILLS: u32 = 24;

fn with_veth() -> Netns {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    netns
}

#[test]
fn a_load_that_is_killed_leaves_nothing_or_everything() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    let started = Instant::now();
    demux.ok("load v0 --max-connections 64");
    let duration = started.elapsed();
    demux.ok("unload --all");

    let (mut whole, mut nothing) = (0, 0);
    for number in 0..KILLS {
        let mut command = demux.command("load v0 --max-connections 64 --default drop");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = netns.enter(|| command.spawn().unwrap());
        // Spread over the whole of it and a little beyond, and at the two moments that matter most.
        let moment = match number % 3 {
            0 => {
                thread::sleep(duration * number / (KILLS - 4));
                "at some time"
            }
            1 => {
                wait_with(&mut child, || !pins(&demux, "links").is_empty());
                "when it had attached"
            }
            _ => {
                wait_with(&mut child, || is_published(&demux));
                "when it was published"
            }
        };
        let _ = child.kill();
        let mut told = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut told)
            .unwrap();
        let status = child.wait().unwrap();

        let run = demux.run("status -j");
        if run.status == 0 {
            whole += 1;
            let status = run.json()["items"][0].clone();
            let interface = &status["interfaces"][0];
            assert_eq!(interface["attached"], true, "killed {moment}: {status}");
            assert_eq!(interface["default"], "drop", "killed {moment}: {status}");
            assert_eq!(demux.items("maps").len(), map::ALL.len());
            demux.ok("load v0");
        } else {
            nothing += 1;
            assert_eq!(run.status, 3, "{run}");
            assert!(!status.success(), "{told}");
            // Half of it is in nobody's way, by the next load or by clean.
            if number % 2 == 0 {
                demux.ok("clean");
                assert!(Snapshot::instances(demux.bpffs()).is_empty());
                assert_eq!(netns.interface("v0").xdp, None, "killed {moment}");
            }
            demux.ok("load v0 --max-connections 64 --default drop");
        }
        demux.ok("unload --all");
        assert_eq!(netns.interface("v0").xdp, None);
    }
    assert_eq!(whole + nothing, KILLS);
    assert!(nothing > 0, "no load was killed before it was done");
}

/// Waits until something holds or the command has ended, without a pause that could miss the moment.
fn wait_with(child: &mut Child, condition: impl Fn() -> bool) {
    while !condition() && child.try_wait().unwrap().is_none() {}
}

/// The pins in a directory of every instance, finished or not.
fn pins(demux: &Demux<'_>, directory: &str) -> Vec<PathBuf> {
    Snapshot::instances(demux.bpffs())
        .iter()
        .filter_map(|instance| instance.join(directory).read_dir().ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

fn is_published(demux: &Demux<'_>) -> bool {
    let is_number = |path: &PathBuf| {
        let name = path.file_name().unwrap().as_encoded_bytes();
        name.iter().all(u8::is_ascii_digit)
    };
    Snapshot::instances(demux.bpffs()).iter().any(is_number)
}

#[test]
fn two_loads_at_once_both_end_well() {
    for _ in 0..4 {
        let netns = with_veth();
        netns.veth("w0", &netns, "w1");
        let demux = Demux::new(&netns);
        let runs: Vec<_> = thread::scope(|scope| {
            let loads: Vec<_> = ["load v0", "load v0", "load w0", "load v0 w0"]
                .into_iter()
                .map(|line| {
                    let demux = demux.clone();
                    scope.spawn(move || demux.run(&format!("{line} --max-connections 64")))
                })
                .collect();
            loads.into_iter().map(|load| load.join().unwrap()).collect()
        });
        for run in &runs {
            assert_eq!(run.status, 0, "{run}");
        }
        let status = demux.item("status");
        assert_eq!(status["interfaces"].as_array().unwrap().len(), 2);
        demux.directory();
    }
}

#[test]
fn bindings_made_at_once_all_land() {
    const EACH: u16 = 6;
    let netns = with_veth();
    let demux = Demux::new(&netns);
    demux.ok("load v0 --max-connections 64");
    thread::scope(|scope| {
        for first in [1000, 2000, 3000, 4000] {
            let demux = demux.clone();
            scope.spawn(move || {
                for port in first..first + EACH {
                    demux.ok(&format!("bind tcp :{port}"));
                    demux.ok(&format!("bind udp 10.0.0.0/8:{port} --name {first}-{port}"));
                    demux.ok(&format!("unbind tcp :{port}"));
                }
            });
        }
        // Readers see a whole table at every moment.
        let demux = demux.clone();
        scope.spawn(move || {
            for _ in 0..10 {
                demux.items("bindings");
                thread::sleep(Duration::from_millis(1));
            }
        });
    });
    let names: BTreeSet<String> = demux
        .items("bindings")
        .iter()
        .map(|binding| binding["name"].as_str().unwrap().to_owned())
        .collect();
    let expected: BTreeSet<String> = [1000, 2000, 3000, 4000]
        .into_iter()
        .flat_map(|first| (first..first + EACH).map(move |port| format!("{first}-{port}")))
        .collect();
    assert_eq!(names, expected);
    for name in names {
        demux.ok(&format!("unbind {name}"));
    }
    for table in ["PREFIXES", "ADDRESSES", "PORTS", "BINDINGS"] {
        assert_eq!(demux.items(&format!("dump {table}")), [0; 0], "{table}");
    }
}

#[test]
fn a_reader_that_meets_an_unload_sees_all_or_nothing() {
    let netns = with_veth();
    let demux = Demux::new(&netns);
    for _ in 0..5 {
        demux.ok("load v0 --max-connections 64");
        thread::scope(|scope| {
            let reader = demux.clone();
            let reading =
                scope.spawn(move || (0..3).map(|_| reader.run("status -j")).collect::<Vec<_>>());
            demux.ok("unload --all");
            for run in reading.join().unwrap() {
                assert!(run.status == 0 || run.status == 3, "{run}");
            }
        });
    }
}
