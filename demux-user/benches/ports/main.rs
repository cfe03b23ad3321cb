//! What a port for an outgoing connection costs: the allocator of demux beside the search of the
//! kernel's `connect()`, while the same part of the same range is in use, in one sitting.
//!
//! `cargo xtask bench ports` builds what this needs and starts it as root. It works in network
//! namespaces and a BPF file system of its own, and leaves nothing behind.

#[path = "../../tests/common/mod.rs"]
mod common;

#[path = "../shared/processor.rs"]
mod processor;

mod connections;
mod exec;
mod figures;
mod report;
mod reservations;
mod turns;
mod usage;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::{processor::Others, report::Report, turns::Effort};

/// Measure what a port costs; start it by `cargo xtask bench ports`
#[derive(Parser, Debug)]
struct Args {
    /// Write the results to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measure only cases whose names contain this, and the kernel's search beside them
    #[arg(long)]
    filter: Option<String>,
    /// Measure shorter
    #[arg(long)]
    quick: bool,
    /// Fail when a target is missed
    #[arg(long)]
    check: bool,
    /// Be the program that is measured under `demux exec`: so many connections
    #[arg(long = exec::COUNT, hide = true, requires = "exec_times")]
    exec_count: Option<usize>,
    /// How many of its further connections are measured
    #[arg(long = exec::TIMES, hide = true)]
    exec_times: Option<usize>,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let (Some(count), Some(times)) = (args.exec_count, args.exec_times) {
        exec::program(count, times);
        return ExitCode::SUCCESS;
    }
    let effort = if args.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let others = Others::watch(processor::settle());
    let measured = turns::measure(args.filter.as_deref(), effort);
    if measured.is_empty() {
        eprintln!("bench: no case has such a name");
        return ExitCode::FAILURE;
    }
    let report = Report {
        cases: measured,
        others_percent: others.percent(),
    };
    print!("{report}");
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report.json()).expect("a document");
        if let Err(error) = std::fs::write(path, json + "\n") {
            eprintln!("bench: cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    if args.check && !report.all_met() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
