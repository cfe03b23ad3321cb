//! `cargo xtask lint`: everything that can be judged without running anything.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{build, process};

/// Check formatting, lints, documentation and licenses
#[derive(clap::Args)]
pub(crate) struct Args {}

/// A name and what it checks.
type Step = (&'static str, fn() -> Result<()>);

/// demux-ebpf compiles for BPF only, so most commands leave it out.
const HOST_CRATES: [&str; 3] = ["--workspace", "--exclude", "demux-ebpf"];

pub(crate) fn run(_args: &Args) -> Result<()> {
    let steps: [Step; 5] = [
        ("fmt", fmt),
        ("clippy", clippy),
        ("doc", doc),
        ("deny", deny),
        ("bpf", bpf),
    ];
    let mut failed = Vec::new();
    for (name, step) in steps {
        eprintln!("lint: {name}");
        if let Err(error) = step() {
            eprintln!("lint: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint found something in: {}", failed.join(", "));
    }
    eprintln!("lint: clean");
    Ok(())
}

fn fmt() -> Result<()> {
    process::run(process::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    let mut clippy = process::cargo();
    clippy.arg("clippy").args(HOST_CRATES);
    process::run(clippy.args(["--all-targets", "--all-features", "--", "-D", "warnings"]))
}

fn doc() -> Result<()> {
    let mut doc = process::cargo();
    doc.arg("doc").args(HOST_CRATES).arg("--no-deps");
    process::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

fn deny() -> Result<()> {
    if process::find("cargo-deny").is_none() {
        eprintln!(
            "lint: deny left out, licenses and bans are not checked; \
             `cargo install cargo-deny` provides it"
        );
        return Ok(());
    }
    let mut deny = Command::new("cargo-deny");
    deny.current_dir(crate::workspace::root());
    process::run(deny.args(["check", "licenses", "bans"]))
}

fn bpf() -> Result<()> {
    build::object_without_warnings()
}
