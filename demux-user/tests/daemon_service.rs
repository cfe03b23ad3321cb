//! The daemon as a service: what the manager is told, sockets that it gives, sweeps, and that there is one
//! daemon for each network namespace.

mod common;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{net::UnixDatagram, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Child, Command},
    time::Duration,
};

use common::{
    daemon::Daemon,
    demux::{Demux, finish, refusal},
    netns::Netns,
    pair::{Family, HOST, Pair},
    sockets::udp,
    wait::wait_for,
};
use demux_user::xsk::remote::Connection;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::{
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
    time::{ClockId, clock_gettime},
};
use tempfile::TempDir;

/// A service manager: what it is told, and the daemon.
struct Service {
    directory: TempDir,
    told: UnixDatagram,
    child: Option<Child>,
}

impl Service {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("demux.toml"), "").unwrap();
        let told = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        told.set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Self {
            directory,
            told,
            child: None,
        }
    }

    fn start(&mut self, demux: &Demux<'_>, change: impl FnOnce(&mut Command)) {
        let mut command = Daemon::command(demux, self.directory.path());
        command
            .env("NOTIFY_SOCKET", self.directory.path().join("notify"))
            .stderr(std::process::Stdio::inherit());
        change(&mut command);
        self.child = Some(demux.netns().enter(|| command.spawn()).unwrap());
    }

    /// The next that it is told, but for lines of status and signs of life.
    #[track_caller]
    fn next(&self) -> Vec<String> {
        loop {
            let lines = self.any();
            if !lines[0].starts_with("STATUS=") && lines[0] != "WATCHDOG=1" {
                return lines;
            }
        }
    }

    #[track_caller]
    fn any(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.told.recv(&mut buffer).expect("something is told");
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("demux.sock")
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(pid as i32), signal).unwrap();
    }

    fn wait(&mut self) -> Option<i32> {
        self.child.take().unwrap().wait().unwrap().code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_manager_is_told_of_readiness_reloads_and_the_end() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut service = Service::new();
        service.start(&demux, |_| {});
        assert_eq!(service.next(), ["READY=1", "STATUS=waiting for demux load"]);
        // Whoever was told so can connect.
        Connection::open(&service.socket()).unwrap();
        demux.ok(&format!("load {HOST} --max-connections 64"));
        assert_eq!(service.any(), ["STATUS=1 interfaces, 0 socket sets"]);

        for config in ["[daemon]\nsweep = '1s'\n", "broken"] {
            fs::write(service.directory.path().join("demux.toml"), config).unwrap();
            let before = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap();
            service.signal(Signal::SIGHUP);
            let reloading = service.next();
            assert_eq!(reloading[0], "RELOADING=1");
            let when = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap();
            let when = Duration::from_micros(when.parse().unwrap());
            assert!(when >= before - Duration::from_micros(1));
            assert_eq!(service.next()[0], "READY=1");
        }
        service.signal(signal);
        assert_eq!(service.next(), ["STOPPING=1"]);
        assert_eq!(service.wait(), Some(0));
        demux.ok("unload --all");
    }
}

#[test]
fn signs_of_life_come_from_the_main_thread_only_while_it_lives() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    let mut service = Service::new();
    service.start(&demux, |command| {
        command.env("WATCHDOG_USEC", "200000");
    });
    assert_eq!(service.next()[0], "READY=1");
    for _ in 0..3 {
        assert_eq!(service.any(), ["WATCHDOG=1"]);
    }
    service.signal(Signal::SIGSTOP);
    // What was sent before is read, and then there is silence.
    service
        .told
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut buffer = [0; 64];
    wait_for("silence", || service.told.recv(&mut buffer).is_err());
    service.signal(Signal::SIGCONT);
    service
        .told
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    assert_eq!(service.any(), ["WATCHDOG=1"]);
}

#[test]
fn a_watchdog_of_somebody_else_is_none_of_ours() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    let mut service = Service::new();
    service.start(&demux, |command| {
        command
            .env("WATCHDOG_USEC", "2000")
            .env("WATCHDOG_PID", "1");
    });
    assert_eq!(service.next()[0], "READY=1");
    service.signal(Signal::SIGTERM);
    assert_eq!(service.any(), ["STOPPING=1"]);
    assert_eq!(service.wait(), Some(0));
}

