//! Making an instance: its maps, its programs, and whose it is.

use demux_common::{
    clock::Clock,
    config::{Config, Track},
    connection::{State, Timeouts},
    layout::{LAYOUT_VERSION, Meta},
};

use crate::{
    Result, clock, netns,
    object::{self, Capacities},
    ports, secret,
    state::NewInstance,
    tables::{Access, Control, Tables},
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
        // Set when the clock can be read.
        lifetimes: [0; State::SLOTS],
        clock: Clock::new(0, clock::tick_ns()),
        events_until: 0,
        trace_until: 0,
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
    let secret = secret::new()?;
    let mut ebpf = object::create(paths, capacities, &secret)?;
    let tables = Tables::open_unchecked(paths, Access::ReadWrite)?;
    tables.set_meta(&Meta {
        layout_version: LAYOUT_VERSION,
        build: object::build(),
        netns_cookie: new.id(),
        boot_id: netns::boot_id()?,
    })?;
    secret::write(paths, &secret)?;
    for name in object::programs() {
        object::load_program(&mut ebpf, name, &paths.program(name))?;
    }
    ports::initialize(&tables)?;
    let mut config = *config;
    config.clock = clock::read(&Control::open(paths)?)?;
    config.renew_lifetimes();
    tables.set_config(&config)?;
    // Whoever may read the maps may also ask what would become of a packet.
    new.share(&paths.program(demux_common::layout::program::EXPLAIN))?;
    Ok(tables)
}
