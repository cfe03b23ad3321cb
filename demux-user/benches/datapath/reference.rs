//! The object with the programs that demux is compared with, loaded.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::Path,
};

use aya::{Ebpf, EbpfLoader, maps::Map, programs::Xdp};
use demux_user::bpf;

use crate::{
    arena::Arena,
    walk::{self, Walk},
};

/// How many rows the tables have that are looked up in a random order.
pub(crate) const ROWS: u32 = 1 << 20;

/// A place in the map of programs that frames are handed on to.
#[derive(Clone, Copy)]
pub(crate) enum Next {
    Noop = 0,
    Demux = 1,
    Hash = 2,
}

/// One copy of the object, with maps of its own.
pub(crate) struct Reference {
    ebpf: Ebpf,
}

impl Reference {
    /// Loads the object and these programs of it, and attaches them where nothing arrives.
    pub(crate) fn load(path: &Path, arena: &Arena<'_>, programs: &[&str]) -> Self {
        // The tables are large, and take their memory at once.
        let mut loader = EbpfLoader::new();
        for (map, user) in [("HASH", "hash_random"), ("LINES", "rows_random")] {
            if !programs.contains(&user) {
                loader.map_max_entries(map, 1);
            }
        }
        let mut ebpf = loader
            .load_file(path)
            .unwrap_or_else(|error| panic!("cannot load {}: {error:?}", path.display()));
        for name in programs {
            let program: &mut Xdp = ebpf
                .program_mut(name)
                .unwrap_or_else(|| panic!("the object has no program {name}"))
                .try_into()
                .expect("an XDP program");
            program
                .load()
                .unwrap_or_else(|error| panic!("cannot load {name}: {error:?}"));
        }
        let reference = Self { ebpf };
        for name in programs {
            arena.attach(reference.program(name));
        }
        reference
    }

    /// A program that was loaded.
    pub(crate) fn program(&self, name: &str) -> BorrowedFd<'_> {
        let program = self.ebpf.program(name).expect("a program of the object");
        program.fd().expect("a loaded program").as_fd()
    }

    /// Hands frames on to a program.
    pub(crate) fn set_next(&self, place: Next, program: BorrowedFd<'_>) {
        let key = (place as u32).to_ne_bytes();
        let value = program.as_raw_fd().to_ne_bytes();
        bpf::map_update(self.map("NEXT"), &key, &value, 0).expect("a place for the program");
    }

    /// Begins a walk, which the programs go on with from one run to the next.
    pub(crate) fn set_walk(&self, walk: Walk) {
        let value = walk.to_bytes();
        bpf::map_update(self.map("WALK"), &[0; 4], &value, 0).expect("a walk");
    }

    /// Begins a walk where the last one has ended, so that no run takes the same way.
    pub(crate) fn change_walk(&self, walk: Walk) {
        let index = Walk::index_of(&self.walk()) & walk.mask;
        self.set_walk(Walk { index, ..walk });
    }

    /// A check that all but a thousandth of the lookups of the walk have found something.
    pub(crate) fn expects_hits(&self) -> impl FnMut(u64) -> Result<(), String> + '_ {
        |runs| {
            let misses = Walk::misses_of(&self.walk());
            if u64::from(misses) <= runs / 1000 {
                return Ok(());
            }
            Err(format!("{misses} of {runs} lookups found nothing"))
        }
    }

    fn walk(&self) -> [u8; size_of::<Walk>()] {
        let mut value = [0; size_of::<Walk>()];
        bpf::map_lookup(self.map("WALK"), &[0; 4], &mut value).expect("the walk");
        value
    }

    /// Fills the hash map: under the four-tuple of each index the index that follows it.
    pub(crate) fn fill_hash(&self, walk: Walk) {
        let mut keys = Vec::new();
        let mut values = Vec::new();
        for index in 0..ROWS {
            keys.extend(walk::key(index).iter().flat_map(|word| word.to_ne_bytes()));
            values.extend(u64::from(walk.after(index)).to_ne_bytes());
        }
        let (done, result) =
            bpf::map_update_batch(self.map("HASH"), &keys, &values, ROWS as usize, 0);
        result.unwrap_or_else(|error| panic!("{error} after {done} rows"));
    }

    /// A map of the object.
    pub(crate) fn map(&self, name: &str) -> BorrowedFd<'_> {
        match self.ebpf.map(name) {
            Some(Map::Array(map) | Map::HashMap(map) | Map::ProgramArray(map)) => map.fd().as_fd(),
            other => panic!("{name} is {other:?}"),
        }
    }
}
