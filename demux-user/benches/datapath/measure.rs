//! Timing test runs.
//!
//! A figure is the wall time of one `BPF_PROG_TEST_RUN` divided by its repetitions, which holds
//! for programs that are attached somewhere only: for others the kernel waits for grace periods
//! within the call. Each run is paired with one of a baseline just before it, and the runs of all
//! cases of a group take turns, so that a machine that changes its pace changes it for all.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use demux_user::bpf;
use rustix::time::{ClockId, clock_gettime};
use zerocopy::IntoBytes as _;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// How often each case is run.
    repetitions: usize,
    /// How long one run takes at least.
    run: Duration,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        repetitions: 9,
        run: Duration::from_millis(160),
    };
    pub(crate) const QUICK: Self = Self {
        repetitions: 7,
        run: Duration::from_millis(40),
    };
}

/// Complains when what it is about has gone wrong in so many runs.
pub(crate) type Check<'a> = Box<dyn FnMut(u64) -> Result<(), String> + 'a>;

/// A program and the frame it is run on.
pub(crate) struct Case<'a> {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// The program.
    pub(crate) program: BorrowedFd<'a>,
    /// What is run before, and subtracted: a program that does nothing, or what feeds both.
    pub(crate) baseline: BorrowedFd<'a>,
    /// The frame, and the index of the interface that it arrives on.
    pub(crate) frame: Vec<u8>,
    pub(crate) ifindex: u32,
    /// What the program must return at the end of a run.
    pub(crate) action: u32,
    /// Called before each run and its baseline.
    pub(crate) prepare: Option<Box<dyn Fn() + 'a>>,
    /// Called after each run.
    pub(crate) check: Option<Check<'a>>,
}

/// What is run.
#[derive(Clone, Copy, Debug)]
enum Part {
    Baseline,
    Program,
}

/// What a case costs, in nanoseconds a packet.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) total: Spread,
    /// What the baseline took.
    pub(crate) baseline: Spread,
    /// The differences between each run and its baseline.
    pub(crate) net: Spread,
    /// What was wrong with the runs, if anything was.
    pub(crate) complaint: Option<String>,
}

/// The least, the middle and the most of some figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of figures that single runs took, whose extremes say nothing: the first and the last tenth are
    /// left out.
    pub(crate) fn middle(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let tenth = figures.len() / 10;
        Self::of(figures[tenth..figures.len() - tenth].iter().copied())
    }

    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        Self {
            min: figures[0],
            median: figures[figures.len() / 2],
            max: figures[figures.len() - 1],
        }
    }
}

/// Runs all cases by turns.
pub(crate) fn measure(group: &str, mut cases: Vec<Case<'_>>, effort: Effort) -> Vec<Figures> {
    eprint!("bench: {group}: {} cases", cases.len());
    let mut samples = vec![Vec::new(); cases.len()];
    let mut complaints = vec![None; cases.len()];
    // Also warms up what there is to be warm.
    let repeats: Vec<[u32; 2]> = cases
        .iter()
        .map(|case| {
            if let Some(prepare) = &case.prepare {
                prepare();
            }
            [Part::Baseline, Part::Program].map(|part| case.repeats(part, effort))
        })
        .collect();
    for case in &mut cases {
        // What warmed up need not have been as it should.
        if let Some(check) = &mut case.check {
            let _ = check(0);
        }
    }
    for repetition in 1..=effort.repetitions {
        if io::stderr().is_terminal() {
            let of = effort.repetitions;
            eprint!("\rbench: {group}: repetition {repetition} of {of}");
        }
        for (index, case) in cases.iter_mut().enumerate() {
            let [baseline_repeat, repeat] = repeats[index];
            if let Some(prepare) = &case.prepare {
                prepare();
            }
            let baseline = case.run(Part::Baseline, baseline_repeat).0;
            let (time, attempts) = case.run(Part::Program, repeat);
            samples[index].push((time, baseline));
            if let Some(check) = &mut case.check
                && let Err(complaint) = check(u64::from(repeat) * u64::from(attempts))
            {
                complaints[index].get_or_insert(complaint);
            }
        }
    }
    eprintln!();
    let figures = cases.iter().zip(samples).zip(complaints);
    figures
        .map(|((case, samples), complaint)| {
            let samples = || samples.iter();
            Figures {
                name: case.name,
                total: Spread::of(samples().map(|(time, _)| *time)),
                baseline: Spread::of(samples().map(|(_, baseline)| *baseline)),
                net: Spread::of(samples().map(|(time, baseline)| time - baseline)),
                complaint,
            }
        })
        .collect()
}

/// Runs a program on a frame that arrives on an interface, so many times, whatever comes of it.
pub(crate) fn run(program: BorrowedFd<'_>, frame: &[u8], ifindex: u32, repeat: u32) -> u32 {
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, frame.len() as u32, 0, ifindex, 0, 0];
    bpf::test_run(program, frame, 0, Some(context.as_bytes()), repeat)
        .unwrap_or_else(|error| panic!("a test run: {error}"))
        .retval
}

impl Case<'_> {
    /// How many repetitions take as long as a run is to take.
    fn repeats(&self, part: Part, effort: Effort) -> u32 {
        const FEW: u32 = 20_000;
        self.test_run(part, FEW);
        let nanoseconds = self.test_run(part, FEW).wall.as_nanos() as f64 / f64::from(FEW);
        ((effort.run.as_nanos() as f64 / nanoseconds) as u32).max(FEW)
    }

    /// Nanoseconds a packet, and how many attempts it took to have the processor for so long.
    fn run(&self, part: Part, repeat: u32) -> (f64, u32) {
        const ATTEMPTS: u32 = 20;
        let mut attempts = 1;
        loop {
            let Time { wall, away } = self.test_run(part, repeat);
            if away < wall / 50 || attempts == ATTEMPTS {
                if attempts == ATTEMPTS {
                    eprintln!(
                        "\nbench: others keep the processor busy: {} is not reliable",
                        self.name
                    );
                }
                return (wall.as_nanos() as f64 / f64::from(repeat), attempts);
            }
            attempts += 1;
        }
    }

    fn test_run(&self, part: Part, repeat: u32) -> Time {
        let (program, action) = match part {
            Part::Baseline => (self.baseline, PASS),
            Part::Program => (self.program, self.action),
        };
        let (start, work) = (Instant::now(), processor_time());
        let returned = run(program, &self.frame, self.ifindex, repeat);
        let (wall, work) = (start.elapsed(), processor_time() - work);
        assert_eq!(returned, action, "what {} returns ({part:?})", self.name);
        Time {
            wall,
            away: wall.saturating_sub(work),
        }
    }
}

/// What a test run took.
struct Time {
    wall: Duration,
    /// How much of it the processor worked for others.
    away: Duration,
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// XDP_DROP and XDP_PASS.
pub(crate) const DROP: u32 = 1;
pub(crate) const PASS: u32 = 2;

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, median, max } = self;
        write!(formatter, "{min:9.1} {median:9.1} {max:9.1}")
    }
}
