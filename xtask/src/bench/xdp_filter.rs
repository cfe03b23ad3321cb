//! xdp-filter, the packet filter of xdp-tools: found, or unpacked beside the toolchain.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{apt, process, workspace};

const PACKAGE: &str = "xdp-tools";
const PROGRAM: &str = "xdp-filter";

/// An executable that is xdp-filter.
///
/// # Errors
/// When the system has none and none can be unpacked.
pub(super) fn provide() -> Result<PathBuf> {
    if let Some(program) = process::find(PROGRAM) {
        return Ok(program);
    }
    let directory = workspace::toolchain().join("bench");
    let root = directory.join("root");
    let script = directory.join(PROGRAM);
    if script.exists() {
        return Ok(script);
    }
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    apt::require(PACKAGE)?;
    apt::Packages::resolve(apt::with_missing_dependencies(&[PACKAGE.to_owned()]))?.unpack(&root)?;
    // A script, because a library path in the environment would reach other programs too.
    let libraries = apt::library_path(&root);
    let objects = apt::library_directories(&root)
        .into_iter()
        .map(|libraries| libraries.join("bpf"))
        .find(|objects| objects.exists())
        .with_context(|| format!("the package {PACKAGE} contains no BPF objects"))?;
    let quoted = |path: PathBuf| process::quoted(path.as_os_str());
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={} LIBXDP_OBJECT_PATH={} exec {} \"$@\"\n",
        process::quoted(&libraries),
        quoted(objects),
        quoted(root.join("usr/sbin").join(PROGRAM)),
    );
    fs::write(&script, text)
        .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", script.display()))?;
    Ok(script)
}
