//! Remembers the toolchain that was provided, so that the next run has nothing to do.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Toolchain, linker, rustup};

/// The toolchain that an earlier run finished, if this xtask would provide the same.
pub(super) fn read(directory: &Path) -> Option<Toolchain> {
    let text = fs::read_to_string(directory.join("stamp")).ok()?;
    let mut lines = text.lines();
    if lines.next()? != recipe() {
        return None;
    }
    let mut path = || lines.next().map(PathBuf::from);
    let (rustc, linker, libraries) = (path()?, path()?, path());
    let toolchain = Toolchain {
        rustc,
        libraries,
        linker,
    };
    (toolchain.rustc.exists() && toolchain.linker.exists()).then_some(toolchain)
}

/// Notes that `toolchain` is complete.
pub(super) fn write(directory: &Path, toolchain: &Toolchain) -> Result<()> {
    let Toolchain {
        rustc,
        libraries,
        linker,
    } = toolchain;
    let mut text = format!("{}\n{}\n{}\n", recipe(), rustc.display(), linker.display());
    if let Some(libraries) = libraries {
        text += &format!("{}\n", libraries.display());
    }
    let path = directory.join("stamp");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn recipe() -> String {
    format!("{} bpf-linker {}", rustup::NIGHTLY, linker::VERSION)
}
