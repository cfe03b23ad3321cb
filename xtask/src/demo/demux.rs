//! The `demux` command of the demo's server: run for people to see, or asked for JSON.

use std::{
    env,
    ffi::OsStr,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::network::SERVER;
use crate::{build, process, workspace};

/// What `demux` exits with when there is nothing loaded.
const NOT_LOADED: i32 = 3;

/// What `demux` exits with when a check found something.
const FOUND: i32 = 7;

/// A finished `demux`, used in the namespace of the server.
pub(super) struct Demux {
    binary: PathBuf,
}

impl Demux {
    pub(super) fn new(binary: PathBuf) -> Self {
        Self { binary }
    }

    /// Where the binary is, for people.
    pub(super) fn shown_path(&self) -> String {
        workspace::shown(&self.binary)
    }

    /// Where an example is that was built together with it.
    pub(super) fn example(&self, name: &str) -> PathBuf {
        build::example(&absolute(&self.binary), name)
    }

    /// The command line as one would type it.
    pub(super) fn line(args: &[&str]) -> String {
        line("demux", args)
    }

    /// The command line as one can paste it into the shell that the demo was started from.
    pub(super) fn pasteable(&self, args: &[&str]) -> String {
        as_root(&line(&self.shown_path(), args))
    }

    /// Runs it with its output on this terminal.
    pub(super) fn run(&self, args: &[&str]) -> Result<ExitStatus> {
        let mut command = self.command(args);
        // Together, so that they stay in order where the output is not a terminal.
        let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
        command.stdin(Stdio::null()).stderr(stdout);
        command.status().with_context(|| self.cannot_start())
    }

    /// Runs it in the background of this terminal.
    pub(super) fn output(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.command(args);
        let output = command.stdin(Stdio::null()).output();
        output.with_context(|| self.cannot_start())
    }

    /// Runs it with `--json` and returns the items of the document.
    pub(super) fn items(&self, args: &[&str]) -> Result<Vec<Value>> {
        let mut command = self.command(args);
        let output = command.arg("--json").stdin(Stdio::null()).output();
        let output = output.with_context(|| self.cannot_start())?;
        if !output.status.success() && output.status.code() != Some(FOUND) {
            return Err(failed(args, &output));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut document: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} --json printed no JSON: {text}", Self::line(args)))?;
        match document["items"].take() {
            Value::Array(items) => Ok(items),
            _ => bail!("{} --json printed no items: {text}", Self::line(args)),
        }
    }

    /// Detaches everything and removes the state, if there is any.
    pub(super) fn unload(&self) -> Result<()> {
        let mut unload = self.command(&["unload", "--all", "--quiet"]);
        // A second Ctrl-C must not stop the removal.
        unload.process_group(0).stdin(Stdio::null());
        let output = unload.output().with_context(|| self.cannot_start())?;
        if output.status.success() || output.status.code() == Some(NOT_LOADED) {
            return Ok(());
        }
        Err(failed(&["unload", "--all"], &output))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(absolute(&self.binary));
        command.args(["-N", SERVER]).args(args);
        command
    }

    fn cannot_start(&self) -> String {
        format!("cannot start {}", self.shown_path())
    }
}

/// `command` for the shell that the demo was started from.
pub(super) fn as_root(command: &str) -> String {
    match env::var_os("SUDO_UID") {
        Some(_) => format!("sudo {command}"),
        None => command.to_owned(),
    }
}

fn failed(args: &[&str], output: &Output) -> anyhow::Error {
    anyhow!(
        "{} failed ({}): {}",
        Demux::line(args),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )
}

fn line(program: &str, args: &[&str]) -> String {
    let words = [&[program, "-N", SERVER], args].concat();
    let quoted: Vec<String> = words
        .iter()
        .map(|word| process::quoted(OsStr::new(word)))
        .collect();
    quoted.join(" ")
}

/// A path without a slash would be looked up in `PATH`.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
