//! What a packet costs: test runs of demux and of what it is compared with, in one sitting.
//!
//! `cargo xtask bench` builds what this needs and starts it as root. It works in network
//! namespaces and a BPF file system of its own, and leaves nothing behind.

#[path = "../../tests/common/mod.rs"]
mod common;

#[path = "../../../demux-ebpf/src/bin/reference/row.rs"]
mod row;
#[path = "../../../demux-ebpf/src/bin/reference/walk.rs"]
mod walk;

#[path = "../shared/processor.rs"]
mod processor;

mod arena;
mod frames;
mod groups;
mod instance;
mod measure;
mod reference;
mod report;
mod rows;
mod selection;
mod targets;
mod walks;
mod xdp_filter;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::{measure::Effort, processor::Others, report::Report, selection::Selection};

/// Measure what a packet costs; start it by `cargo xtask bench`
#[derive(Parser, Debug)]
struct Args {
    /// The BPF object with the programs to compare with
    #[arg(long)]
    reference: PathBuf,
    /// The program xdp-filter
    #[arg(long)]
    xdp_filter: Option<PathBuf>,
    /// Why there is no xdp-filter
    #[arg(long, default_value = "--xdp-filter names none")]
    no_xdp_filter: String,
    /// Write the results to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measure only cases whose names contain this, and what they are compared with
    #[arg(long)]
    filter: Option<String>,
    /// Measure shorter
    #[arg(long)]
    quick: bool,
    /// Fail when a target is missed
    #[arg(long)]
    check: bool,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What all groups of cases are made from.
struct Setting {
    reference: PathBuf,
    xdp_filter: Result<PathBuf, String>,
    selection: Selection,
    effort: Effort,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let setting = Setting {
        reference: args.reference,
        xdp_filter: args.xdp_filter.ok_or(args.no_xdp_filter),
        selection: Selection::new(args.filter),
        effort: if args.quick {
            Effort::QUICK
        } else {
            Effort::FULL
        },
    };
    let others = Others::watch(processor::settle());
    let mut report = Report::default();
    for group in groups::ALL {
        report.add(group(&setting));
    }
    if report.is_empty() {
        eprintln!("bench: no case has such a name");
        return ExitCode::FAILURE;
    }
    report.others_percent = others.percent();
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
