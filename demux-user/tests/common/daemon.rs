//! The daemon, run in a namespace, and what its owners do.

use std::{
    fs::{self, Permissions},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use demux_user::{
    Result,
    daemon::protocol::Open,
    xsk::{
        remote::{Connection, Remote},
        ring::Descriptor,
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{demux::Demux, wait::wait_for};

/// A daemon that runs until the value is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    directory: Arc<TempDir>,
}

impl Daemon {
    /// Starts a daemon with a configuration, and waits until it listens.
    pub fn start(demux: &Demux<'_>, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.path().join("demux.toml"), config).unwrap();
        Self::start_in(demux, &Arc::new(directory))
    }

    /// Starts another one where one was started before.
    pub fn start_in(demux: &Demux<'_>, directory: &Arc<TempDir>) -> Self {
        let mut child = demux
            .netns()
            .enter(|| Self::command(demux, directory.path()).spawn())
            .unwrap();
        let said = Arc::default();
        let stderr = child.stderr.take().unwrap();
        thread::spawn({
            let said = Arc::clone(&said);
            move || listen(stderr, &said)
        });
        let daemon = Self {
            child,
            said,
            directory: Arc::clone(directory),
        };
        daemon.says("listening on");
        daemon
    }

    /// What starts a daemon that has its files in a directory.
    pub fn command(demux: &Demux<'_>, directory: &Path) -> Command {
        let mut command = demux.command("daemon");
        command
            .arg("--socket")
            .arg(directory.join("demux.sock"))
            .arg("--config")
            .arg(directory.join("demux.toml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Waits until it has said this.
    #[track_caller]
    pub fn says(&self, text: &str) {
        wait_for(text, || {
            let said = self.said.lock().unwrap();
            said.iter().any(|line| line.contains(text))
        });
    }

    /// All that it has said.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("demux.sock")
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("demux.toml")
    }

    pub fn directory(&self) -> &Arc<TempDir> {
        &self.directory
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets a group connect that is not the group demux, since tests do not change /etc/group.
    pub fn admit(&self, group: u32) {
        chown(self.socket(), None, Some(group)).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for its end, and returns its exit status, or minus the number of a signal.
    pub fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.child.wait().unwrap();
        status
            .code()
            .unwrap_or_else(|| -status.signal().unwrap_or_default())
    }

    /// Has it end as it should.
    pub fn stop(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Opens a set, as whoever calls.
    pub fn open(&self, set: &str, interface: &str) -> Result<Remote> {
        Remote::open(&self.socket(), wish(set, interface))
    }

    pub fn connect(&self) -> Result<Connection> {
        Connection::open(&self.socket())
    }

    /// The processor time that it has used.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the daemon said: {:#?}", self.said());
        }
    }
}

fn listen(stderr: ChildStderr, said: &Mutex<Vec<String>>) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { return };
        said.lock().unwrap().push(line);
    }
}

/// A wish for a set with small rings.
pub fn wish(set: &str, interface: &str) -> Open {
    Open {
        set: set.to_owned(),
        interfaces: vec![interface.to_owned()],
        ring_size: 64,
        chunk_size: 4096,
        multi_buffer: true,
    }
}

/// Waits for the next frame on a queue of a set.
#[track_caller]
pub fn receive(set: &mut Remote, queue: usize) -> Vec<u8> {
    try_receive(set, queue, Duration::from_secs(10)).expect("a frame")
}

/// The next frame on a queue of a set, if one comes in time.
pub fn try_receive(set: &mut Remote, queue: usize, patience: Duration) -> Option<Vec<u8>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd as _;
    let deadline = Instant::now() + patience;
    let port = &mut set.queues[queue].port;
    loop {
        if port.receive().unwrap() {
            return Some(port.frame().to_vec());
        }
        if port.may_sleep() {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap();
            let mut fds = [PollFd::new(port.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, left).unwrap() == 0 {
                return None;
            }
        }
    }
}

/// Sends a frame on a queue of a set.
#[track_caller]
pub fn send(set: &mut Remote, queue: usize, frame: &[u8]) {
    let port = &mut set.queues[queue].port;
    assert!(port.send(frame).unwrap(), "there is room");
    port.flush().unwrap();
}
