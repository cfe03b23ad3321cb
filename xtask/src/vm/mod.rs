//! Runs the kernel tests in a virtual machine with another kernel.
//!
//! A machine is Debian's kernel package, busybox and one statically linked test binary. It
//! has no disk and no network, and is thrown away afterwards.

mod guest;
mod initramfs;
pub(crate) mod kernel;
mod modules;
mod qemu;

use std::fs;

use anyhow::{Context as _, Result};

use crate::{setup::Tools, tally::Tally, workspace};

pub(crate) use guest::Guest;

/// The kernels that `cargo xtask test` boots.
pub(crate) const VERSIONS: [&str; 2] = ["6.1", "6.12"];

/// Boots kernel `version` with `guest` in it, counts the results of its tests, and calls `show` with what
/// they print.
///
/// # Errors
/// When the machine cannot be made or started, does not end in time, or ends on its own.
pub(crate) fn run(
    version: &str,
    guest: &Guest,
    tools: &Tools,
    verbose: bool,
    show: &mut dyn FnMut(String),
) -> Result<Tally> {
    let kernel = kernel::provide(version)?;
    let directory = workspace::target().join("vm");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let initrd = directory.join(format!("{version}.cpio"));
    initramfs::write(&initrd, &kernel, guest, tools)?;
    let machine = qemu::Machine {
        version,
        image: &kernel.image,
        initrd: &initrd,
        log: &directory.join(format!("{version}.log")),
    };
    machine.run(tools, verbose, show)
}
