//! What `demux exec` is to the program that it runs and to whoever runs it: statuses, signals, users,
//! and the control group, which must be gone afterwards.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read as _},
    os::{fd::AsRawFd as _, unix::process::ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use common::{
    demux::{Demux, bare, finish},
    netns::Netns,
    privileges::PublicBinary,
    user::NOBODY,
    wait::wait_for,
};
use demux_user::attach::cgroup;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

fn loaded(netns: &Netns) -> Demux<'_> {
    netns.veth("v0", netns, "v1");
    let demux = Demux::new(netns);
    demux.ok("load v0 --max-connections 64");
    demux
}

/// `demux exec -- sh -c SCRIPT`, with its output to be read.
fn shell(demux: &Demux<'_>, script: &str) -> Command {
    let mut command = demux.command("exec -- sh -c");
    command.arg(script).stdout(Stdio::piped());
    command
}

fn spawn(demux: &Demux<'_>, script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = demux
        .netns()
        .enter(|| shell(demux, script).spawn())
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

fn line(out: &mut impl BufRead) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Where the group is whose line of /proc/PID/cgroup this is.
fn directory(line: &str) -> PathBuf {
    let path = line.strip_prefix("0::/").expect(line);
    assert!(path.contains("demux-exec-"), "{line}");
    let root = cgroup::root().unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd())).join(path);
    // The descriptor is not for ever; the path that it has is.
    let parent = fs::canonicalize(path.parent().unwrap()).unwrap();
    parent.join(path.file_name().unwrap())
}

const TELL_GROUP: &str = "grep ^0:: /proc/self/cgroup";

#[test]
fn the_status_is_that_of_the_command() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    for (line, status) in [
        ("exec true", 0),
        ("exec -- false", 1),
        ("exec -- no-such-command-here", 127),
        ("exec -- /etc/passwd", 126),
        ("exec --algorithm sequential -- ls /no/such/file", 2),
        ("exec --user no-such-user -- true", 125),
        ("exec --algorithm bogus -- true", 125),
        ("exec", 125),
    ] {
        let run = demux.run(line);
        assert_eq!(run.status, status, "{run}");
        assert_eq!(run.stderr.is_empty(), matches!(status, 0 | 1), "{run}");
    }
    for (script, status) in [("exit 42", 42), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        let ended = netns.enter(|| shell(&demux, script).status()).unwrap();
        assert_eq!(ended.code(), Some(status), "{script}");
    }
}

#[test]
fn who_may_not_or_has_nothing_loaded_is_told() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    demux
        .refused("exec -- true", 125, "not_loaded")
        .hints(&["demux load"]);
    let demux = loaded(&netns);
    let public = PublicBinary::new();
    demux.refused_with("exec -- true", 125, "permission_denied", |command| {
        public.run_as(command, NOBODY);
    });
}

#[test]
fn the_group_is_removed_at_the_end() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    for (script, status) in [("true", 0), ("exit 3", 3), ("kill -9 $$", 137)] {
        let script = format!("{TELL_GROUP}; {script}");
        let output = netns.enter(|| shell(&demux, &script).output()).unwrap();
        assert_eq!(output.status.code(), Some(status));
        let group = directory(String::from_utf8(output.stdout).unwrap().trim_end());
        assert!(!group.exists(), "{}", group.display());
    }
    assert_eq!(demux.ok("dump EXEC_CGROUPS").stdout, "");
}

#[test]
fn what_is_left_behind_goes_on_in_the_group_and_then_the_group_goes() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    // The command ends at once, and what it leaves behind when its input ends.
    let script = format!("{TELL_GROUP}; exec 3<&0; cat <&3 >/dev/null 2>&1 & echo done");
    let mut command = shell(&demux, &script);
    command.stdin(Stdio::piped());
    let mut child = netns.enter(|| command.spawn()).unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let group = directory(&line(&mut out));
    assert_eq!(line(&mut out), "done");
    let input = child.stdin.take();
    assert!(child.wait().unwrap().success());
    // Nobody keeps the output open: the watcher has let go of it.
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(group.exists());
    drop(input);
    wait_for("the group to be removed", || !group.exists());
}

