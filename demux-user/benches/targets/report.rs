//! What was measured, as a table and as JSON, and whether the goals are met.

use std::fmt;

use serde_json::{Value, json};

use crate::{
    case::{Case, Way},
    flows::FLOWS,
};

/// At most so much of what a plain redirect costs, in CPU time and in time.
const GOAL: f64 = 1.15;

/// From what spread on the machine was too busy to be believed.
const DISTURBING: f64 = 0.1;

/// One turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// The part of what was sent that has arrived; the rest found the driver's queue full.
    pub(crate) arrived: f64,
    /// Packets a second that have arrived.
    pub(crate) per_second: f64,
    /// CPU time of all that receives, in nanoseconds a packet that has arrived.
    pub(crate) receiving_ns: f64,
    /// CPU time of the sender, in nanoseconds a packet that was sent.
    pub(crate) sending_ns: f64,
}

/// All turns of a case.
pub(crate) struct Figures {
    pub(crate) case: Case,
    plain: Vec<Sample>,
    demux: Vec<Sample>,
}

impl Figures {
    pub(crate) const fn new(case: Case) -> Self {
        Self {
            case,
            plain: Vec::new(),
            demux: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, way: Way, sample: Sample) {
        match way {
            Way::Plain => self.plain.push(sample),
            Way::Demux => self.demux.push(sample),
        }
    }

    /// Both ways, each by its name.
    fn ways(&self) -> [(&'static str, &[Sample]); 2] {
        [("plain", &self.plain), ("demux", &self.demux)]
    }

    /// What demux takes of something in units of what the plain way takes, each turn for itself.
    fn ratio(&self, of: fn(&Sample) -> f64) -> Summary {
        let turns = self.demux.iter().zip(&self.plain);
        Summary::of(turns.map(|(demux, plain)| of(demux) / of(plain)).collect())
    }

    /// Of CPU time, and of time.
    fn ratios(&self) -> [Summary; 2] {
        [
            self.ratio(|sample| sample.receiving_ns),
            self.ratio(|sample| 1.0 / sample.per_second),
        ]
    }

    /// By how much the goal is missed, if it is.
    fn missed_by(&self) -> Option<f64> {
        let worst = self.ratios().map(|ratio| ratio.median);
        let worst = worst.into_iter().fold(0.0, f64::max);
        (worst > GOAL).then_some(worst - GOAL)
    }

    /// How far the turns lie apart: the larger of both ways.
    fn spread(&self) -> f64 {
        self.ways()
            .map(|(_, samples)| Summary::over(samples, |sample| sample.receiving_ns).spread)
            .into_iter()
            .fold(0.0, f64::max)
    }
}

/// Some figures in two.
#[derive(Clone, Copy, Debug)]
struct Summary {
    median: f64,
    /// The distance of the quartiles in units of the median.
    spread: f64,
}

impl Summary {
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let at = |part: usize| figures[(figures.len() - 1) * part / 4];
        Self {
            median: at(2),
            spread: (at(3) - at(1)) / at(2),
        }
    }

    fn over(samples: &[Sample], of: fn(&Sample) -> f64) -> Self {
        Self::of(samples.iter().map(of).collect())
    }
}

/// The figures of all cases that were measured.
pub(crate) struct Report {
    pub(crate) cases: Vec<Figures>,
}

impl Report {
    /// Whether the goal is met by every case that was asked for.
    pub(crate) fn all_met(&self) -> bool {
        self.cases
            .iter()
            .all(|figures| figures.missed_by().is_none())
    }

    fn spread(&self) -> f64 {
        self.cases.iter().map(Figures::spread).fold(0.0, f64::max)
    }

    pub(crate) fn json(&self) -> Value {
        let cases: Vec<Value> = self.cases.iter().map(case_json).collect();
        json!({
            "schema": "demux.bench.targets.v1",
            "kernel": rustix::system::uname().release().to_string_lossy(),
            "flows": FLOWS,
            "goal": GOAL,
            "spread": rounded(self.spread()),
            "cases": cases,
        })
    }
}

fn case_json(figures: &Figures) -> Value {
    let [cpu_time, time] = figures.ratios();
    let mut case = json!({
        "name": figures.case.name(),
        "turns": figures.demux.len(),
        "cpu_time_ratio": rounded(cpu_time.median),
        "cpu_time_ratio_spread": rounded(cpu_time.spread),
        "time_ratio": rounded(time.median),
        "time_ratio_spread": rounded(time.spread),
        "met": figures.missed_by().is_none(),
        "missed_by": figures.missed_by().map(rounded),
    });
    for (way, samples) in figures.ways() {
        let receiving = Summary::over(samples, |sample| sample.receiving_ns);
        let of = |of| rounded(Summary::over(samples, of).median);
        case[way] = json!({
            "packets_per_second": of(|sample| sample.per_second).round(),
            "receiving_cpu_ns": rounded(receiving.median),
            "receiving_cpu_spread": rounded(receiving.spread),
            "sending_cpu_ns": of(|sample| sample.sending_ns),
            "arrived": of(|sample| sample.arrived),
        });
    }
    case
}

fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "packets of {FLOWS} flows: a second, in nanoseconds of the receiving CPU each (driver, \
             CPU map and reader of sockets), and in nanoseconds of the sending CPU; ratios of demux \
             to a program that sends all packets there, with the distance of their quartiles"
        )?;
        writeln!(
            formatter,
            "{:10} {:>12} {:>7} {:>7} {:>12} {:>7} {:>7} {:>15} {:>15}",
            "", "plain pkt/s", "recv", "send", "demux pkt/s", "recv", "send", "CPU time", "time"
        )?;
        for figures in &self.cases {
            write!(formatter, "{:10}", figures.case.name())?;
            for (_, samples) in figures.ways() {
                let of = |of| Summary::over(samples, of).median;
                write!(
                    formatter,
                    " {:>12.0} {:>7.0} {:>7.0}",
                    of(|sample| sample.per_second),
                    of(|sample| sample.receiving_ns),
                    of(|sample| sample.sending_ns),
                )?;
            }
            for ratio in figures.ratios() {
                write!(
                    formatter,
                    " {:>7.3} ± {:.3}",
                    ratio.median,
                    ratio.spread * ratio.median / 2.0
                )?;
            }
            match figures.missed_by() {
                Some(by) => writeln!(formatter, " MISSED by {:.0} %", by * 100.0)?,
                None => writeln!(formatter, " met")?,
            }
        }
        if self.spread() > DISTURBING {
            writeln!(
                formatter,
                "\nThe machine was busy: the turns of a case lie up to {:.0} % apart.",
                self.spread() * 100.0
            )?;
        }
        Ok(())
    }
}
