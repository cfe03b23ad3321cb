//! The examples of owners of AF_XDP sets, run as processes in a namespace.

use std::{
    env,
    fs::{self, Permissions},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::demux::Demux;

/// An example that runs until the value is dropped.
#[derive(Debug)]
pub struct Owner {
    name: String,
    child: Child,
    _directory: Option<TempDir>,
}

impl Owner {
    /// Starts an example where `demux` is loaded, with a line of arguments, and waits until it says that it is
    /// ready.
    #[track_caller]
    pub fn start(demux: &Demux<'_>, example: &str, arguments: &str) -> Self {
        Self::start_command(demux, Command::new(path(example)), example, arguments, None)
    }

    /// As [`Owner::start`], as a user without any right, who is in the group with the same number.
    #[track_caller]
    pub fn start_as(demux: &Demux<'_>, user: u32, example: &str, arguments: &str) -> Self {
        // Nobody knows who may look into the directory of the build.
        let directory = tempfile::tempdir().unwrap();
        let all = Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), all.clone()).unwrap();
        let copy = directory.path().join(example);
        fs::copy(path(example), &copy).unwrap();
        fs::set_permissions(&copy, all).unwrap();
        let mut command = Command::new(copy);
        command.uid(user).gid(user).current_dir("/");
        Self::start_command(demux, command, example, arguments, Some(directory))
    }

    #[track_caller]
    fn start_command(
        demux: &Demux<'_>,
        mut command: Command,
        example: &str,
        arguments: &str,
        directory: Option<TempDir>,
    ) -> Self {
        command
            .args(arguments.split_whitespace())
            .env("DEMUX_BPFFS", demux.bpffs())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut owner = demux.netns().enter(|| Self {
            name: format!("{example} {arguments}"),
            child: command.spawn().expect("the example"),
            _directory: directory,
        });
        let mut stdout = BufReader::new(owner.child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its first line");
        assert!(!line.is_empty(), "{}", owner.last_words());
        // A full pipe would stop it.
        thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
        owner
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How long it has used a processor, in ticks of the kernel's clock.
    pub fn ticks(&self) -> u64 {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = fs::read_to_string(&path).expect("a process");
        // What follows its name, which may have blanks: the state is the third field.
        let (_, rest) = stat.rsplit_once(") ").expect("a name");
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
        ticks(11) + ticks(12)
    }

    /// Ends it as nothing else can, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, as Ctrl-C does; it must do so without complaint.
    #[track_caller]
    pub fn interrupt(mut self) {
        kill(Pid::from_raw(self.pid().cast_signed()), Signal::SIGINT).expect("the signal");
        let status = self.child.wait().expect("its status");
        assert!(status.success(), "{status}: {}", self.last_words());
    }

    /// Fails where it has ended.
    #[track_caller]
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("its status") {
            panic!("{status}: {}", self.last_words());
        }
    }

    /// What it has complained of, once it has ended.
    fn last_words(&mut self) -> String {
        let mut text = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut text);
        }
        format!("{} has ended, and said: {text:?}", self.name)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{}", self.last_words());
        }
    }
}

/// Where cargo leaves an example: beside the directory of the tests.
fn path(example: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let target = test.parent().and_then(|deps| deps.parent());
    let path = target
        .expect("a target directory")
        .join("examples")
        .join(example);
    assert!(
        path.exists(),
        "{} is missing; `cargo build -p demux-user --examples` makes it",
        path.display()
    );
    path
}
