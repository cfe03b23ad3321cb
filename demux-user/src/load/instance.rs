//! Making an instance: its maps, its programs, and whose it is.

use demux_common::{
    config::{Config, Track},
    connection::Timeouts,
    layout::{LAYOUT_VERSION, Meta},
};

use crate::{
    Result, netns,
    object::{self, Capacities},
    state::NewInstance,
    tables::{Access, Tables},
};

/// The settings that an instance starts with where nothing else is asked for.
#[must_use]
pub fn initial_config() -> Config {
    Config {
        epoch: 1,
        track: Track::Local,
        kernel_sockets: 1,
        local_prefixes: 0,
        reserved: 0,
        timeouts: Timeouts::default(),
    }
}

/// Fills a new instance: maps, settings and programs, everything pinned, nothing attached.
///
/// # Errors
///
/// What the kernel refuses; the new instance is then removed when it is dropped.
pub fn create_instance(
    new: &NewInstance,
    capacities: Capacities,
    config: &Config,
) -> Result<Tables> {
    let paths = new.paths();
    let mut ebpf = object::create(paths, capacities)?;
    let tables = Tables::open_unchecked(paths, Access::ReadWrite)?;
    tables.set_meta(&Meta {
        layout_version: LAYOUT_VERSION,
        reserved: 0,
        netns_cookie: new.id(),
        boot_id: netns::boot_id()?,
    })?;
    tables.set_config(config)?;
    for name in object::programs() {
        object::load_program(&mut ebpf, name, &paths.program(name))?;
    }
    // Whoever may read the maps may also ask what would become of a packet.
    new.share(&paths.program(demux_common::layout::program::EXPLAIN))?;
    Ok(tables)
}
