//! The tarball for systems without dpkg: one directory, whose `usr` and `etc` belong below `/`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{
    VERSION,
    contents::read,
    tree::{DATA, Tree},
};
use crate::{process, workspace};

/// What is to be read first.
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];

/// Makes `demux-VERSION-x86_64-linux.tar.gz` in `directory`.
///
/// # Errors
/// When tar does not make it.
pub(super) fn make(contents: &Tree, work: &Path, directory: &Path, epoch: &str) -> Result<PathBuf> {
    let mut tree = contents.clone();
    for name in DOCUMENTS {
        tree.add(name, read(&workspace::root().join(name))?, DATA);
    }
    let name = format!("demux-{VERSION}-x86_64-linux");
    tree.write(&work.join(&name))?;
    let tarball = directory.join(format!("{name}.tar.gz"));
    process::output(
        Command::new("tar")
            .args(["--sort=name", "--format=gnu", "--numeric-owner"])
            .args(["--owner=0", "--group=0", &format!("--mtime=@{epoch}")])
            .args(["--use-compress-program=gzip -9 --no-name", "--create"])
            .arg("--file")
            .arg(&tarball)
            .arg("--directory")
            .arg(work)
            .arg(&name),
    )?;
    Ok(tarball)
}
