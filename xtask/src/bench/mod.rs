//! `cargo xtask bench`: what a packet costs, beside programs that do less, the same or more; what a port
//! for an outgoing connection costs, beside the kernel's search; and what it costs to bring packets to
//! their targets, beside programs that redirect all of them.
//!
//! The measuring is done by benchmarks of demux-user; this builds them and what they need.

mod xdp_filter;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{build, elevate, process};

/// Measure what a packet costs, beside xdp-filter, hash maps and the kernel's own lookups; or a port; or
/// the way to a target
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum, default_value_t = Benchmark::Datapath)]
    benchmark: Benchmark,
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

/// A benchmark of demux-user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Benchmark {
    /// What a packet costs
    Datapath,
    /// What a port for an outgoing connection costs, beside the search of the kernel's connect()
    Ports,
    /// What packets cost that pass, go to another CPU or to an AF_XDP socket, beside a plain redirect
    Targets,
}

impl Benchmark {
    /// The name of its target.
    const fn target(self) -> &'static str {
        match self {
            Self::Datapath => "datapath",
            Self::Ports => "ports",
            Self::Targets => "targets",
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    elevate::require()?;
    build::object()?;
    let mut words = match args.benchmark {
        Benchmark::Datapath => compared_with()?,
        Benchmark::Ports => Vec::new(),
        Benchmark::Targets => vec!["--reference".into(), build::reference_object()?.into()],
    };
    let benchmark = built(args.benchmark)?;
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

/// Provides what the benchmark of the datapath compares demux with, and returns its arguments.
fn compared_with() -> Result<Vec<OsString>> {
    let mut words: Vec<OsString> = vec!["--reference".into(), build::reference_object()?.into()];
    match xdp_filter::provide() {
        Ok(program) => words.extend(["--xdp-filter".into(), program.into()]),
        Err(error) => {
            let reason = format!("{error:#}").replace('\n', " ");
            eprintln!("bench: no xdp-filter, so its rows are missing: {reason}");
            words.extend(["--no-xdp-filter".into(), reason.into()]);
        }
    }
    Ok(words)
}

/// Builds a benchmark, and returns its executable.
fn built(benchmark: Benchmark) -> Result<PathBuf> {
    let mut cargo = process::cargo();
    cargo
        .args(["bench", "--no-run", "--package", "demux-user"])
        .args(["--bench", benchmark.target()])
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
