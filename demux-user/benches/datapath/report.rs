//! What was measured, as a table and as JSON, and whether targets are met.

use std::fmt;

use serde_json::{Value, json};

use crate::{
    measure::Figures,
    targets::{Bound, TARGETS, Target},
};

/// The figures of all cases that were measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Vec<Figures>,
    missing: Vec<Missing>,
    /// How busy the other processors were meanwhile.
    pub(crate) others_percent: f64,
}

/// A case that could not be measured.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) name: &'static str,
    pub(crate) reason: String,
}

/// What a group of cases came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) figures: Vec<Figures>,
    pub(crate) missing: Vec<Missing>,
}

/// From how many percent on a reader is told.
const DISTURBING: f64 = 10.0;

/// How a target is kept.
struct Comparison<'a> {
    target: &'a Target,
    /// The figure in units of the reference, where there is one.
    ratio: Option<f64>,
    /// `None` where nothing is asked for.
    met: Option<bool>,
}

impl Report {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.figures.extend(outcome.figures);
        self.missing.extend(outcome.missing);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.figures.is_empty() && self.missing.is_empty()
    }

    /// Whether every target is met whose case was asked for; one that could not be measured is not.
    pub(crate) fn all_met(&self) -> bool {
        let is_right = |figures: &Figures| figures.complaint.is_none();
        let is_kept = |comparison: &Comparison<'_>| comparison.met != Some(false);
        self.comparisons().iter().all(is_kept)
            && self.unmeasured().next().is_none()
            && self.figures.iter().all(is_right)
    }

    /// The targets of which a case is missing.
    fn unmeasured(&self) -> impl Iterator<Item = &'static Target> {
        let is_missing = |name| self.missing.iter().any(|missing| missing.name == name);
        TARGETS.iter().filter(move |target| {
            is_missing(target.case) || target.reference().is_some_and(is_missing)
        })
    }

    fn find(&self, name: &str) -> Option<&Figures> {
        self.figures.iter().find(|figures| figures.name == name)
    }

    /// The targets for which everything was measured.
    fn comparisons(&self) -> Vec<Comparison<'static>> {
        TARGETS
            .iter()
            .filter_map(|target| {
                let figure = self.find(target.case)?.net.median;
                let ratio = match target.reference() {
                    Some(reference) => Some(figure / self.find(reference)?.net.median),
                    None => None,
                };
                let met = match target.bound {
                    Bound::Times(most, _) => ratio.map(|ratio| ratio <= most),
                    Bound::Nanoseconds(most) => Some(figure <= most),
                    Bound::Beside(_) => None,
                };
                Some(Comparison { target, ratio, met })
            })
            .collect()
    }

    pub(crate) fn json(&self) -> Value {
        let comparisons = self.comparisons();
        let targets: Vec<Value> = comparisons.iter().map(Comparison::json).collect();
        let cases: Vec<Value> = self
            .figures
            .iter()
            .map(|figures| {
                let mut case = json!({
                    "name": figures.name,
                    "median_ns": rounded(figures.total.median),
                    "min_ns": rounded(figures.total.min),
                    "max_ns": rounded(figures.total.max),
                    "baseline_ns": rounded(figures.baseline.median),
                    "over_noop_ns": rounded(figures.net.median),
                    "complaint": figures.complaint,
                    "reference": null,
                    "ratio": null,
                    "target": null,
                    "met": null,
                });
                // The first one stands for the case; `targets` has all.
                let first = comparisons
                    .iter()
                    .find(|comparison| comparison.target.case == figures.name);
                if let Some(Value::Object(first)) = first.map(Comparison::json) {
                    for (key, value) in first.into_iter().filter(|(key, _)| key != "name") {
                        case[key] = value;
                    }
                }
                case
            })
            .collect();
        let missing: Vec<Value> = self
            .missing
            .iter()
            .map(|missing| json!({ "name": missing.name, "reason": missing.reason }))
            .collect();
        let unmeasured: Vec<Value> = self
            .unmeasured()
            .map(|target| json!({ "name": target.case, "reference": target.reference() }))
            .collect();
        json!({
            "schema": "demux.bench.v1",
            "kernel": rustix::system::uname().release().to_string_lossy(),
            "others_percent": self.others_percent.round(),
            "cases": cases,
            "missing": missing,
            "targets": targets,
            "unmeasured": unmeasured,
        })
    }
}

impl Comparison<'_> {
    fn json(&self) -> Value {
        let target = match self.target.bound {
            Bound::Times(most, _) | Bound::Nanoseconds(most) => Some(most),
            Bound::Beside(_) => None,
        };
        json!({
            "name": self.target.case,
            "reference": self.target.reference(),
            "ratio": self.ratio.map(|ratio| (ratio * 1000.0).round() / 1000.0),
            "target": target,
            "met": self.met,
        })
    }
}

fn rounded(nanoseconds: f64) -> f64 {
    (nanoseconds * 100.0).round() / 100.0
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:34} {:>9} {:>9} {:>9} {:>9} {:>10}",
            "ns a packet", "min", "median", "max", "baseline", "over it"
        )?;
        for figures in &self.figures {
            let Figures {
                name,
                total,
                baseline,
                net,
                complaint,
            } = figures;
            writeln!(
                formatter,
                "{name:34} {total} {:9.1} {:10.1}",
                baseline.median, net.median
            )?;
            if let Some(complaint) = complaint {
                writeln!(formatter, "    WRONG: {complaint}")?;
            }
        }
        for Missing { name, reason } in &self.missing {
            writeln!(formatter, "{name:34} missing: {reason}")?;
        }
        if self.others_percent > DISTURBING {
            writeln!(
                formatter,
                "\nThe other processors were busy for {:.0} % of the time: everything \
                 was slower than it is alone, and what waits for memory most of all.",
                self.others_percent
            )?;
        }
        let comparisons = self.comparisons();
        if !comparisons.is_empty() {
            writeln!(formatter)?;
        }
        for Comparison { target, ratio, met } in comparisons {
            let verdict = match met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            write!(formatter, "{verdict:6} {}", target.case)?;
            if let (Some(reference), Some(ratio)) = (target.reference(), ratio) {
                write!(formatter, " / {reference}: {ratio:.2}")?;
            }
            match target.bound {
                Bound::Times(most, _) => writeln!(formatter, ", at most {most}")?,
                Bound::Nanoseconds(most) => writeln!(formatter, ": at most {most} ns")?,
                Bound::Beside(_) => writeln!(formatter)?,
            }
        }
        for target in self.unmeasured() {
            write!(formatter, "ABSENT {}", target.case)?;
            if let Some(reference) = target.reference() {
                write!(formatter, " / {reference}")?;
            }
            writeln!(formatter, ": not measured")?;
        }
        Ok(())
    }
}
