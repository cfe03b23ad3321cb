//! How often programs have run, and for how long, where the kernel counts that.

use std::{fs, os::fd::AsFd as _};

use crate::{
    Error, Result, bpf,
    metrics::family::{Family, Label},
    state::Paths,
};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Runs and seconds of every program; nothing where the kernel does not count (`sysctl
/// kernel.bpf_stats_enabled`), or where the caller may not look.
pub(super) fn run(paths: &Paths) -> Result<Vec<Family>> {
    let is_on = fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == "1");
    if !is_on {
        return Ok(Vec::new());
    }
    let mut runs = Family::counter("demux_program_runs", "How often a program has run.");
    let mut seconds = Family::counter("demux_program_run_seconds", "For how long it has run.");
    for name in paths.program_names()? {
        // Programs are their owner's alone.
        let Ok(program) = bpf::object_get(&paths.program(&name), false) else {
            continue;
        };
        let info = bpf::program_info(program.as_fd())
            .map_err(|source| Error::io(format!("describe the program {name}"), source))?;
        let label = || [Label::new("program", name.clone())];
        runs.add(label(), info.run_count);
        seconds.add(label(), info.run_time as f64 / 1e9);
    }
    Ok(vec![runs, seconds])
}
