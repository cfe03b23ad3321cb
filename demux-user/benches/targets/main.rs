//! What it costs to bring packets to their targets: demux beside programs that send all packets the
//! same way without a look at them, end to end on veth pairs, by turns, in one sitting.
//!
//! `cargo xtask bench targets` builds what this needs and starts it as root. It works in network
//! namespaces and a BPF file system of its own, and leaves nothing behind.
//!
//! One CPU sends, another receives. Frames are made in the kernel, by test runs that put them on a
//! veth pair as a driver does, because a sender in user space is slower than what is measured. All that
//! receives is threads: the driver's (threaded NAPI), that of the CPU map, and the reader of AF_XDP
//! sockets. *CPU time* is what the scheduler has counted for them; the sender's is told beside it. A
//! packet of the stack ends at the first hook of netfilter, before anybody has looked for a route or a
//! socket.

#[path = "../../tests/common/mod.rs"]
mod common;

#[path = "../../../demux-ebpf/src/bin/reference/flows.rs"]
mod flows;

mod case;
mod consumer;
mod feeder;
mod frames;
mod plain;
mod report;
mod rounds;
mod stage;
mod steered;
mod threads;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::{report::Report, rounds::Effort};

/// Measure what targets cost; start it by `cargo xtask bench targets`
#[derive(Parser, Debug)]
struct Args {
    /// The BPF object with the programs to compare with
    #[arg(long)]
    reference: PathBuf,
    /// Write the results to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measure only cases whose names contain this
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

fn main() -> ExitCode {
    let args = Args::parse();
    let effort = if args.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let measured = rounds::measure(&args.reference, args.filter.as_deref(), effort);
    if measured.is_empty() {
        eprintln!("bench: no case has such a name");
        return ExitCode::FAILURE;
    }
    let report = Report { cases: measured };
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
