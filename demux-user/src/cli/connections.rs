//! `demux connections`: list connections.

use super::{
    Outcome,
    context::{Context, cannot_write},
};
use crate::{
    Result,
    connections::Reader,
    filter::Filter,
    render::{ConnectionRow, DifferenceRow},
    verify,
};

/// List connections
///
/// A connection is one four-tuple of one protocol; on loopback both sides are local, so there are two
/// rows.
///
/// A filter is made of the words of ss. `local` (or `src`) and `remote` (or `dst`) take an address, a
/// prefix, a port or both; `lport` (`sport`) and `rport` (`dport`) a port or a range; `state` a state by
/// its RFC 9293 or ss name, or a group (all, connected, synchronized, bucket, big); `proto` tcp or udp;
/// `binding` a name; `dir` in or out. They are joined by and, or, not and parentheses, and compared with
/// = != < > <= >= or eq ne lt gt le ge.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Which connections are wanted
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Compare with the kernel's TCP sockets, show what differs, and end with 7 if anything does
    #[arg(long, conflicts_with = "filter")]
    verify: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux connections
  demux connections state established dport = :443
  demux conns 'remote 10.0.0.0/8 and not lport 22'
  demux conns '( sport = :80 or sport = :443 ) and dst 192.0.2.7' --jsonl
  demux conns binding web state time-wait,close-wait
  demux connections --verify                           what ss would say otherwise";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        if self.verify {
            return verify(context);
        }
        let filter = Filter::parse(&self.filter)?;
        let opened = context.open()?;
        let reader = Reader::new(&opened.tables)?;
        let mut list = context.list::<ConnectionRow>();
        reader.for_each(|row| {
            if filter.matches(&row) {
                list.push(&ConnectionRow::from(row)).map_err(cannot_write)?;
            }
            Ok(())
        })?;
        list.finish().map_err(cannot_write)?;
        Ok(Outcome::Done)
    }
}

fn verify(context: &mut Context<'_>) -> Result<Outcome> {
    let opened = context.open()?;
    let differences = verify::verify(&opened.tables)?;
    let mut list = context.list::<DifferenceRow>();
    for difference in &differences {
        list.push(&DifferenceRow::from(difference))
            .map_err(cannot_write)?;
    }
    list.finish().map_err(cannot_write)?;
    Ok(if differences.is_empty() {
        Outcome::Done
    } else {
        Outcome::Found
    })
}
