//! bpf-linker, built against the LLVM of the compiler whose bitcode it will read.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// The release of bpf-linker.
pub(super) const VERSION: &str = "0.13.0";

/// The LLVM major versions that this release can be built for.
const SUPPORTED: [u32; 3] = [21, 22, 23];

/// The libLLVM in one of `directories`.
pub(super) fn llvm_library(directories: &[PathBuf]) -> Result<PathBuf> {
    directories
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| major_version(path).is_some() && !path.is_symlink())
        .with_context(|| format!("there is no libLLVM.so.N in {directories:?}"))
}

/// Builds bpf-linker for `library`, unless an earlier run did.
pub(super) fn provide(directory: &Path, name: &str, library: &Path) -> Result<PathBuf> {
    let root = directory.join(format!("bpf-linker-{name}"));
    let linker = root.join("bin/bpf-linker");
    if works(&linker) {
        return Ok(linker);
    }
    let major = major_version(library).unwrap_or_default();
    if !SUPPORTED.contains(&major) {
        bail!("bpf-linker {VERSION} cannot be built for LLVM {major}");
    }
    eprintln!("setup: building bpf-linker {VERSION} for LLVM {major} (about a minute)");
    let prefix = root.join("llvm");
    link_as_libllvm(library, &prefix)?;
    let mut rpath = library.to_path_buf();
    rpath.pop();
    process::output(
        process::cargo()
            .args(["install", "bpf-linker", "--locked", "--force", "--no-track"])
            .args(["--version", VERSION, "--no-default-features"])
            .args(["--features", &format!("llvm-{major}")])
            .arg("--root")
            .arg(&root)
            .env("LLVM_PREFIX", &prefix)
            .env("LD_LIBRARY_PATH", &rpath)
            .env_remove("RUSTFLAGS")
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                format!("-Clink-arg=-Wl,-rpath,{}", rpath.display()),
            )
            // The time goes into LLVM, which is compiled already.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    )?;
    if !works(&linker) {
        bail!("{} was built but does not start", linker.display());
    }
    Ok(linker)
}

fn works(linker: &Path) -> bool {
    process::output(Command::new(linker).arg("--version"))
        .is_ok_and(|printed| printed.trim().ends_with(VERSION))
}

/// Gives `library` the name that bpf-linker's build script looks for below `prefix`.
fn link_as_libllvm(library: &Path, prefix: &Path) -> Result<()> {
    let directory = prefix.join("lib");
    let link = directory.join("libLLVM.so");
    fs::create_dir_all(&directory)
        .and_then(|()| match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => symlink(library, &link),
        })
        .with_context(|| format!("cannot make {}", link.display()))
}

/// N of a file called `libLLVM.so.N.…`.
fn major_version(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let version = name.strip_prefix("libLLVM.so.")?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::major_version;

    #[test]
    fn the_llvm_version_is_read_from_the_file_name() {
        let of = |name| major_version(Path::new("/lib").join(name).as_path());
        assert_eq!(of("libLLVM.so.22.1-rust-1.97.0-nightly"), Some(22));
        assert_eq!(of("libLLVM.so.22.1"), Some(22));
        assert_eq!(of("libLLVM-22.so"), None);
    }
}
