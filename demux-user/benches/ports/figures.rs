//! What a case came to.

use crate::reservations::End;
use demux_common::ports::Algorithm;

/// Whose time is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// `connect()` of a socket without an address, all of it.
    KernelConnect,
    /// What `connect()` takes longer than for a socket that is bound: the kernel's search for a port.
    KernelSearch,
    /// A port by the control program, in a run for several: what the datapath does.
    Datapath(Algorithm, End),
    /// `connect()` of a program that has the ports in use itself: without demux, or under `demux exec`
    /// with an algorithm.
    Program(Option<Algorithm>),
    /// A port by a call of the library, which looks for the kernel's sockets and settings each time.
    Library(Algorithm, End),
}

impl Case {
    /// Its name in the report, without the part of the range that is in use.
    pub(crate) fn name(self) -> String {
        let of = |way: &str, algorithm: Algorithm, end: End| {
            let end = match end {
                End::Released => "",
                End::Unseen => ", unseen ends",
            };
            format!("{way} {}{end}", algorithm.name())
        };
        match self {
            Self::KernelConnect => "kernel connect()".to_owned(),
            Self::KernelSearch => "kernel search".to_owned(),
            Self::Datapath(algorithm, end) => of("datapath", algorithm, end),
            Self::Library(algorithm, end) => of("library", algorithm, end),
            Self::Program(None) => "program connect()".to_owned(),
            Self::Program(Some(algorithm)) => format!("exec connect() {}", algorithm.name()),
        }
    }

    /// Whether it is meant to take a tenth of the kernel's search where most ports are in use.
    pub(crate) const fn has_target(self) -> bool {
        matches!(self, Self::Datapath(_, End::Released))
    }
}

/// What a case took at some use, in nanoseconds a port.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) case: Case,
    /// The part of the range that was in use, in thousandths.
    pub(crate) per_mille: u32,
    pub(crate) samples: usize,
    pub(crate) median: f64,
    pub(crate) mean: f64,
    /// What nine of ten took at most.
    pub(crate) p90: f64,
}

impl Figures {
    pub(crate) fn of(case: Case, per_mille: u32, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let count = samples.len();
        Self {
            case,
            per_mille,
            samples: count,
            median: samples[count / 2],
            mean: samples.iter().sum::<f64>() / count as f64,
            p90: samples[count * 9 / 10],
        }
    }

    /// Ports a second, one after the other.
    pub(crate) fn per_second(&self) -> f64 {
        1e9 / self.mean
    }
}
