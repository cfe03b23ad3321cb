//! `demux events`: what becomes of connections, as it happens.

use super::{
    Outcome,
    context::{Context, cannot_write},
    stream::{Flow, Until, stream},
    words::Words,
};
use crate::{
    Result,
    filter::Filter,
    listen::{Events, Kind},
    render::EventView,
};

/// How many events are written before the clock is looked at again.
const MOST: usize = 4096;

/// Show what becomes of connections, as it happens
///
/// Events are new, established (both sides have spoken), state (any other change), closed, expired,
/// evicted (an unconfirmed connection that had to go for another one) and untracked (there was no room).
/// What expires is told when a packet, a sweep or `demux clean` notices it.
///
/// The programs put events into a buffer of a megabyte. What finds it full is lost, and a row `lost` says
/// how much. One process listens at a time. Needs root, or CAP_BPF and CAP_DAC_OVERRIDE.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Which connections are wanted, as in demux connections
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Only these events
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',', value_parser = KINDS)]
    events: Vec<Kind>,
    #[command(flatten)]
    until: Until,
}

const KINDS: Words<Kind> = Words {
    what: "event",
    words: &[
        ("new", Kind::New, "A connection was entered"),
        ("established", Kind::Established, "Both sides have spoken"),
        ("state", Kind::State, "The state has changed otherwise"),
        ("closed", Kind::Closed, "It has ended"),
        ("expired", Kind::Expired, "It was silent for too long"),
        ("evicted", Kind::Evicted, "It had to go for another one"),
        ("untracked", Kind::Untracked, "There was no room for it"),
    ],
};

const EXAMPLES: &str = "\
EXAMPLES:
  demux events
  demux events --event established,closed binding web
  demux events --jsonl remote 192.0.2.0/24
  demux events --event evicted,untracked --duration 60";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let filter = Filter::parse(&self.filter)?;
        let mut events = Events::open(&context.bpffs()?)?;
        let mut list = context.list::<EventView>();
        // The header shows that somebody listens.
        list.flush().map_err(cannot_write)?;
        let (mut shown, mut lost) = (0, 0);
        stream(&self.until, || {
            let mut views = Vec::new();
            let read = events.read(MOST, &mut |event| {
                let is_wanted = self.events.is_empty() || self.events.contains(&event.kind);
                if is_wanted && filter.matches(&event.connection) {
                    views.push(EventView::from(event));
                }
            })?;
            for view in &views {
                list.push(view).map_err(cannot_write)?;
                shown += 1;
                if self.until.count == Some(shown) {
                    return Ok(Flow::Ends);
                }
            }
            let counts = events.counts()?;
            if counts.lost != lost && read < MOST {
                list.push(&EventView::of_lost(counts.lost - lost))
                    .map_err(cannot_write)?;
                lost = counts.lost;
            } else if views.is_empty() {
                return Ok(Flow::Goes);
            }
            list.flush().map_err(cannot_write)?;
            Ok(Flow::Goes)
        })?;
        list.finish().map_err(cannot_write)?;
        Ok(Outcome::Done)
    }
}
