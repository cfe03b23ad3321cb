//! `demux trace`: packets and what becomes of them, as they come.

use demux_common::{
    connection::Direction,
    reason::{Reason, Verdict},
    trace::Selection,
};

use super::{
    Outcome,
    context::{Context, cannot_write},
    stream::{Flow, Until, stream},
    words::Words,
};
use crate::{
    Error, Result,
    filter::Filter,
    interface,
    listen::{Limits, TraceRow, Traces},
    render::TraceView,
};

/// How many packets are written before the clock is looked at again.
const MOST: usize = 4096;

/// Show packets and what becomes of them, as they come
///
/// Each row has the packet, and what `explain` would say of it: verdict, reason, stage, binding and
/// target. Packets that leave are shown too; demux never holds them up.
///
/// The programs themselves look at addresses, ports, protocol, interface, verdict and reason, where all of
/// them must be met; so one connection can be seen among millions of packets. No more than --rate packets
/// a second are shown for each CPU, and with --sample N one of N by chance; what was left out is told at
/// the end. While a trace runs, every packet takes the long way through the program, which costs some tens
/// of nanoseconds. One process traces at a time. Needs root, or CAP_BPF and CAP_DAC_OVERRIDE.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Which packets are wanted: the words of demux connections, without state and dir
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Only this interface
    #[arg(long, value_name = "IFACE")]
    iface: Option<String>,
    /// Only packets that arrive, or that leave
    #[arg(long, value_name = "WAY", value_parser = WAYS)]
    way: Option<Direction>,
    /// Only arriving packets with these verdicts
    #[arg(long = "verdict", value_name = "VERDICT", value_delimiter = ',', value_parser = VERDICTS)]
    verdicts: Vec<Verdict>,
    /// Only arriving packets with these reasons
    #[arg(long = "reason", value_name = "REASON", value_delimiter = ',', value_parser = reason)]
    reasons: Vec<Reason>,
    /// One of so many packets, by chance
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,
    /// At most so many a second for each CPU; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rate: u32,
    #[command(flatten)]
    until: Until,
}

const WAYS: Words<Direction> = Words {
    what: "way",
    words: &[
        ("in", Direction::In, "Packets that arrive"),
        ("out", Direction::Out, "Packets that leave"),
    ],
};

const VERDICTS: Words<Verdict> = Words {
    what: "verdict",
    words: &[
        ("pass", Verdict::Pass, "It goes up the kernel's stack"),
        ("drop", Verdict::Drop, "It ends at the driver"),
        ("reject", Verdict::Reject, "It is answered with a refusal"),
        (
            "redirect",
            Verdict::Redirect,
            "It goes to another CPU or to an AF_XDP socket",
        ),
    ],
};

const EXAMPLES: &str = "\
EXAMPLES:
  demux trace remote 192.0.2.7
  demux trace --verdict drop,reject
  demux trace 'lport 443' --sample 1000 --duration 10
  demux trace --reason no-socket --jsonl | jq -r .remote | sort | uniq -c";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let filter = Filter::parse(&self.filter)?;
        let selection = self.selection(&filter)?;
        let limits = Limits {
            one_in: self.sample,
            per_second: self.rate,
        };
        let mut traces = Traces::open(&context.bpffs()?, &selection, limits)?;
        let mut list = context.list::<TraceView>();
        // The header shows that somebody listens.
        list.flush().map_err(cannot_write)?;
        let mut shown = 0;
        stream(&self.until, || {
            let mut views = Vec::new();
            traces.read(MOST, &mut |packet| {
                if is_wanted(&filter, &packet) {
                    views.push(TraceView::from(packet));
                }
            })?;
            for view in &views {
                list.push(view).map_err(cannot_write)?;
                shown += 1;
                if self.until.count == Some(shown) {
                    return Ok(Flow::Ends);
                }
            }
            if !views.is_empty() {
                list.flush().map_err(cannot_write)?;
            }
            Ok(Flow::Goes)
        })?;
        list.finish().map_err(cannot_write)?;
        let counts = traces.counts()?;
        if counts.held_back != 0 {
            context.note(format!(
                "{} packets were beyond the rate and are not shown: choose fewer, or --rate 0",
                counts.held_back
            ));
        }
        if counts.lost != 0 {
            context.warn(format!(
                "{} packets found the buffer full and were lost",
                counts.lost
            ));
        }
        Ok(Outcome::Done)
    }

    /// What the programs are to look at.
    fn selection(&self, filter: &Filter) -> Result<Selection> {
        let mut selection = Selection::ALL;
        filter.narrow(&mut selection)?;
        if let Some(name) = &self.iface {
            selection.ifindex = interface::by_name(name)?.index;
        }
        if let Some(way) = self.way {
            selection.directions = 1 << way as u32;
        }
        if !self.verdicts.is_empty() {
            selection.verdicts = self
                .verdicts
                .iter()
                .fold(0, |all, &verdict| all | 1 << verdict as u32);
        }
        if !self.reasons.is_empty() {
            selection.reasons = self
                .reasons
                .iter()
                .fold(0, |all, &reason| all | 1 << reason as u32);
        }
        if !self.verdicts.is_empty() || !self.reasons.is_empty() {
            // Packets that leave have neither.
            selection.directions &= 1 << Direction::In as u32;
        }
        if selection.directions == 0 {
            return Err(Error::invalid(
                "way",
                "out",
                "packets that leave have no verdict and no reason",
            ));
        }
        Ok(selection)
    }
}

fn is_wanted(filter: &Filter, packet: &TraceRow) -> bool {
    match &packet.endpoints {
        Some(endpoints) => {
            let binding = packet
                .outcome
                .as_ref()
                .and_then(|outcome| outcome.binding.as_deref());
            filter.matches_packet(
                endpoints.protocol,
                endpoints.local,
                endpoints.remote,
                binding,
            )
        }
        None => filter.is_empty(),
    }
}

fn reason(text: &str) -> Result<Reason, String> {
    Reason::ALL
        .iter()
        .find(|reason| reason.name() == text)
        .copied()
        .ok_or_else(|| {
            let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
            format!("the reasons are {}", names.join(", "))
        })
}
