//! Maps, and how full they are.

use demux_common::layout::map;

use crate::{
    Result,
    metrics::family::{Family, Label},
    tables::Tables,
};

/// Entries in use, entries that there is room for, and memory. Of the connection table, whose lines take
/// long to read, it is the rows that were counted.
pub(super) fn fill(tables: &Tables, rows: Option<u64>) -> Result<Vec<Family>> {
    let mut entries = Family::gauge(
        "demux_map_entries",
        "Entries in use; of arrays, those that are not zero.",
    );
    let mut max = Family::gauge("demux_map_max_entries", "Entries that there is room for.");
    let mut pressure = Family::gauge(
        "demux_map_pressure_ratio",
        "Entries in use of those that there is room for.",
    );
    let mut memory = Family::gauge("demux_map_memory_bytes", "Memory of a map.");
    for &name in map::ALL {
        let label = || [Label::new("map", name)];
        let room = tables.info(name)?.max_entries;
        let used = match name {
            map::CONNECTIONS => rows,
            map::CONNECTION_COLD => None,
            _ => tables.entries_in_use(name)?,
        };
        max.add(label(), room);
        memory.add(label(), tables.memory_of(name)?);
        if let Some(used) = used {
            entries.add(label(), used);
            pressure.add(label(), used as f64 / f64::from(room.max(1)));
        }
    }
    Ok(vec![entries, max, pressure, memory])
}
