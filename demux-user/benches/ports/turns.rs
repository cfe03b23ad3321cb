//! All cases at every use, by turns, so that a machine that changes its pace changes it for all.

use demux_common::ports::Algorithm;

use crate::{
    connections::Connections,
    exec,
    figures::{Case, Figures},
    reservations::{End, Reservations},
    usage::{self, TARGET_USE, USES},
};

/// How often to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// How often the cases take turns.
    turns: usize,
    /// How many samples a case takes in a turn.
    samples: usize,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        turns: 16,
        samples: 128,
    };
    pub(crate) const QUICK: Self = Self {
        turns: 5,
        samples: 64,
    };
}

/// Measures the cases whose names contain the filter, and the kernel beside them.
pub(crate) fn measure(filter: Option<&str>, effort: Effort) -> Vec<Figures> {
    let wants = |case: &Case| filter.is_none_or(|filter| case.name().contains(filter));
    let cases_of = |end| {
        let mut cases: Vec<Case> = Vec::new();
        cases.extend(Algorithm::ALL.map(|algorithm| Case::Datapath(algorithm, end)));
        cases.extend(Algorithm::ALL.map(|algorithm| Case::Library(algorithm, end)));
        cases.retain(wants);
        cases
    };
    let groups: Vec<(End, Vec<Case>)> = [End::Released, End::Unseen]
        .map(|end| (end, cases_of(end)))
        .into();
    let programs: Vec<Case> = std::iter::once(None)
        .chain(Algorithm::ALL.map(Some))
        .map(Case::Program)
        .collect();
    let wants_kernel = [Case::KernelConnect, Case::KernelSearch].iter().any(wants);
    if !wants_kernel
        && !programs.iter().any(wants)
        && groups.iter().all(|(_, cases)| cases.is_empty())
    {
        return Vec::new();
    }
    let mut connections = Connections::new();
    let mut reservations = Reservations::new();
    let mut figures = Vec::new();
    for per_mille in USES {
        eprintln!(
            "bench: {} % of the range in use",
            f64::from(per_mille) / 10.0
        );
        let count = usage::ports(per_mille);
        connections.raise_use(count);
        let mut connects = Vec::new();
        let mut measured = Vec::new();
        for (end, cases) in &groups {
            reservations.set_use(count, *end);
            let mut samples = vec![Vec::new(); cases.len()];
            for _ in 0..effort.turns {
                connects.extend(connections.measure(effort.samples));
                for (case, samples) in cases.iter().zip(&mut samples) {
                    samples.extend(match *case {
                        Case::Datapath(algorithm, end) => {
                            reservations.measure_datapath(algorithm, end, effort.samples)
                        }
                        Case::Library(algorithm, end) => {
                            // Each takes milliseconds.
                            reservations.measure_library(algorithm, end, effort.samples / 16)
                        }
                        Case::KernelConnect | Case::KernelSearch | Case::Program(_) => Vec::new(),
                    });
                }
            }
            let cases = cases.iter().zip(samples);
            measured.extend(cases.map(|(case, samples)| Figures::of(*case, per_mille, samples)));
        }
        let raw = connects.iter().map(|connect| connect.searching).collect();
        let search = connects
            .iter()
            .map(|connect| connect.searching - connect.bound)
            .collect();
        figures.push(Figures::of(Case::KernelConnect, per_mille, raw));
        figures.push(Figures::of(Case::KernelSearch, per_mille, search));
        figures.extend(measured);
        if per_mille == TARGET_USE {
            for program in programs.iter().filter(|case| wants(case)) {
                if let Case::Program(algorithm) = *program {
                    let times = effort.turns * effort.samples;
                    let samples = exec::measure(algorithm, count, times);
                    figures.push(Figures::of(*program, per_mille, samples));
                }
            }
        }
    }
    figures
}
