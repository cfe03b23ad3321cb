//! Programs that tests call and a system may lack: found, or unpacked beside the toolchain.

use std::{
    env, fs, iter,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{apt, process};

/// A program and the Debian packages that have it and its data.
const PROGRAMS: [(&str, &str); 10] = [
    ("bpftool", "bpftool"),
    ("curl", "curl"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("mandoc", "mandoc"),
    ("nmap", "nmap"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("systemd-analyze", "systemd"),
    ("systemd-sysusers", "systemd"),
    ("zsh-static", "zsh-static zsh-common"),
];

/// Where unpacked programs keep the data that they look for below `/usr/share`, and the option that
/// tells them: programs that begin with the first word, the option, the directories.
const DATA: [(&str, &str, &[&str]); 2] = [
    ("qemu", "-L", &["usr/share/qemu", "usr/share/seabios"]),
    ("nmap", "--datadir", &["usr/share/nmap"]),
];

/// As [`DATA`], of a program that reads a list of directories from a variable.
const LISTS: [(&str, &str, &[&str]); 1] = [(
    "zsh",
    "FPATH",
    &[
        "usr/share/zsh/functions/Completion",
        "usr/share/zsh/functions/Completion/Base",
        "usr/share/zsh/functions/Completion/Unix",
        "usr/share/zsh/functions/Completion/Zsh",
    ],
)];

/// Where below a directory of libraries some are that only an installed program finds: one of nmap's, those
/// of systemd.
const ALTERNATIVES: [&str; 2] = ["blas", "systemd"];

/// The programs that tests call.
pub(crate) struct Tools {
    /// To be put in front of `PATH`.
    pub(crate) path: PathBuf,
    /// A busybox that needs no shared library: the user space of test VMs.
    pub(crate) busybox: PathBuf,
}

impl Tools {
    /// Finds the programs, and fetches those that the system lacks.
    pub(super) fn provide(directory: &Path) -> Result<Self> {
        let path = directory.join("bin");
        let root = directory.join("root");
        let busybox = root.join("bin/busybox");
        let missing: Vec<_> = PROGRAMS
            .into_iter()
            .filter(|(program, _)| process::find(program).is_none())
            .collect();
        let is_there = |(program, _): &(&str, &str)| path.join(program).exists();
        if !busybox.exists() || !missing.iter().all(is_there) {
            apt::require("busybox-static")?;
            let mut packages = vec!["busybox-static".to_owned()];
            let more = missing.iter().flat_map(|(_, names)| names.split(' '));
            packages.extend(more.map(str::to_owned));
            apt::Packages::resolve(apt::with_missing_dependencies(&packages))?.unpack(&root)?;
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
            for (program, _) in missing {
                wrap(program, &root, &path)?;
            }
        }
        Ok(Self { path, busybox })
    }
}

/// Makes `program` below `root` callable from `directory`.
///
/// A script, because a library path in the environment would reach the programs under test.
fn wrap(program: &str, root: &Path, directory: &Path) -> Result<()> {
    let binary = ["usr/bin", "usr/sbin", "bin", "sbin"]
        .into_iter()
        .map(|parent| root.join(parent).join(program))
        .find(|path| path.exists())
        .with_context(|| format!("the package of {program} does not contain it"))?;
    let quoted = |path: &Path| process::quoted(path.as_os_str());
    let libraries = apt::library_directories(root).into_iter().flat_map(|path| {
        let alternatives = ALTERNATIVES.map(|name| path.join(name));
        iter::once(path).chain(alternatives.into_iter().filter(|path| path.is_dir()))
    });
    let mut line = format!(
        "LD_LIBRARY_PATH={} exec {}",
        process::quoted(&env::join_paths(libraries)?),
        quoted(&binary)
    );
    for (_, option, directories) in DATA.iter().filter(|(name, ..)| program.starts_with(name)) {
        for data in *directories {
            line += &format!(" {option} {}", quoted(&root.join(data)));
        }
    }
    for (_, variable, directories) in LISTS.iter().filter(|(name, ..)| program.starts_with(name)) {
        let list = env::join_paths(directories.iter().map(|data| root.join(data)))?;
        line = format!("{variable}={} {line}", process::quoted(&list));
    }
    let script = directory.join(program);
    fs::write(&script, format!("#!/bin/sh\n{line} \"$@\"\n"))
        .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", script.display()))
}
