//! `demux top`: a live view of connections, bindings and counters.

mod keys;
mod live;
mod stream;
mod terminal;

use std::{path::PathBuf, time::Duration};

use super::{
    Outcome,
    context::{Context, open_tables},
    counters::seconds,
    words::Words,
};
use crate::{
    Error, Result,
    tables::Tables,
    top::{Column, Model, Settings, Sort, View},
};

const VIEWS: Words<View> = Words {
    what: "view",
    words: &[
        ("connections", View::Connections, "connections"),
        ("bindings", View::Bindings, "bindings"),
        (
            "counters",
            View::Counters,
            "counters by interface, verdict and reason",
        ),
    ],
};

/// Watch connections, bindings and counters
///
/// Rows are ordered by what they move a second. A filter, which only connections have, is written as for
/// demux connections. Maps are only read, in one walk for each sample, which takes half of a CPU at most;
/// a longer --interval makes it less.
///
/// On a terminal, ? shows the keys. Where standard output is none, with --once, and in JSON, samples
/// follow each other until interrupted: in JSON one document, or with --jsonl the item, of each. The
/// first sample, which has no rates, is not among them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Which connections are wanted
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Sample every so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// End after so many samples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Write one sample, and end
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// What to list
    #[arg(long, value_name = "VIEW", default_value = "connections", value_parser = VIEWS)]
    view: View,
    /// Order by a column: pps, in, out, packets, state, local, remote, binding, age and others of the view
    #[arg(long, value_name = "COLUMN")]
    sort: Option<String>,
    /// Order the other way around
    #[arg(long)]
    reverse: bool,
    /// Keep at most so many connections
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    limit: u32,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux top
  demux top state established rport = :443 --sort in
  demux top --view bindings --interval 5
  demux top --once --limit 10                      the ten busiest, as text
  demux top -j --count 60 | jq '.items[].instance.verdicts'";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let model = Model::new(Settings {
            view: self.view,
            sort: self.sort()?,
            filter: self.filter.join(" "),
            limit: self.limit as usize,
            interval: self.interval,
        })?;
        let source = Source(context.bpffs_path().map(Into::into));
        // What is wrong from the start is told before the screen is taken.
        source.open()?;
        let count = if self.once { Some(1) } else { self.count };
        if context.is_json() || self.once || !terminal::is_usable() {
            stream::run(context, model, &source, count)?;
            return Ok(Outcome::Done);
        }
        live::run(model, source, count, context.is_styled())
    }

    fn sort(&self) -> Result<Sort> {
        let column = match &self.sort {
            None => Sort::initial(self.view).column,
            Some(word) => Column::of(self.view, word).ok_or_else(|| {
                let columns = self.view.columns().iter();
                let words: Vec<_> = columns.map(|column| column.word()).collect();
                Error::invalid("column", word, format!("available: {}", words.join(", ")))
            })?,
        };
        Ok(Sort {
            column,
            is_reversed: self.reverse,
        })
    }
}

/// Where the maps are found, each time anew: the instance may be another one by then.
#[derive(Clone, Debug)]
struct Source(Option<PathBuf>);

impl Source {
    fn open(&self) -> Result<Tables> {
        Ok(open_tables(self.0.as_deref())?.tables)
    }
}
