//! The Debian package.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    VERSION,
    contents::{DOCUMENTS, packaging},
    tree::{DATA, PROGRAM, Tree},
};
use crate::process;

/// Makes `demux_VERSION_amd64.deb` in `directory`.
///
/// # Errors
/// When dpkg-deb does not make it.
pub(super) fn make(contents: &Tree, work: &Path, directory: &Path, epoch: &str) -> Result<PathBuf> {
    let mut tree = contents.clone();
    let copyright = packaging("debian/copyright")?;
    tree.add(format!("{DOCUMENTS}/copyright"), copyright, DATA);
    // What dpkg is told is none of the files that it sums up.
    tree.merge(&control(&tree, work)?);
    let root = work.join("deb");
    tree.write(&root)?;
    let package = directory.join(format!("demux_{VERSION}_amd64.deb"));
    process::output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .args([&root, &package])
            .env("SOURCE_DATE_EPOCH", epoch)
            // Several threads would make blocks, and another file.
            .env("DPKG_DEB_THREADS_MAX", "1"),
    )?;
    Ok(package)
}

/// The directory DEBIAN for what is in `tree`.
fn control(tree: &Tree, work: &Path) -> Result<Tree> {
    let text = String::from_utf8(packaging("debian/control")?).context("control is not UTF-8")?;
    let text = text
        .replace("@VERSION@", VERSION)
        .replace("@INSTALLED_SIZE@", &tree.installed_kib().to_string());
    let mut control = Tree::default();
    control.add("DEBIAN/control", text, DATA);
    control.add("DEBIAN/conffiles", packaging("debian/conffiles")?, DATA);
    for script in ["postinst", "prerm", "postrm"] {
        let content = packaging(&format!("debian/{script}"))?;
        control.add(format!("DEBIAN/{script}"), content, PROGRAM);
    }
    control.add("DEBIAN/md5sums", sums(tree, work)?, DATA);
    Ok(control)
}

/// The sum of every file, as `dpkg --verify` compares them.
fn sums(tree: &Tree, work: &Path) -> Result<String> {
    let root = work.join("sums");
    tree.write(&root)?;
    let mut md5sum = Command::new("md5sum");
    md5sum.current_dir(&root).arg("--");
    md5sum.args(tree.files().map(|(path, _)| path));
    process::output(&mut md5sum)
}
