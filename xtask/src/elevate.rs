//! Replaces xtask by a finished binary that has the rights to change the network.
//!
//! Only the binary is elevated: cargo never runs as root, unless xtask does.

use std::{ffi::OsStr, os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{process, workspace};

/// Fails where `exec` would, before time is spent on building.
///
/// # Errors
/// When this is not root and there is no sudo.
pub(crate) fn require() -> Result<()> {
    if !process::is_root() && process::find("sudo").is_none() {
        bail!("this needs root and there is no sudo; run the command as root");
    }
    Ok(())
}

/// Becomes `binary`, with sudo unless already root, after printing the line.
///
/// # Errors
/// Returns only when that fails.
pub(crate) fn exec(binary: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<()> {
    require()?;
    let binary = workspace::shown(binary);
    let mut command = if process::is_root() {
        Command::new(&binary)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(&binary);
        sudo
    };
    command.args(args);
    eprintln!("$ {}", process::shown(&command));
    Err(command.exec()).with_context(|| format!("cannot start {}", process::shown(&command)))
}

/// A command line that runs a test binary as root, if this is not root already.
///
/// # Errors
/// When sudo is missing or wants a password, which would be asked for once per test binary.
pub(crate) fn runner(path: &OsStr) -> Result<Option<Vec<String>>> {
    if process::is_root() {
        return Ok(None);
    }
    require()?;
    process::output(Command::new("sudo").args(["-n", "true"]))
        .context("sudo wants a password; run `sudo -v` first")?;
    // sudo would replace PATH by its own.
    let path = format!("PATH={}", path.to_string_lossy());
    let words = ["sudo", "-n", "-E", "env", &path].map(str::to_owned);
    Ok(Some(words.to_vec()))
}
