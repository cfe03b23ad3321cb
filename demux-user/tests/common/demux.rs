//! The `demux` binary, run in a namespace with a BPF file system that nobody else uses.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use serde_json::Value;

use super::{bpffs::TemporaryBpfFs, netns::Netns, snapshot::Snapshot};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_demux");

/// A namespace and a BPF file system in which commands are run.
#[derive(Debug, Clone)]
pub struct Demux<'n> {
    netns: &'n Netns,
    bpffs: Arc<TemporaryBpfFs>,
}

/// What came of a command.
#[derive(Debug)]
pub struct Run {
    pub line: String,
    /// The exit status, or minus the number of the signal that ended it.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// What a command told that refused to do its work.
#[derive(Debug)]
pub struct Refusal {
    pub message: String,
    pub hint: String,
}

impl<'n> Demux<'n> {
    pub fn new(netns: &'n Netns) -> Self {
        Self {
            netns,
            bpffs: Arc::default(),
        }
    }

    /// The same BPF file system, used from another namespace.
    pub fn in_netns<'other>(&self, netns: &'other Netns) -> Demux<'other> {
        Demux {
            netns,
            bpffs: Arc::clone(&self.bpffs),
        }
    }

    pub fn netns(&self) -> &'n Netns {
        self.netns
    }

    pub fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// The only directory of an instance.
    pub fn directory(&self) -> PathBuf {
        let mut directories = Snapshot::instances(self.bpffs());
        assert_eq!(directories.len(), 1, "{directories:?}");
        directories.remove(0)
    }

    /// The command for a line of arguments, which are separated by blanks.
    pub fn command(&self, line: &str) -> Command {
        let mut command = bare(line);
        command.env("DEMUX_BPFFS", self.bpffs());
        command
    }

    pub fn run(&self, line: &str) -> Run {
        self.run_with(line, |_command| {})
    }

    /// As [`Demux::run`], of a command that `change` has prepared further.
    pub fn run_with(&self, line: &str, change: impl FnOnce(&mut Command)) -> Run {
        let mut command = self.command(line);
        change(&mut command);
        self.netns.enter(|| finish(&mut command, line))
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn ok(&self, line: &str) -> Run {
        let run = self.run(line);
        assert_eq!(run.status, 0, "{run}");
        run
    }

    /// The items of the JSON document that a noun writes.
    #[track_caller]
    pub fn items(&self, line: &str) -> Vec<Value> {
        let run = self.ok(&format!("{line} -j"));
        let noun = line.split_whitespace().next().unwrap_or_default();
        let mut document = run.json();
        assert_eq!(document["schema"], format!("demux.v1.{noun}"), "{run}");
        match document["items"].take() {
            Value::Array(items) => items,
            other => panic!("items are an array, not {other}: {run}"),
        }
    }

    /// The only item of the JSON document that a noun writes.
    #[track_caller]
    pub fn item(&self, line: &str) -> Value {
        let mut items = self.items(line);
        assert_eq!(items.len(), 1, "{line}: {items:?}");
        items.remove(0)
    }

    /// The entry of an interface in `status`.
    #[track_caller]
    pub fn interface(&self, name: &str) -> Option<Value> {
        let status = self.item("status");
        let interfaces = status["interfaces"].as_array().expect("an array");
        interfaces
            .iter()
            .find(|entry| entry["name"] == name)
            .cloned()
    }

    /// How many packets were counted, on all interfaces, under a verdict and a reason.
    #[track_caller]
    pub fn count(&self, verdict: &str, reason: &str) -> u64 {
        self.items("counters")
            .iter()
            .filter(|row| row["verdict"] == verdict && row["reason"] == reason)
            .map(|row| row["packets"].as_u64().unwrap())
            .sum()
    }

    /// The whole state, to be compared with a later one.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(self.bpffs(), self.netns)
    }

    /// As [`Demux::snapshot`], of this namespace's own instance.
    pub fn snapshot_of_own(&self) -> Snapshot {
        let cookie = self.netns.enter(|| {
            demux_user::netns::NetworkNamespace::current()
                .unwrap()
                .cookie()
        });
        self.snapshot().of_instance(cookie)
    }

    /// Runs a command that must be refused with this status and code, in words and in JSON, and must
    /// change nothing.
    #[track_caller]
    pub fn refused(&self, line: &str, status: i32, code: &str) -> Refusal {
        self.refused_with(line, status, code, |_command| {})
    }

    /// As [`Demux::refused`], of a command that `change` has prepared further.
    #[track_caller]
    pub fn refused_with(
        &self,
        line: &str,
        status: i32,
        code: &str,
        change: impl Fn(&mut Command),
    ) -> Refusal {
        let before = self.snapshot();
        let plain = self.run_with(line, &change);
        let json = self.run_with(&format!("-j {line}"), &change);
        let refusal = refusal(&plain, &json, status, code);
        assert_eq!(self.snapshot(), before, "{plain} has changed something");
        refusal
    }
}

/// The command without the environment of the test, and without a BPF file system of its own.
pub fn bare(line: &str) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(line.split_whitespace())
        .env_remove("DEMUX_BPFFS")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn finish(command: &mut Command, line: &str) -> Run {
    use std::os::unix::process::ExitStatusExt as _;
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{BINARY}: {error}"));
    Run {
        line: line.to_owned(),
        status: output
            .status
            .code()
            .unwrap_or_else(|| -output.status.signal().unwrap_or_default()),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// What both forms of a refusal say, which must be the same.
#[track_caller]
pub fn refusal(plain: &Run, json: &Run, status: i32, code: &str) -> Refusal {
    for run in [plain, json] {
        assert_eq!(run.status, status, "{run}");
        let lines: Vec<&str> = run.stderr.lines().collect();
        assert!(
            matches!(lines.as_slice(), [message, hint]
                if message.starts_with("demux: ") && hint.starts_with("hint: ")),
            "a line and a hint are due: {run}"
        );
    }
    assert_eq!(plain.stdout, "", "{plain}");
    assert_eq!(plain.stderr, json.stderr);
    let document = json.json();
    let error = &document["error"];
    assert_eq!(error["code"], code, "{json}");
    let (message, hint) = (error["message"].as_str(), error["hint"].as_str());
    let (Some(message), Some(hint)) = (message, hint) else {
        panic!("a message and a hint are due: {json}");
    };
    assert_eq!(
        json.stderr,
        format!("demux: {message}\nhint: {hint}\n"),
        "{json}"
    );
    Refusal {
        message: message.to_owned(),
        hint: hint.to_owned(),
    }
}

impl Run {
    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Standard output as a JSON document a line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self}"))
            })
            .collect()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "`demux {}` ended with {}\n--- stdout\n{}--- stderr\n{}---",
            self.line, self.status, self.stdout, self.stderr
        )
    }
}

impl Refusal {
    /// Checks that the message contains every one of `words`.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                self.message.contains(word),
                "{word:?} is missing in: {}",
                self.message
            );
        }
        self
    }

    /// Checks that the hint contains every one of `words`.
    #[track_caller]
    pub fn hints(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                self.hint.contains(word),
                "{word:?} is missing in: {}",
                self.hint
            );
        }
        self
    }
}
