//! The connection table.

use demux_common::{connection::State, protocol::Protocol};

use crate::{
    Result,
    connections::Totals,
    metrics::family::{Family, Label},
    tables::Tables,
};

/// What has happened in the table, and how many rows it is for.
pub(super) fn table(tables: &Tables) -> Result<Vec<Family>> {
    let counters = tables.table_counters()?;
    let mut events = Family::counter(
        "demux_table_events",
        "Rows that were entered, entered over an expired one, displaced unconfirmed ones, or ended; \
         packets that found no room.",
    );
    for (event, count) in [
        ("entered", counters.entered),
        ("over-expired", counters.over_expired),
        ("displaced", counters.over_unconfirmed),
        ("untracked", counters.untracked),
        ("ended", counters.ended),
    ] {
        events.add([Label::new("event", event)], count);
    }
    let max = Family::gauge(
        "demux_connections_max",
        "Connections that the table is for.",
    )
    .with([], tables.max_connections()?);
    Ok(vec![events, max])
}

/// How many rows there are in each state.
pub(super) fn states(totals: &Totals) -> Vec<Family> {
    let mut connections = Family::gauge("demux_connections", "Connections, by protocol and state.");
    for protocol in Protocol::ALL {
        for &state in State::ALL {
            // A state is of one of the protocols, but for a reservation.
            if let Some(&count) = totals.by_state.get(&(protocol, state)) {
                let labels = [
                    Label::new("protocol", protocol.name()),
                    Label::new("state", state.name()),
                ];
                connections.add(labels, count);
            }
        }
    }
    let confirmed = Family::gauge(
        "demux_connections_confirmed",
        "Connections that this host has consented to.",
    )
    .with([], totals.confirmed);
    vec![connections, confirmed]
}
