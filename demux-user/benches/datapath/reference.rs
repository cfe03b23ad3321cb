//! The object with the programs that demux is compared with, loaded.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use aya::{Ebpf, programs::Xdp};

use crate::arena::Arena;

/// One copy of the object, with maps of its own.
pub(crate) struct Reference {
    ebpf: Ebpf,
}

impl Reference {
    /// Loads the object and these programs of it, and attaches them where nothing arrives.
    pub(crate) fn load(path: &Path, arena: &Arena<'_>, programs: &[&str]) -> Self {
        let mut ebpf = Ebpf::load_file(path)
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
}
