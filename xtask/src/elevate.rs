//! Replaces xtask by a finished binary that has the rights to change the network.
//!
//! Only the binary is elevated: cargo never runs as root, unless xtask does.

use std::{ffi::OsStr, os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{process, workspace};

/// Becomes `binary`, with sudo unless already root, after printing the line.
///
/// # Errors
/// Returns only when that fails.
pub(crate) fn exec(binary: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<()> {
    let binary = workspace::shown(binary);
    let mut command = if process::is_root() {
        Command::new(&binary)
    } else if process::find("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.arg(&binary);
        sudo
    } else {
        bail!("{binary} needs root and there is no sudo; run this command as root");
    };
    command.args(args);
    eprintln!("$ {}", process::shown(&command));
    Err(command.exec()).with_context(|| format!("cannot start {}", process::shown(&command)))
}
