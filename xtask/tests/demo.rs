//! The demo runs to its end, and leaves nothing behind however it ends.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// One demo at a time: they use the same names.
static TURN: Mutex<()> = Mutex::new(());

/// Waits for this test's turn; there is none without root, unless that is required.
fn turn() -> Option<MutexGuard<'static, ()>> {
    if !rustix::process::geteuid().is_root() && env::var_os("DEMUX_REQUIRE_PRIV").is_none() {
        eprintln!("left out: needs root");
        return None;
    }
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The demo with the `demux` that cargo has built beside xtask, so that nothing is built here.
fn demo(args: &[&str]) -> Command {
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let mut command = Command::new(xtask);
    command.arg("demo").args(args);
    command.arg("--demux").arg(xtask.with_file_name("demux"));
    command
}

fn start(args: &[&str]) -> Child {
    let mut command = demo(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the demo")
}

/// The namespaces of the demo that exist.
fn namespaces() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_ours = |path: &PathBuf| path.to_string_lossy().contains("demux-demo-");
    paths.filter(is_ours).collect()
}

#[test]
fn the_demo_tells_the_truth_and_cleans_up() {
    let Some(_turn) = turn() else { return };
    let output = demo(&[]).output().expect("the demo");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let first = stdout.lines().next().unwrap_or_default();
    assert!(first.starts_with("No real interface is touched"), "{first}");
    assert!(
        !stdout.contains('\x1b'),
        "colours where nobody sees them: {stdout}"
    );
    assert_eq!(namespaces(), Vec::<PathBuf>::new());
}

/// With the ports that BSD chose, and what nmap finds.
#[test]
fn the_scene_about_ports_tells_the_truth_and_cleans_up() {
    let Some(_turn) = turn() else { return };
    let output = demo(&["ports"]).output().expect("the demo");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let told = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for claim in [
        "so the next one is 1025 again",
        "the same four are free for bob",
        "its ports are those that the old way gives",
        "gets EADDRINUSE",
        "exactly the two servers",
        "an ordinary client gets ECONNREFUSED",
    ] {
        assert!(told.contains(claim), "{claim} is missing: {stdout}");
    }
    assert_eq!(namespaces(), Vec::<PathBuf>::new());
}

/// With a stack in user space, which dies and comes back.
#[test]
fn the_scene_about_stacks_tells_the_truth_and_cleans_up() {
    let Some(_turn) = turn() else { return };
    let output = demo(&["stacks"]).output().expect("the demo");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let told = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for claim in [
        "port 80 is the kernel's",
        "port 8080 is smoltcp's",
        "the table has the connections of both",
        "port 8080 is silent",
        "port 80 has noticed nothing",
        "port 8080 is served again",
        "a client is refused at once",
    ] {
        assert!(told.contains(claim), "{claim} is missing: {stdout}");
    }
    assert_eq!(namespaces(), Vec::<PathBuf>::new());
}

#[test]
fn the_demo_cleans_up_when_interrupted() {
    interrupted(&[], "== 5.");
}

/// While nmap runs.
#[test]
fn the_scene_about_ports_cleans_up_when_interrupted() {
    interrupted(&["ports"], "$ ip netns exec");
}

fn interrupted(args: &[&str], at: &str) {
    let Some(_turn) = turn() else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut child = start(args);
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let is_middle = |line: &String| line.contains(at);
        let middle = lines.map_while(Result::ok).find(is_middle);
        assert!(middle.is_some(), "it ended before it was interrupted");
        assert_eq!(namespaces().len(), 3);
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("the signal");
        let status = child.wait().expect("its status");
        let mut stderr = String::new();
        let mut pipe = child.stderr.take().expect("a pipe");
        pipe.read_to_string(&mut stderr).expect("what it says");
        assert_eq!(status.code(), Some(1), "{signal}: {stderr}");
        assert!(stderr.contains("interrupted"), "{signal}: {stderr}");
        assert_eq!(namespaces(), Vec::<PathBuf>::new(), "{signal}");
    }
}

#[test]
fn the_next_demo_replaces_what_a_killed_one_left_behind() {
    let Some(_turn) = turn() else { return };
    let mut child = start(&[]);
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    lines
        .map_while(Result::ok)
        .find(|line| line.contains("== 4."));
    child.kill().expect("the kill");
    child.wait().expect("its status");
    assert_eq!(namespaces().len(), 3);
    let output = demo(&[]).output().expect("the demo");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(namespaces(), Vec::<PathBuf>::new());
}

/// The scene in a smaller size, yet with more SYNs than the table has rows.
#[test]
fn the_flood_leaves_real_connections_alone() {
    let Some(_turn) = turn() else { return };
    let size = ["--connections", "500", "--syns", "300000"];
    let output = demo(&[&["flood"], &size[..]].concat())
        .output()
        .expect("the demo");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let told = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for claim in [
        "all 500 are confirmed",
        "rows had to make room",
        "each of the 500 is answered",
    ] {
        assert!(told.contains(claim), "{claim} is missing: {stdout}");
    }
    assert_eq!(namespaces(), Vec::<PathBuf>::new());
}

#[test]
fn an_unknown_scene_is_told_the_known_ones() {
    let output = demo(&["finale"]).output().expect("the demo");
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        ["connections", "flood", "ports", "stacks"]
            .iter()
            .all(|scene| stderr.contains(scene)),
        "{stderr}"
    );
}
