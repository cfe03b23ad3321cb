//! Interfaces: where demux is attached, and what became of packets.

use std::{collections::HashMap, io};

use demux_common::{
    decide::UNKNOWN_INTERFACE,
    reason::{Count, Reason, Verdict},
};

use super::Names;
use crate::{
    Error, Result,
    attach::{self, egress},
    metrics::family::{Family, Label},
    state::Paths,
    tables::Tables,
};

/// Where demux is attached, and where it should be.
pub(super) fn attached(tables: &Tables, paths: &Paths, names: &Names) -> Result<Vec<Family>> {
    let mut attached = Family::gauge(
        "demux_attached",
        "1 where demux is attached, 0 where it is not any more.",
    );
    for (_, entry) in tables.interfaces()? {
        let name = names.show(entry.ifindex);
        let is_here = match attach::pinned_link(&paths.xdp_link(entry.ifindex)) {
            Ok(link) => link.is_some_and(|link| link.ifindex == Some(entry.ifindex)),
            // Links are their owner's alone; an interface that is here most likely has it.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                names.0.contains_key(&entry.ifindex)
            }
            Err(error) => return Err(error),
        };
        let labels = |hook, mode| {
            [
                Label::new("interface", name.clone()),
                Label::new("hook", hook),
                Label::new("mode", mode),
            ]
        };
        attached.add(labels("ingress", entry.mode.name()), u64::from(is_here));
        if let Some(found) = egress::find(paths, entry.ifindex)? {
            let is_here = found.is_attached && names.0.contains_key(&entry.ifindex);
            attached.add(labels("egress", found.hook.name()), u64::from(is_here));
        }
    }
    Ok(vec![attached])
}

/// What became of packets, as `demux counters` has it: what is zero is left out.
pub(super) fn packets(tables: &Tables, names: &Names) -> Result<Vec<Family>> {
    let interfaces: HashMap<_, _> = tables
        .interfaces()?
        .into_iter()
        .map(|(slot, entry)| (slot, entry.ifindex))
        .collect();
    let mut packets = Family::counter(
        "demux_packets",
        "Packets that arrived, by what became of them and why.",
    );
    let mut bytes = Family::counter("demux_bytes", "Bytes of the frames of these packets.");
    let mut untracked = Family::counter(
        "demux_untracked_packets",
        "Packets that found the connection table full; they are among the others, too.",
    );
    for (slot, counters) in tables.counters()? {
        let interface = match interfaces.get(&slot) {
            Some(&ifindex) => names.show(ifindex),
            // Of interfaces without an entry.
            None if slot == UNKNOWN_INTERFACE => String::new(),
            None => continue,
        };
        for verdict in Verdict::ALL {
            for &reason in Reason::ALL {
                let count = counters.get(verdict, reason);
                if count == Count::default() {
                    continue;
                }
                let labels = || {
                    [
                        Label::new("interface", interface.clone()),
                        Label::new("verdict", verdict.name()),
                        Label::new("reason", reason.name()),
                    ]
                };
                packets.add(labels(), count.packets);
                bytes.add(labels(), count.bytes);
            }
        }
        if interfaces.contains_key(&slot) {
            let label = Label::new("interface", interface);
            untracked.add([label], counters.untracked.packets);
        }
    }
    Ok(vec![packets, bytes, untracked])
}
