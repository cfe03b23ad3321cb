//! The first choice: a pinned nightly from rustup, and bpf-linker on that nightly's own LLVM.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{Toolchain, linker};
use crate::process;

/// The nightly, pinned so that everybody's verifier sees the same instructions.
pub(super) const NIGHTLY: &str = "nightly-2026-05-20";

/// Finds the nightly in the user's rustup, or fetches it into a rustup home of its own.
pub(super) fn provide(directory: &Path) -> Result<Toolchain> {
    if process::find("rustup").is_none() {
        bail!("there is no rustup in PATH");
    }
    let sysroot = match sysroot(&mut rustup()) {
        Ok(sysroot) => sysroot,
        Err(_) => fetch(&directory.join("rustup"))?,
    };
    let library = linker::llvm_library(&[sysroot.join("lib")])?;
    Ok(Toolchain {
        rustc: sysroot.join("bin/rustc"),
        libraries: None,
        linker: linker::provide(directory, "rustup", &library)?,
    })
}

fn fetch(home: &Path) -> Result<PathBuf> {
    eprintln!("setup: downloading rustup's {NIGHTLY} with rust-src (about 130 MB)");
    process::output(
        rustup()
            .env("RUSTUP_HOME", home)
            // Without a network, fail in time for the second choice.
            .env("RUSTUP_MAX_RETRIES", "1")
            .args(["toolchain", "install", NIGHTLY, "--no-self-update"])
            .args(["--profile", "minimal", "--component", "rust-src"]),
    )?;
    sysroot(rustup().env("RUSTUP_HOME", home))
}

/// Where the nightly is, if it has the sources of `core`.
fn sysroot(rustup: &mut Command) -> Result<PathBuf> {
    let printed = process::output(rustup.args(["run", NIGHTLY, "rustc", "--print", "sysroot"]))?;
    let sysroot = PathBuf::from(printed.trim());
    let sources = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
    sources
        .exists()
        .then_some(sysroot)
        .with_context(|| format!("{NIGHTLY} has no rust-src"))
}

fn rustup() -> Command {
    let mut rustup = Command::new("rustup");
    // What is missing is fetched by `fetch` alone, not into the user's rustup in passing.
    rustup.env("RUSTUP_AUTO_INSTALL", "0");
    rustup.env_remove("RUSTUP_TOOLCHAIN");
    // Its complaints become part of an error message.
    rustup.env("RUST_BACKTRACE", "0");
    rustup
}
