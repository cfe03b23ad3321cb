//! Making an instance: its maps, its programs, and whose it is.

use std::{io, os::fd::AsFd as _};

use demux_common::{
    clock::Clock,
    config::{Config, Track},
    connection::{State, Timeouts},
    layout::{LAYOUT_VERSION, Meta, map},
    table::Secret,
};
use zerocopy::IntoBytes as _;

use rustix::rand::GetRandomFlags;

use crate::{
    Error, Result, bpf, clock, netns,
    object::{self, Capacities},
    ports,
    state::{NewInstance, Paths},
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
    let secret = new_secret()?;
    let mut ebpf = object::create(paths, capacities, &secret)?;
    let tables = Tables::open_unchecked(paths, Access::ReadWrite)?;
    tables.set_meta(&Meta {
        layout_version: LAYOUT_VERSION,
        reserved: 0,
        netns_cookie: new.id(),
        boot_id: netns::boot_id()?,
    })?;
    write_secret(paths, &secret)?;
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

fn new_secret() -> Result<Secret> {
    let mut secret = Secret::ZERO;
    rustix::rand::getrandom(secret.as_mut_bytes(), GetRandomFlags::empty())
        .map_err(|source| Error::io("get random numbers".to_owned(), io::Error::from(source)))?;
    Ok(secret)
}

/// Keeps the key of the hash for programs that will be loaded beside the same tables.
fn write_secret(paths: &Paths, secret: &Secret) -> Result<()> {
    let path = paths.map(map::SECRET);
    let failed = |source| Error::io(format!("write {}", path.display()), source);
    let fd = bpf::object_get(&path, false).map_err(failed)?;
    bpf::map_update(fd.as_fd(), 0u32.as_bytes(), secret.as_bytes(), 0).map_err(failed)
}
