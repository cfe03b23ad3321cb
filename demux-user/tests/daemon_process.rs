//! The daemon as a process: how it starts, what it refuses, what it reads again, and how it ends.

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use common::{
    daemon::Daemon,
    demux::{Demux, Run, finish, refusal},
    netns::Netns,
    pair::{HOST, Pair},
    privileges::{CAP_NET_RAW, PublicBinary, without_capability},
    user::{NOBODY, as_user},
};
use nix::sys::signal::Signal;

/// Runs a daemon that must not start.
fn refused(
    demux: &Demux<'_>,
    directory: &Path,
    status: i32,
    code: &str,
    change: impl Fn(&mut Command),
) -> common::demux::Refusal {
    let run = |format: Option<&str>| -> Run {
        let mut command = Daemon::command(demux, directory);
        if let Some(format) = format {
            command.arg(format);
        }
        command.stdout(std::process::Stdio::piped());
        change(&mut command);
        demux.netns().enter(|| finish(&mut command, "daemon"))
    };
    refusal(&run(None), &run(Some("-j")), status, code)
}

#[test]
fn it_says_that_it_is_ready_and_ends_cleanly() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::start(&demux, "");
        let socket = daemon.socket();
        assert_eq!(
            daemon.said(),
            [format!("listening on {}", socket.display())]
        );
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        daemon.signal(signal);
        assert_eq!(daemon.wait(), 0);
        let left: Vec<_> = fs::read_dir(daemon.directory().path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["demux.toml"]);
    }
}

#[test]
fn a_second_one_is_refused_and_a_dead_one_replaced() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    let mut daemon = Daemon::start(&demux, "");
    let directory = daemon.directory().clone();
    refused(&demux, directory.path(), 5, "daemon_running", |_| {})
        .says(&[
            &format!("process {}", daemon.pid()),
            daemon.socket().to_str().unwrap(),
        ])
        .hints(&["--socket"]);
    assert!(daemon.connect().is_ok());

    daemon.signal(Signal::SIGKILL);
    assert_eq!(daemon.wait(), -9);
    assert!(daemon.socket().exists());
    let error = daemon.connect().unwrap_err();
    assert_eq!((error.code(), error.exit_status()), ("no_daemon", 3));
    let next = Daemon::start_in(&demux, &directory);
    assert!(next.connect().is_ok());
}

#[test]
fn a_file_that_is_no_socket_stays() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("demux.toml"), "").unwrap();
    let path = directory.path().join("demux.sock");
    fs::write(&path, "precious").unwrap();
    refused(&demux, directory.path(), 2, "invalid_argument", |_| {}).says(&["no socket"]);
    assert_eq!(fs::read_to_string(path).unwrap(), "precious");
}

#[test]
fn it_needs_capabilities_and_names_them() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    let public = PublicBinary::new();
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(directory.path().join("demux.toml"), "").unwrap();
    refused(
        &demux,
        directory.path(),
        4,
        "permission_denied",
        |command| {
            public.run_as(command, NOBODY);
            command.stdout(std::process::Stdio::piped());
        },
    )
    .says(&["run the daemon", "CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW"]);
    refused(
        &demux,
        directory.path(),
        4,
        "permission_denied",
        |command| {
            without_capability(command, CAP_NET_RAW);
        },
    )
    .says(&["CAP_NET_RAW missing"]);
}

#[test]
fn a_broken_configuration_is_refused_with_its_place() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("demux.toml");
    let at = |line: u32, column: u32| format!("{}:{line}:{column}: ", config.display());
    for (text, line, column) in [("[owner", 1, 7), ("[daemon]\n  sockets = 1\n", 2, 3)] {
        fs::write(&config, text).unwrap();
        refused(&demux, directory.path(), 1, "bad_configuration", |_| {})
            .says(&[&at(line, column)]);
    }
    fs::remove_file(&config).unwrap();
    refused(&demux, directory.path(), 1, "io_error", |_| {}).says(&["demux.toml"]);

    // While it runs, the old one stays.
    let daemon = Daemon::start(&demux, "");
    daemon.admit(NOBODY);
    let opens = || {
        let mut result = None;
        as_user(NOBODY, || result = Some(daemon.open("web", HOST).map(drop)));
        result.unwrap()
    };
    let code = |result: Result<(), demux_user::Error>| {
        result.map_err(|error| (error.code().to_owned(), error.exit_status()))
    };
    let denied = Err(("permission_denied".to_owned(), 4));
    assert_eq!(code(opens()), denied);

    let allowed = format!("[[owner]]\nuser = {NOBODY}\nsets = ['web']\n");
    fs::write(daemon.config(), &allowed).unwrap();
    assert_eq!(code(opens()), denied, "it is not read by itself");
    daemon.signal(Signal::SIGHUP);
    daemon.says("the configuration was read again");
    assert_eq!(code(opens()), Ok(()));

    fs::write(daemon.config(), format!("{allowed}[[owner]]\nsets = 1\n")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.says(&format!("{}:5:8: ", daemon.config().display()));
    daemon.says("the old configuration stays");
    assert_eq!(code(opens()), Ok(()));

    fs::write(daemon.config(), "").unwrap();
    daemon.signal(Signal::SIGHUP);
    common::wait::wait_for("the new configuration", || code(opens()) == denied);
}

#[test]
fn the_socket_may_be_said_by_the_configuration() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("made/on/the/way/x.sock");
    let config = directory.path().join("demux.toml");
    let text = format!("[daemon]\nsocket = '{}'\n", socket.display());
    fs::write(&config, text).unwrap();
    let mut child = netns.enter(|| {
        demux
            .command(&format!("daemon --config {}", config.display()))
            .spawn()
            .unwrap()
    });
    common::wait::wait_for("the socket", || {
        demux_user::xsk::remote::Connection::open(&socket).is_ok()
    });
    child.kill().unwrap();
    child.wait().unwrap();
}
