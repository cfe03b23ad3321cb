//! `cargo xtask bench`: what a packet costs, beside programs that do less, the same or more.
//!
//! The measuring is done by the benchmark `datapath` of demux-user; this builds it and what it needs.

mod xdp_filter;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{build, elevate, process};

/// Measure what a packet costs, beside xdp-filter, hash maps and the kernel's own lookups
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure only cases whose names contain this, and what they are compared with
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Measure shorter: good enough to see a change of a tenth
    #[arg(long)]
    quick: bool,
    /// Fail when a target is missed
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    elevate::require()?;
    build::object()?;
    let reference = build::reference_object()?;
    let benchmark = benchmark()?;
    let mut words: Vec<OsString> = vec!["--reference".into(), reference.into()];
    match xdp_filter::provide() {
        Ok(program) => words.extend(["--xdp-filter".into(), program.into()]),
        Err(error) => {
            let reason = format!("{error:#}").replace('\n', " ");
            eprintln!("bench: no xdp-filter, so its rows are missing: {reason}");
            words.extend(["--no-xdp-filter".into(), reason.into()]);
        }
    }
    if let Some(json) = &args.json {
        words.extend(["--json".into(), json.into()]);
    }
    if let Some(filter) = &args.filter {
        words.extend(["--filter".into(), filter.into()]);
    }
    words.extend(args.quick.then(|| "--quick".into()));
    words.extend(args.check.then(|| "--check".into()));
    elevate::exec(&benchmark, words)
}

/// Builds the benchmark, and returns its executable.
fn benchmark() -> Result<PathBuf> {
    let mut cargo = process::cargo();
    cargo
        .args(["bench", "--no-run", "--package", "demux-user"])
        .args(["--bench", "datapath"])
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let shown = process::shown(&cargo);
    let output = cargo
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed ({})", output.status);
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(executable)
        .with_context(|| format!("{shown} built no benchmark"))
}

/// The benchmark that cargo's `message` announces.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message.pointer("/target/kind/0")? != "bench" {
        return None;
    }
    Some(Path::new(message.get("executable")?.as_str()?).to_path_buf())
}