/// Has a command find descriptors from 3 on, as a service manager gives them.
fn give(command: &mut Command, fds: &[&OwnedFd]) {
    let given: Vec<i32> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    // The number of the process is known to itself alone.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .env("LISTEN_FDS", given.len().to_string());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    // SAFETY: only system calls, which may be made after fork(2), on memory that is there already.
    unsafe {
        shell.pre_exec(move || {
            const FAR: i32 = 100;
            for (number, fd) in (0..).zip(&given) {
                if libc::dup2(*fd, FAR + number) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            for number in 0..given.len() as i32 {
                libc::dup2(FAR + number, 3 + number);
                libc::close(FAR + number);
            }
            Ok(())
        });
    }
    *command = shell;
}

#[test]
fn sockets_of_the_manager_are_taken_by_their_kind() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    let mut service = Service::new();
    let given = service.directory.path().join("given.sock");
    let owners = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    bind(&owners, &SocketAddrUnix::new(&given).unwrap()).unwrap();
    listen(&owners, 16).unwrap();
    let metrics = pair
        .host
        .enter(|| TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = metrics.local_addr().unwrap();
    let metrics = OwnedFd::from(metrics);
    // Whoever comes before the daemon does is served, too.
    let mut early = pair.host.enter(|| TcpStream::connect(address)).unwrap();
    service.start(&demux, |command| give(command, &[&owners, &metrics]));
    assert_eq!(service.next()[0], "READY=1");
    assert!(!service.socket().exists());
    demux_user::xsk::remote::Remote::open(&given, common::daemon::wish("web", HOST)).unwrap();
    early.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    early.read_to_string(&mut text).unwrap();
    assert!(text.contains("demux_loaded 1"), "{text}");
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait(), Some(0));
    assert!(given.exists(), "it is the manager's");

    let datagrams = OwnedFd::from(udp(&pair.host, Family::V4.any(0)));
    let mut command = Daemon::command(&demux, service.directory.path());
    give(&mut command, &[&datagrams]);
    let run = pair.host.enter(|| finish(&mut command, "daemon"));
    assert_eq!(run.status, 2, "{run}");
    assert!(run.stderr.contains("not listened on"), "{run}");
}

#[test]
fn there_is_one_for_each_network_namespace() {
    let (netns, other) = (Netns::new(), Netns::new());
    let demux = Demux::new(&netns);
    let mut daemon = Daemon::start(&demux, "");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("demux.toml"), "").unwrap();
    let run = |format: Option<&str>| {
        let mut command = Daemon::command(&demux, elsewhere.path());
        command.args(format).stdout(std::process::Stdio::piped());
        netns.enter(|| finish(&mut command, "daemon"))
    };
    let process = format!("process {}", daemon.pid());
    refusal(&run(None), &run(Some("-j")), 5, "daemon_running")
        .says(&[&process, "network namespace"])
        .hints(&["-N"]);
    assert!(!elsewhere.path().join("demux.sock").exists());

    let mut another = Daemon::start(&demux.in_netns(&other), "");
    daemon.signal(Signal::SIGKILL);
    assert_eq!(daemon.wait(), -9);
    let mut next = Daemon::start(&demux, "");
    assert_eq!((next.stop(), another.stop()), (0, 0));
}

#[test]
fn rows_that_have_expired_are_swept_out() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 256"));
    demux.ok("set timeout.unreplied=1");
    let _server = udp(&pair.host, Family::V4.any(53));
    let lines = || demux.items("dump CONNECTIONS").len();
    let before = lines();
    for _ in 0..20 {
        let client = udp(&pair.peer, Family::V4.any(0));
        client.send_to(b"question", Family::V4.at_host(53)).unwrap();
    }
    wait_for("rows", || lines() >= before + 20);
    let daemon = Daemon::start(&demux, "[daemon]\nsweep = 'off'\n");
    wait_for("the end of the connections", || {
        demux.items("connections").is_empty()
    });
    assert!(lines() >= before + 20, "they are swept by nobody");
    fs::write(daemon.config(), "[daemon]\nsweep = '100ms'\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    wait_for("the sweep", || lines() <= before);
}
