//! The packages under test.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use tempfile::TempDir;

use super::stdout;

/// The packages of the `demux` that cargo has built beside xtask, so that nothing is built here.
pub(crate) struct Packages {
    pub(crate) deb: PathBuf,
    pub(crate) tarball: PathBuf,
    /// The package unpacked.
    pub(crate) root: PathBuf,
    _directory: TempDir,
}

/// The packages, made once; none without root or where that `demux` needs shared libraries, as with a plain
/// `cargo test`, unless they are required.
pub(crate) fn packages() -> Option<&'static Packages> {
    static PACKAGES: OnceLock<Option<Packages>> = OnceLock::new();
    PACKAGES.get_or_init(make).as_ref()
}

fn make() -> Option<Packages> {
    let is_required = env::var_os("DEMUX_REQUIRE_PRIV").is_some();
    if !rustix::process::geteuid().is_root() && !is_required {
        eprintln!("left out: needs root");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = dist(directory.path());
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("needs shared libraries") && !is_required {
        eprintln!("left out: `cargo xtask test` builds a demux that can be packaged");
        return None;
    }
    assert!(output.status.success(), "{stderr}");
    let only = |extension: &str| {
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths
            .find(|path| path.to_string_lossy().ends_with(extension))
            .unwrap_or_else(|| panic!("no {extension} was made"))
    };
    let (deb, tarball) = (only(".deb"), only(".tar.gz"));
    let root = directory.path().join("root");
    stdout(Command::new("dpkg-deb").arg("-x").args([&deb, &root]));
    Some(Packages {
        deb,
        tarball,
        root,
        _directory: directory,
    })
}

/// Runs `cargo xtask dist` at a time that no machine has.
pub(crate) fn dist(output: &Path) -> Output {
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let mut command = Command::new(xtask);
    command.arg("dist").arg("--output").arg(output);
    command.arg("--demux").arg(xtask.with_file_name("demux"));
    command.env("SOURCE_DATE_EPOCH", "1000000000");
    command.output().expect("xtask")
}