#[test]
fn killing_demux_leaves_the_command_and_nothing_after_it() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let (mut child, mut out) = spawn(&demux, &format!("{TELL_GROUP}; echo $$; exec sleep 1000"));
    let group = directory(&line(&mut out));
    let command = Pid::from_raw(line(&mut out).parse().unwrap());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert_eq!(processes.trim_end(), command.to_string());
    kill(command, Signal::SIGKILL).unwrap();
    wait_for("the group to be removed", || !group.exists());
    assert_eq!(demux.ok("dump EXEC_CGROUPS").stdout, "");
}

#[test]
fn signals_are_passed_on() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
    ] {
        let name = &signal.as_str()[3..];
        let script =
            format!("trap 'echo {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done");
        let (mut child, mut out) = spawn(&demux, &script);
        assert_eq!(line(&mut out), "ready");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_eq!(line(&mut out), name);
        assert_eq!(child.wait().unwrap().code(), Some(9));
    }
    // One that the command does not handle ends it, and the status says so.
    let (mut child, mut out) = spawn(&demux, "echo ready; exec sleep 1000");
    assert_eq!(line(&mut out), "ready");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn the_command_runs_as_the_user_who_called_sudo() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let as_sudo = |command: &mut Command| {
        command.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
    };
    for (line, change, shown) in [
        ("exec -- id", None, "uid=0"),
        ("exec -- id", Some(&as_sudo), "uid=65534"),
        ("exec --user root -- id", Some(&as_sudo), "uid=0"),
        ("exec --user 65534 -- id", None, "uid=65534"),
    ] {
        let run = demux.run_with(line, |command| {
            if let Some(change) = change {
                change(command);
            }
        });
        assert_eq!(run.status, 0, "{run}");
        assert!(run.stdout.starts_with(shown), "{run}");
        assert!(shown == "uid=0" || !run.stdout.contains("(root)"), "{run}");
    }
}

#[test]
fn descriptors_of_demux_do_not_reach_the_command() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    // What the test itself was started with is not for demux to close.
    let without = netns
        .enter(|| Command::new("ls").arg("/proc/self/fd").output())
        .unwrap();
    let run = demux.run("exec -- ls /proc/self/fd");
    assert_eq!(
        run.stdout.split_whitespace().count(),
        String::from_utf8(without.stdout)
            .unwrap()
            .split_whitespace()
            .count(),
        "{run}"
    );
}

#[test]
fn unloading_meanwhile_does_not_disturb_the_command() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let script = "echo ready; read word; echo $word";
    let mut command = shell(&demux, script);
    command.stdin(Stdio::piped());
    let mut child = netns.enter(|| command.spawn()).unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut out), "ready");
    demux.ok("unload --all");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"on\n").unwrap();
    assert_eq!(line(&mut out), "on");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_group_whose_watcher_was_killed_is_removed_by_the_next_command() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let (mut child, mut out) = spawn(&demux, &format!("{TELL_GROUP}; exec sleep 1000"));
    let group = directory(&line(&mut out));
    let parent = Pid::from_raw(child.id() as i32);
    let watcher = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
        .unwrap()
        .split_whitespace()
        .map(|pid| Pid::from_raw(pid.parse().unwrap()))
        .find(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim_end() == "demux"
        })
        .expect("the watcher");
    for process in [watcher, parent] {
        kill(process, Signal::SIGKILL).unwrap();
    }
    child.wait().unwrap();
    // Not while something is in it.
    demux.ok("exec -- true");
    assert!(group.exists());
    fs::write(group.join("cgroup.kill"), "1").unwrap();
    wait_for("the group to be removed", || {
        demux.ok("exec -- true");
        !group.exists()
    });
}

#[test]
fn a_bare_environment_is_no_obstacle() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let mut command = bare("exec -- /bin/true");
    command.env_clear().env("DEMUX_BPFFS", demux.bpffs());
    let run = netns.enter(|| finish(&mut command, "exec -- /bin/true"));
    assert_eq!(run.status, 0, "{run}");
}
