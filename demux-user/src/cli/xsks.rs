//! `demux xsks`: list the sets of AF_XDP sockets.

use demux_common::steering::{Ownership, XskSet};

use super::{
    Outcome,
    context::{Context, cannot_write},
    names::Names,
};
use crate::{
    Result,
    bindings::SetName,
    render::XskRow,
    tables::Tables,
    xsk::{
        inspect::inspect,
        registry::{holder_of, is_claimed, owner_of},
    },
};

/// List the AF_XDP sockets that bindings send packets to
///
/// One row for each socket, and one for each set that bindings name and nobody has opened. FILL is how
/// many frames its queue can still take, DROPS what was lost for want of that, or because the owner was
/// slow; both take the right to look into the process that holds the socket.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:\n  demux xsks\n  demux xsks --jsonl | jq 'select(.fill == 0)'")]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let Self {} = self;
        let opened = context.open()?;
        let names = Names::read()?;
        let mut sets = opened.tables.xsk_sets()?;
        sets.sort_by_cached_key(|(_, set)| SetName::of(set));
        let mut list = context.list::<XskRow>();
        for (_, set) in &sets {
            for row in rows(&opened.tables, &names, set)? {
                list.push(&row).map_err(cannot_write)?;
            }
        }
        list.finish().map_err(cannot_write)?;
        Ok(Outcome::Done)
    }
}

fn rows(tables: &Tables, names: &Names, set: &XskSet) -> Result<Vec<XskRow>> {
    let of_set = XskRow {
        name: SetName::of(set).to_string(),
        access: match set.ownership {
            Ownership::None => "free",
            _ if !is_claimed(set) => "dead",
            Ownership::Direct => "direct",
            Ownership::Daemon => "daemon",
        },
        pid: None,
        process: None,
        uid: None,
        iface: None,
        queue: None,
        published: false,
        zero_copy: None,
        longest: None,
        fill: None,
        rx_ring_full: None,
        fill_ring_empty: None,
        rx_dropped: None,
        invalid_descriptors: None,
        generation: set.generation,
    };
    if set.ownership == Ownership::None {
        return Ok(vec![of_set]);
    }
    let owner = owner_of(set);
    let of_set = XskRow {
        pid: Some(owner.pid),
        process: owner.name(),
        uid: Some(set.uid),
        longest: Some(set.longest),
        ..of_set
    };
    let mut rows = Vec::new();
    for place in set.interfaces.iter().filter(|place| place.ifindex != 0) {
        for queue in 0..place.queues {
            let kept = tables.xsk_socket(place.first_slot + queue)?;
            let published = kept.cookie != 0;
            let found = inspect(holder_of(set), &kept);
            let statistics = found.map(|found| found.statistics);
            rows.push(XskRow {
                iface: Some(names.show(place.ifindex)),
                queue: Some(u32::from(queue)),
                published,
                zero_copy: published.then_some(kept.zero_copy != 0),
                fill: found.and_then(|found| found.fill),
                rx_ring_full: statistics.map(|counted| counted.rx_ring_full),
                fill_ring_empty: statistics.map(|counted| counted.fill_ring_empty),
                rx_dropped: statistics.map(|counted| counted.rx_dropped),
                invalid_descriptors: statistics
                    .map(|counted| counted.rx_invalid + counted.tx_invalid),
                ..of_set.clone()
            });
        }
    }
    Ok(rows)
}
