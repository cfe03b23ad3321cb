//! Replacing the programs of a running instance, with its maps and every connection kept.
//!
//! The new programs are loaded upon the maps that are there, which takes the verifier a second or two,
//! while nothing is locked and nothing is changed. Then, under the lock:
//!
//! 1. the new programs are pinned beside the old ones;
//! 2. `META` says that the programs are neither of one build nor of the other;
//! 3. both directories of pins change places in one step: from here on, commands use the new programs;
//! 4. link by link and filter by filter, the new programs run in place of the old ones;
//! 5. `META` says of which build they are, and the old pins are removed.
//!
//! Both have one layout, so whatever runs meanwhile, old or new, does the same on the same maps; an
//! interface may have the old program for what arrives and the new one for what leaves. Where a step
//! fails, those before it are undone. Who is killed leaves old and new programs at work, and `META`
//! says so: the next upgrade does all of it again.

use std::collections::HashMap;

use aya::Ebpf;
use demux_common::layout::{Meta, map, program};

use crate::{
    Error, Result,
    attach::replace::Places,
    bpffs::BpfFs,
    load::require_system,
    netns::NetworkNamespace,
    object,
    state::{Instance, Lock, Paths},
    tables::{Access, Tables},
};

/// How often an instance that somebody removes and loads again meanwhile is tried.
const ATTEMPTS: u32 = 3;

/// Which build the programs of an instance are of, compared with the object of this binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// The same.
    Current,
    /// Another one.
    Other,
    /// Some of one and some of another: an upgrade was killed.
    Mixed,
}

impl Build {
    /// What `META` says.
    #[must_use]
    pub fn of(meta: &Meta) -> Self {
        match meta.build {
            0 => Self::Mixed,
            build if build == object::build() => Self::Current,
            _ => Self::Other,
        }
    }

    /// The word for it in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Other => "other",
            Self::Mixed => "mixed",
        }
    }
}

/// What came of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// Whether programs were replaced; not where those that run are of this build.
    pub changed: bool,
    /// The build of the programs that ran before; 0 where they were of several.
    pub before: u32,
    /// The build of those that run now.
    pub build: u32,
    /// The names of the programs that were loaded.
    pub programs: Vec<&'static str>,
    /// In how many places a program runs instead of another one: links and filters.
    pub places: usize,
    /// What could not be replaced, and why.
    pub note: Option<String>,
}

/// Has the programs of this binary run in place of those of the instance; where they are the same, only
/// with `force`.
///
/// # Errors
///
/// [`Error::NotLoaded`], [`Error::LayoutMismatch`], [`Error::MissingCapability`], and what the verifier
/// refuses; the old programs then run as before.
pub fn upgrade(bpffs: &BpfFs, force: bool) -> Result<Upgraded> {
    require_system()?;
    let cookie = NetworkNamespace::current()?.cookie();
    for _ in 0..ATTEMPTS {
        let instance = Instance::open(bpffs, cookie, Lock::Shared)?;
        let tables = Tables::open(&instance, Access::ReadOnly)?;
        object::check_maps(instance.paths(), &tables)?;
        let meta = tables.meta()?;
        if Build::of(&meta) == Build::Current && !force {
            return Ok(Upgraded {
                changed: false,
                before: meta.build,
                build: meta.build,
                programs: Vec::new(),
                places: 0,
                note: None,
            });
        }
        let mut new = Programs::prepare(instance.paths(), &tables)?;
        // Others need not wait for the verifier.
        drop(instance);
        new.load()?;
        let instance = Instance::open(bpffs, cookie, Lock::Exclusive)?;
        let tables = Tables::open(&instance, Access::ReadWrite)?;
        if tables.info(map::CONFIG)?.id == new.config_id {
            return new.replace(&instance, &tables);
        }
    }
    Err(Error::unexpected(
        "upgrade the programs",
        "demux was unloaded and loaded again each time",
    ))
}

/// Programs that are to take the place of those of an instance.
struct Programs {
    ebpf: Ebpf,
    /// The kernel's id of a map that they are for.
    config_id: u32,
    wanted: Vec<&'static str>,
    loaded: Vec<&'static str>,
}

impl Programs {
    /// Prepares all that the instance has: those that every one has, and those that were loaded when
    /// they were first needed.
    fn prepare(paths: &Paths, tables: &Tables) -> Result<Self> {
        Ok(Self {
            ebpf: object::open(paths, tables)?,
            config_id: tables.info(map::CONFIG)?.id,
            wanted: wanted(paths),
            loaded: Vec::new(),
        })
    }

    fn load(&mut self) -> Result<()> {
        for name in &self.wanted {
            if !self.loaded.contains(name) {
                object::load_unpinned(&mut self.ebpf, name)?;
                self.loaded.push(name);
            }
        }
        Ok(())
    }

    fn replace(mut self, instance: &Instance, tables: &Tables) -> Result<Upgraded> {
        let paths = instance.paths();
        let groups: Vec<u64> = tables.exec_groups()?.iter().map(|(id, _)| *id).collect();
        let places = Places::find(paths, &groups)?;
        // Others may have come to need more meanwhile.
        self.wanted.extend(wanted(paths));
        self.wanted.extend(places.programs());
        self.load()?;
        let meta = tables.meta()?;
        let done = self.pin(instance).and_then(|()| {
            let new = self
                .loaded
                .iter()
                .map(|name| Ok((*name, object::program_fd(&self.ebpf, name)?)))
                .collect::<Result<HashMap<_, _>>>()?;
            tables.set_meta(&Meta { build: 0, ..meta })?;
            instance.exchange_programs()?;
            places.replace(paths, &new).inspect_err(|_| {
                // What cannot be undone is as after a command that was killed.
                let _ = instance.exchange_programs();
            })
        });
        if let Err(error) = done {
            tables.set_meta(&meta)?;
            instance.remove_next_programs()?;
            return Err(error);
        }
        let build = object::build();
        tables.set_meta(&Meta { build, ..meta })?;
        instance.remove_next_programs()?;
        Ok(Upgraded {
            changed: true,
            before: meta.build,
            build,
            programs: self.loaded,
            places: places.places.len(),
            note: places.note,
        })
    }

    /// Pins those that an instance keeps by pins; the others are kept by their links.
    fn pin(&mut self, instance: &Instance) -> Result<()> {
        let paths = instance.paths();
        instance.create_next_programs()?;
        for name in &self.loaded {
            if !program::BIND.contains(name) {
                object::pin(&mut self.ebpf, name, &paths.next_program(name))?;
            }
        }
        instance.share(&paths.next_program(program::EXPLAIN))
    }
}

/// The programs that an instance has.
fn wanted(paths: &Paths) -> Vec<&'static str> {
    let when_needed = [program::CONNECT_V4, program::CONNECT_V6, program::SENT];
    let are_pinned = when_needed
        .into_iter()
        .filter(|name| paths.program(name).exists());
    let are_linked = program::BIND
        .iter()
        .copied()
        .filter(|name| paths.bind_link(name).exists());
    let always = object::programs().iter().copied();
    always.chain(are_pinned).chain(are_linked).collect()
}
