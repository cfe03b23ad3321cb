//! Reading an instance, part by part.

mod bindings;
mod connections;
mod interfaces;
mod maps;
mod programs;
mod sets;

use std::collections::HashMap;

use super::{DaemonCounts, family::Family};
use crate::{Result, connections::Reader, interface, state::Paths, tables::Tables};

/// The parts of the metrics of an instance, each of which may fail by itself.
pub(super) fn parts(
    tables: &Tables,
    paths: &Paths,
    with_bindings: bool,
) -> Vec<Result<Vec<Family>>> {
    let names = Names::read();
    // The largest table is read once for all.
    let totals = Reader::new(tables).and_then(|reader| reader.totals());
    let rows = totals.as_ref().ok().map(|totals| totals.rows);
    let mut parts = vec![
        interfaces::attached(tables, paths, &names),
        interfaces::packets(tables, &names),
        connections::table(tables),
        bindings::all(tables),
        maps::fill(tables, rows),
        sets::sockets(tables, &names),
        programs::run(paths),
    ];
    match totals {
        Ok(totals) => {
            parts.push(Ok(connections::states(&totals)));
            if with_bindings {
                parts.push(bindings::each(tables, &totals));
            }
        }
        Err(error) => parts.push(Err(error)),
    }
    parts
}

/// What the daemon says of itself.
pub(super) fn daemon(counts: &DaemonCounts) -> Vec<Family> {
    vec![
        Family::counter("demux_daemon_sweeps", "Sweeps of the connection table.")
            .with([], counts.sweeps),
        Family::counter(
            "demux_daemon_swept_connections",
            "Expired rows that were removed.",
        )
        .with([], counts.swept),
        Family::counter(
            "demux_daemon_attached",
            "Interfaces that were attached again.",
        )
        .with([], counts.attached),
        Family::gauge(
            "demux_daemon_sets",
            "Sets of sockets that are open by way of the daemon.",
        )
        .with([], counts.sets),
    ]
}

/// The names of the interfaces of the present namespace.
struct Names(HashMap<u32, String>);

impl Names {
    /// Where they cannot be read, indexes are as good.
    fn read() -> Self {
        let all = interface::all().unwrap_or_default();
        Self(
            all.into_iter()
                .map(|device| (device.index, device.name))
                .collect(),
        )
    }

    /// The name, or the index where there is none.
    fn show(&self, ifindex: u32) -> String {
        self.0
            .get(&ifindex)
            .cloned()
            .unwrap_or_else(|| format!("#{ifindex}"))
    }
}
