//! `cargo xtask setup`: provide what cargo alone does not, a compiler and a linker for BPF.
//!
//! Everything lands in `target/toolchain`; nothing on the system is installed, removed or
//! replaced, so removing that directory undoes it all.

mod debian;
mod linker;
mod rustup;
mod stamp;
mod tools;

use std::{
    fs::{self, File},
    path::PathBuf,
};

use anyhow::{Context as _, Result, anyhow};

use crate::workspace;

pub(crate) use tools::Tools;

/// Provide the BPF toolchain in target/toolchain
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Provide what the tests need too: bpftool, nmap, qemu, kernels and more
    #[arg(long)]
    tests: bool,
}

/// A compiler and a linker for BPF, of the same LLVM major version.
pub(crate) struct Toolchain {
    /// A rustc with the sources of `core`.
    pub(crate) rustc: PathBuf,
    /// Where that rustc finds its shared libraries, if not beside itself.
    pub(crate) libraries: Option<PathBuf>,
    /// bpf-linker.
    pub(crate) linker: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Toolchain { rustc, linker, .. } = toolchain()?;
    eprintln!("setup: compiler {}", workspace::shown(&rustc));
    eprintln!("setup: linker {}", workspace::shown(&linker));
    if args.tests {
        tools()?;
        for version in crate::vm::VERSIONS {
            crate::vm::kernel::provide(version)?;
        }
    }
    Ok(())
}

/// The BPF toolchain, fetched first if it is not there.
///
/// # Errors
/// When none can be had; the error names the commands that would change that.
pub(crate) fn toolchain() -> Result<Toolchain> {
    let directory = workspace::toolchain();
    let _lock = lock()?;
    if let Some(toolchain) = stamp::read(&directory) {
        return Ok(toolchain);
    }
    let toolchain = rustup::provide(&directory).or_else(|no_rustup| {
        eprintln!("setup: not by rustup: {no_rustup:#}");
        eprintln!("setup: trying Debian packages instead");
        debian::provide(&directory).map_err(|no_debian| {
            anyhow!(
                "no BPF toolchain can be had\n  \
                 by rustup: {no_rustup:#}\n  \
                 by Debian packages: {no_debian:#}\n  \
                 To fix it: `rustup toolchain install {nightly} --component rust-src` \
                 where rustup can download, then `cargo xtask setup`",
                nightly = rustup::NIGHTLY,
            )
        })
    })?;
    stamp::write(&directory, &toolchain)?;
    Ok(toolchain)
}

/// The programs that tests call, fetched first if they are not there.
///
/// # Errors
/// When one is missing and cannot be fetched.
pub(crate) fn tools() -> Result<Tools> {
    let _lock = lock()?;
    Tools::provide(&workspace::toolchain().join("tests"))
}

/// Keeps two runs from fetching into the same directory.
fn lock() -> Result<File> {
    let directory = workspace::toolchain();
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let path = directory.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
