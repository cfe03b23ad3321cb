//! Bindings.

use crate::{
    Result,
    bindings::change::name_of,
    connections::Totals,
    metrics::family::{Family, Label},
    tables::Tables,
};

/// How many there are, and may be.
pub(super) fn all(tables: &Tables) -> Result<Vec<Family>> {
    let count = tables.bindings()?.len() as u64;
    Ok(vec![
        Family::gauge("demux_bindings", "Bindings.").with([], count),
        Family::gauge("demux_bindings_max", "Bindings that there is room for.")
            .with([], tables.max_bindings()?),
    ])
}

/// What each has decided, and how many connections it has.
pub(super) fn each(tables: &Tables, totals: &Totals) -> Result<Vec<Family>> {
    let mut packets = Family::counter(
        "demux_binding_packets",
        "Packets that a binding decided itself or through a row that it owns.",
    );
    let mut bytes = Family::counter("demux_binding_bytes", "Bytes of these packets.");
    let mut connections = Family::gauge("demux_binding_connections", "Connections of a binding.");
    let counts = tables.binding_counts()?;
    for (index, binding) in tables.bindings()? {
        let label = || [Label::new("binding", name_of(&binding))];
        let count = counts.get(usize::from(index)).copied().unwrap_or_default();
        packets.add(label(), count.packets);
        bytes.add(label(), count.bytes);
        let owned = totals.by_binding.get(&index).copied().unwrap_or_default();
        connections.add(label(), owned);
    }
    Ok(vec![packets, bytes, connections])
}
