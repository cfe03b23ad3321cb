//! Starts other programs, and says which one failed and how.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Runs `command` on this terminal until it ends.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs `command` in the background of this terminal and returns what it printed.
///
/// # Errors
/// When it cannot be started or does not succeed; what it complained about is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed ({}): {}",
            shown(command),
            output.status,
            complaint.trim()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("the output of {} is not UTF-8", shown(command)))
}

/// A cargo that works on this workspace, as if it had been started from a shell.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(cargo_program());
    cargo.current_dir(workspace::root());
    // Would put what is built where nobody looks for it.
    cargo.env_remove("CARGO_BUILD_TARGET");
    // `cargo run` describes xtask in these, and build scripts that track them would run again.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        {
            cargo.env_remove(&*name);
        }
    }
    cargo
}

/// The cargo that runs xtask, not one that happens to come first in `PATH`.
fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Where a program is, looking also where administrators' programs are.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path([]))
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// The value of `PATH`: `first`, what it was, and the directories of administrators' programs.
pub(crate) fn search_path(first: impl IntoIterator<Item = PathBuf>) -> OsString {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = first.into_iter().collect();
    directories.extend(env::split_paths(&inherited));
    directories.extend(["/usr/sbin".into(), "/sbin".into()]);
    env::join_paths(directories).unwrap_or(inherited)
}

/// `command` as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = match command.get_program() {
        path if path == cargo_program() => OsStr::new("cargo"),
        other => other,
    };
    let words: Vec<String> = std::iter::once(program)
        .chain(command.get_args())
        .map(quoted)
        .collect();
    words.join(" ")
}

/// `word` as a shell reads it back.
pub(crate) fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Whether this process may do everything already.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
