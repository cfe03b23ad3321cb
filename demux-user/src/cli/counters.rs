//! `demux counters`: packets and bytes by interface, verdict and reason.

use std::{collections::HashMap, time::Duration};

use demux_common::{
    decide::UNKNOWN_INTERFACE,
    reason::{Count, Reason, Verdict},
};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Outcome,
    context::{Context, cannot_write, reactor},
    names::Names,
};
use crate::{
    Error, Result, interface,
    render::{CounterRow, Format, List, Row as _},
};

/// Show what happened to packets, and why
///
/// Counters are kept for each interface, verdict and reason. Bytes are those of the frames. The row
/// `untracked` counts packets that found the connection table full; they are counted under their
/// verdict too.
///
/// With --interval, packets and bytes are those a second since the last sample, and samples follow
/// each other until interrupted: in JSON one document, or with --jsonl the items, of each sample.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Sample every so many seconds, and show rates
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    interval: Option<Duration>,
    /// End after so many samples
    #[arg(long, value_name = "N", requires = "interval", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Only this interface
    #[arg(long, value_name = "IFACE")]
    iface: Option<String>,
    /// Show counters that are zero, too
    #[arg(long)]
    all: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux counters
  demux counters --iface eth0 --interval 1
  demux counters -j | jq '.items[] | select(.verdict == \"drop\")'";

/// What a counter is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    iface: Option<String>,
    verdict: Option<&'static str>,
    reason: &'static str,
}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        match self.interval {
            None => {
                let sample = self.sample(context)?;
                self.show(context, sample)?;
            }
            Some(period) => {
                let runtime = reactor()?;
                runtime.block_on(self.repeat(context, period))?;
            }
        }
        Ok(Outcome::Done)
    }

    /// Shows rates. The first sample, which has no earlier one to compare with, is not shown.
    async fn repeat(&self, context: &mut Context<'_>, period: Duration) -> Result<()> {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = ticks.tick().await;
        let mut before: HashMap<Key, Count> = self.sample(context)?.into_iter().collect();
        let mut shown = 0;
        while self.count.is_none_or(|count| shown < count) {
            let moment = ticks.tick().await;
            let sample = self.sample(context)?;
            let seconds = (moment - last).as_secs_f64();
            let rates = sample
                .iter()
                .map(|(key, count)| {
                    let old = before.get(key).copied().unwrap_or_default();
                    (key.clone(), rate(*count, old, seconds))
                })
                .collect();
            if shown > 0 && !context.is_json() {
                writeln!(context.out()).map_err(cannot_write)?;
            }
            self.show(context, rates)?;
            (last, before) = (moment, sample.into_iter().collect());
            shown += 1;
        }
        Ok(())
    }

    /// Reads every counter, zero or not, of the interfaces that are wanted.
    fn sample(&self, context: &Context<'_>) -> Result<Vec<(Key, Count)>> {
        let opened = context.open()?;
        let names = Names::read()?;
        let interfaces: HashMap<_, _> = opened
            .tables
            .interfaces()?
            .into_iter()
            .map(|(slot, entry)| (slot, entry.ifindex))
            .collect();
        let wanted = match &self.iface {
            Some(name) => {
                let index = interface::by_name(name)?.index;
                if !interfaces.values().any(|&known| known == index) {
                    return Err(Error::NotAttached(name.clone()));
                }
                Some(index)
            }
            None => None,
        };
        let mut sample = Vec::new();
        for (slot, counters) in opened.tables.counters()? {
            let ifindex = interfaces.get(&slot).copied();
            let is_unknown = ifindex.is_none() && slot == UNKNOWN_INTERFACE;
            if (ifindex.is_none() && !is_unknown) || (wanted.is_some() && wanted != ifindex) {
                continue;
            }
            let iface = ifindex.map(|index| names.show(index));
            for verdict in Verdict::ALL {
                for &reason in Reason::ALL {
                    let key = Key {
                        iface: iface.clone(),
                        verdict: Some(verdict.name()),
                        reason: reason.name(),
                    };
                    sample.push((key, counters.get(verdict, reason)));
                }
            }
            let key = Key {
                iface,
                verdict: None,
                reason: "untracked",
            };
            sample.push((key, counters.untracked));
        }
        Ok(sample)
    }

    fn show(&self, context: &mut Context<'_>, sample: Vec<(Key, Count)>) -> Result<()> {
        // Documents that follow each other are easier to tell apart on a line each.
        let format = match context.format() {
            Format::Json { .. } if self.interval.is_some() => Format::Json { pretty: false },
            format => format,
        };
        let mut list = List::new(context.out(), format, CounterRow::NOUN, CounterRow::COLUMNS);
        for (key, count) in sample {
            if count == Count::default() && !self.all {
                continue;
            }
            list.push(&CounterRow {
                iface: key.iface,
                reason: key.reason,
                verdict: key.verdict,
                packets: count.packets,
                bytes: count.bytes,
            })
            .map_err(cannot_write)?;
        }
        list.finish().map_err(cannot_write)
    }
}

/// What was counted a second; counters that were set back count from zero.
fn rate(now: Count, before: Count, seconds: f64) -> Count {
    let per_second = |now: u64, before: u64| {
        let counted = now.checked_sub(before).unwrap_or(now);
        (counted as f64 / seconds).round() as u64
    };
    Count {
        packets: per_second(now.packets, before.packets),
        bytes: per_second(now.bytes, before.bytes),
    }
}

/// Reads an interval.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.01..=86_400.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "an interval is 0.01 to 86400 seconds".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_one_second() {
        let count = |packets, bytes| Count { packets, bytes };
        assert_eq!(rate(count(30, 900), count(10, 100), 2.0), count(10, 400));
        assert_eq!(rate(count(4, 40), count(10, 100), 1.0), count(4, 40));
    }

    #[test]
    fn intervals_are_positive() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
