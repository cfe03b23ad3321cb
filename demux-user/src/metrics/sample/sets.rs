//! Sets of AF_XDP sockets.

use demux_common::steering::{Ownership, XskSocket};

use super::Names;
use crate::{
    Result,
    bindings::SetName,
    metrics::family::{Family, Label},
    tables::Tables,
    xsk::{
        inspect::inspect,
        registry::{holder_of, is_claimed},
    },
};

/// How full the queues of each set are, and what was lost there, where the caller may look.
pub(super) fn sockets(tables: &Tables, names: &Names) -> Result<Vec<Family>> {
    let mut sockets = Family::gauge("demux_xsk_sockets", "Sockets of a set that packets reach.");
    let mut fill = Family::gauge(
        "demux_xsk_fill_frames",
        "Frames that a queue can still take.",
    );
    let mut dropped = Family::counter(
        "demux_xsk_rx_dropped",
        "Frames that were lost for other reasons than full rings.",
    );
    let mut full = Family::counter(
        "demux_xsk_rx_ring_full",
        "Frames that were lost because the owner was slow.",
    );
    let mut empty = Family::counter(
        "demux_xsk_fill_ring_empty",
        "How often there was no room for a frame.",
    );
    let mut invalid = Family::counter(
        "demux_xsk_invalid_descriptors",
        "Descriptors of the owner that the kernel refused.",
    );
    for (_, set) in tables.xsk_sets()? {
        if set.ownership == Ownership::None || !is_claimed(&set) {
            continue;
        }
        let name = SetName::of(&set).to_string();
        let mut published = 0_u64;
        for place in set.interfaces.iter().filter(|place| place.ifindex != 0) {
            for queue in 0..place.queues {
                let kept: XskSocket = tables.xsk_socket(place.first_slot + queue)?;
                published += u64::from(kept.cookie != 0);
                let Some(found) = inspect(holder_of(&set), &kept) else {
                    continue;
                };
                let labels = || {
                    [
                        Label::new("set", name.clone()),
                        Label::new("interface", names.show(place.ifindex)),
                        Label::new("queue", queue.to_string()),
                    ]
                };
                let counted = found.statistics;
                if let Some(frames) = found.fill {
                    fill.add(labels(), frames);
                }
                dropped.add(labels(), counted.rx_dropped);
                full.add(labels(), counted.rx_ring_full);
                empty.add(labels(), counted.fill_ring_empty);
                invalid.add(labels(), counted.rx_invalid + counted.tx_invalid);
            }
        }
        sockets.add([Label::new("set", name)], published);
    }
    Ok(vec![sockets, fill, dropped, full, empty, invalid])
}
