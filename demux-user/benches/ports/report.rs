//! What was measured, as a table and as JSON, and whether the targets are met.

use std::fmt;

use serde_json::{Value, json};

use crate::{
    figures::{Case, Figures},
    usage::{COUNT, FIRST, LAST, TARGET_USE},
};

/// At the use for which there are targets: at most this part of the kernel's search.
const TARGET: f64 = 0.1;

/// From how many percent on a reader is told.
const DISTURBING: f64 = 10.0;

/// The figures of all cases that were measured.
pub(crate) struct Report {
    pub(crate) cases: Vec<Figures>,
    /// How busy the other processors were meanwhile.
    pub(crate) others_percent: f64,
}

impl Report {
    /// Whether every target is met whose case was asked for.
    pub(crate) fn all_met(&self) -> bool {
        self.cases
            .iter()
            .all(|figures| self.met(figures) != Some(false))
    }

    /// A figure in units of that of the kernel's search at the same use.
    fn ratio(&self, figures: &Figures, of: fn(&Figures) -> f64) -> Option<f64> {
        let search = self.cases.iter().find(|other| {
            other.case == Case::KernelSearch && other.per_mille == figures.per_mille
        })?;
        Some(of(figures) / of(search))
    }

    /// `None` where nothing is asked for.
    fn met(&self, figures: &Figures) -> Option<bool> {
        if !figures.case.has_target() || figures.per_mille != TARGET_USE {
            return None;
        }
        self.ratio(figures, |figures| figures.median)
            .map(|ratio| ratio <= TARGET)
    }

    pub(crate) fn json(&self) -> Value {
        let cases: Vec<Value> = self
            .cases
            .iter()
            .map(|figures| {
                let met = self.met(figures);
                json!({
                    "name": figures.case.name(),
                    "use_percent": f64::from(figures.per_mille) / 10.0,
                    "samples": figures.samples,
                    "median_ns": rounded(figures.median),
                    "mean_ns": rounded(figures.mean),
                    "p90_ns": rounded(figures.p90),
                    "per_second": figures.per_second().round(),
                    "reference": Case::KernelSearch.name(),
                    "ratio": self.ratio(figures, |figures| figures.median).map(rounded),
                    "mean_ratio": self.ratio(figures, |figures| figures.mean).map(rounded),
                    "target": met.map(|_| TARGET),
                    "met": met,
                })
            })
            .collect();
        json!({
            "schema": "demux.bench.ports.v1",
            "kernel": rustix::system::uname().release().to_string_lossy(),
            "others_percent": self.others_percent.round(),
            "first_port": FIRST,
            "last_port": LAST,
            "cases": cases,
        })
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "ns a port, of {COUNT} ports to one destination; ratios to the kernel's search at the \
             same use"
        )?;
        writeln!(
            formatter,
            "{:>6} {:40} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8}",
            "in use", "", "median", "mean", "p90", "a second", "ratio", "of means"
        )?;
        let mut before = None;
        for figures in &self.cases {
            if before.is_some_and(|before| before != figures.per_mille) {
                writeln!(formatter)?;
            }
            before = Some(figures.per_mille);
            let ratio = |of| {
                self.ratio(figures, of)
                    .map_or_else(String::new, |ratio| format!("{ratio:.3}"))
            };
            writeln!(
                formatter,
                "{:>5}% {:40} {:>10.0} {:>10.0} {:>10.0} {:>10.0} {:>8} {:>8} {}",
                f64::from(figures.per_mille) / 10.0,
                figures.case.name(),
                figures.median,
                figures.mean,
                figures.p90,
                figures.per_second(),
                ratio(|figures| figures.median),
                ratio(|figures| figures.mean),
                match self.met(figures) {
                    Some(true) => "met",
                    Some(false) => "MISSED",
                    None => "",
                },
            )?;
        }
        if self.others_percent > DISTURBING {
            writeln!(
                formatter,
                "\nThe other processors were busy for {:.0} % of the time: everything was slower \
                 than it is alone.",
                self.others_percent
            )?;
        }
        Ok(())
    }
}
