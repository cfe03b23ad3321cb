//! How often programs have run, and for how long, where the kernel counts that.

use std::{fs, os::fd::AsFd as _};

use crate::{
    Error, Result, bpf,
    metrics::family::{Family, Label},
    state::Paths,
};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Runs and seconds of every program; nothing where the kernel does not count (`sysctl
/// kernel.bpf_stats_enabled`) and has not, or where the caller may not look.
pub(super) fn run(paths: &Paths) -> Result<Vec<Family>> {
    let mut runs = Family::counter("demux_program_runs", "How often a program has run.");
    let mut seconds = Family::counter("demux_program_run_seconds", "For how long it has run.");
    let mut is_counted = fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == "1");
    for name in paths.program_names()? {
        // Programs are their owner's alone.
        let Ok(program) = bpf::object_get(&paths.program(&name), false) else {
            continue;
        };
        let info = bpf::program_info(program.as_fd())
            .map_err(|source| Error::io(format!("describe the program {name}"), source))?;
        is_counted |= info.run_count != 0;
        let label = || [Label::new("program", name.clone())];
        runs.add(label(), info.run_count);
        seconds.add(label(), info.run_time as f64 / 1e9);
    }
    Ok(if is_counted {
        vec![runs, seconds]
    } else {
        Vec::new()
    })
}
