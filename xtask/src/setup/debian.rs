//! The second choice: the compiler that Debian builds for its browsers, and its LLVM.
//!
//! The packages are unpacked, not installed: installing them would remove a user's `rustc`
//! or `rustup` package.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Toolchain, linker};
use crate::apt;

/// Finds the unpacked packages, or fetches them.
pub(super) fn provide(directory: &Path) -> Result<Toolchain> {
    let root = directory.join("root");
    if !root.exists() {
        apt::require("rustc-web")?;
        apt::Packages::resolve(apt::with_missing_dependencies(&packages()?))?.unpack(&root)?;
    }
    let library = linker::llvm_library(&apt::library_directories(&root))?;
    Ok(Toolchain {
        rustc: root.join("usr/bin/rustc"),
        libraries: library.parent().map(Path::to_path_buf),
        linker: linker::provide(directory, "debian", &library)?,
    })
}

/// The compiler, its standard library for this machine, its sources and its LLVM.
fn packages() -> Result<Vec<String>> {
    let library = dependency("libstd-rust-web-dev", "libstd-rust-web-")?;
    let llvm = dependency(&library, "libllvm")?;
    let named = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"];
    Ok(named
        .map(str::to_owned)
        .into_iter()
        .chain([library, llvm])
        .collect())
}

fn dependency(package: &str, prefix: &str) -> Result<String> {
    apt::dependencies(package)?
        .into_iter()
        .find(|name| name.starts_with(prefix))
        .with_context(|| format!("package {package} depends on no {prefix}*"))
}
