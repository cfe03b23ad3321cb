//! One run of one machine: its command line, its console, its end.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{process, setup::Tools, tally::Tally, workspace};

/// How long a machine may take, boot included. Emulated and alone it needs eight minutes, but it gives way
/// to whatever else wants the CPUs.
const TIMEOUT: Duration = Duration::from_secs(3000);

/// How much of the console explains a machine that did not come to its end.
const LAST_LINES: usize = 40;

/// What the script in the machine prints around the test's output.
const BEGIN: &str = "demux-vm: begin ";
const END: &str = "demux-vm: end ";

/// A machine about to boot.
pub(super) struct Machine<'a> {
    /// The kernel version that was asked for.
    pub(super) version: &'a str,
    /// The kernel image.
    pub(super) image: &'a Path,
    /// The archive with its file system.
    pub(super) initrd: &'a Path,
    /// Where its console goes.
    pub(super) log: &'a Path,
}

impl Machine<'_> {
    /// Boots, hands on the lines of the test's output (of the whole console if `verbose`), counts results.
    pub(super) fn run(
        &self,
        tools: &Tools,
        verbose: bool,
        show: &mut dyn FnMut(String),
    ) -> Result<Tally> {
        eprintln!(
            "test: booting kernel {}, console in {}",
            self.version,
            workspace::shown(self.log)
        );
        let mut qemu = self.command(tools);
        let mut child = qemu
            .spawn()
            .with_context(|| format!("cannot start {}", process::shown(&qemu)))?;
        let watched = match child.stdout.take() {
            Some(stdout) => self.watch(&lines(stdout), verbose, show),
            None => bail!("qemu has no console"),
        };
        stop(&mut child);
        watched
    }

    fn command(&self, tools: &Tools) -> Command {
        // Emulated even where there is KVM: the same everywhere, and no permission needed.
        let hardware = "-accel tcg -cpu max -m 1G -smp 2";
        let only = "-nodefaults -no-user-config -no-reboot -display none -serial stdio";
        // Nobody waits for a tick of the timer at boot: where the host is busy, it comes too late, and the
        // kernel takes that for broken hardware.
        let kernel = "console=ttyS0 panic=-1 oops=panic loglevel=5 mitigations=off no_timer_check";
        let mut qemu = Command::new("nice");
        qemu.arg("qemu-system-x86_64")
            .env("PATH", process::search_path([tools.path.clone()]))
            .args(hardware.split(' '))
            .args(only.split(' '))
            .arg("-kernel")
            .arg(self.image)
            .arg("-initrd")
            .arg(self.initrd)
            .args(["-append", kernel])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        qemu
    }

    fn watch(
        &self,
        console: &Receiver<String>,
        verbose: bool,
        show: &mut dyn FnMut(String),
    ) -> Result<Tally> {
        let deadline = Instant::now() + TIMEOUT;
        let mut log = File::create(self.log)
            .with_context(|| format!("cannot create {}", self.log.display()))?;
        let mut all: Vec<String> = Vec::new();
        let (mut tally, mut begun, mut ended) = (Tally::default(), false, None);
        let silence = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match console.recv_timeout(left) {
                Ok(line) => line,
                Err(silence) => break silence,
            };
            writeln!(log, "{line}")?;
            begun |= line.contains(BEGIN);
            if let Some((_, status)) = line.split_once(END) {
                ended = Some(status.trim().to_owned());
            }
            if verbose || (begun && ended.is_none()) {
                show(line.clone());
            }
            if begun {
                tally.read(&line);
            }
            all.push(line);
        };
        let last = || all[all.len().saturating_sub(LAST_LINES)..].join("\n");
        match (ended.as_deref(), silence) {
            (Some("0"), _) => Ok(tally),
            (Some(_), _) if tally.failed > 0 => Ok(tally),
            (Some(status), _) => bail!("the test ended with status {status} and no result"),
            (None, RecvTimeoutError::Timeout) => bail!(
                "no end after {} s; the last lines of the console:\n{}",
                TIMEOUT.as_secs(),
                last()
            ),
            (None, RecvTimeoutError::Disconnected) => bail!(
                "the machine stopped before the test did; the last lines of the console:\n{}",
                last()
            ),
        }
    }
}

/// The lines of `console`, read by a thread so that waiting for one can end.
fn lines(console: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Ends a machine that may have ended already.
fn stop(child: &mut Child) {
    // Both fail only for a process that is gone, which is what is wanted.
    drop(child.kill());
    drop(child.wait());
}
