//! Kernel modules: which ones a machine loads, in which order.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::setup::Tools;

/// What the kernel tests use and Debian does not build in.
///
/// Nothing in a machine loads modules on demand, hence also those that a running system would
/// load by itself: socket listing, and the clsact hook of kernels before tcx.
const NEEDED: [&str; 9] = [
    "veth",
    "dummy",
    "bridge",
    "8021q",
    "sch_ingress",
    "cls_bpf",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
];

/// A module as the kernel takes it.
pub(super) struct Module {
    /// Its name.
    pub(super) name: String,
    /// The object file, not compressed.
    pub(super) content: Vec<u8>,
}

/// The modules below `directory` (`lib/modules/<release>`), dependencies first.
pub(super) fn in_load_order(directory: &Path, tools: &Tools) -> Result<Vec<Module>> {
    let path = directory.join("modules.builtin");
    let built_in =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let built_in: Vec<String> = built_in
        .lines()
        .map(|line| name_of(Path::new(line)))
        .collect();
    let mut files = BTreeMap::new();
    collect(directory, &mut files)?;
    let mut order = Vec::new();
    for name in NEEDED {
        if !built_in.iter().any(|other| other == name) {
            add(name, &files, tools, &mut order)?;
        }
    }
    Ok(order)
}

/// Adds module `name` to `order`, after what it depends on.
fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    tools: &Tools,
    order: &mut Vec<Module>,
) -> Result<()> {
    if order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let path = files
        .get(name)
        .with_context(|| format!("the kernel package has no module {name}"))?;
    let content = decompressed(path, tools)?;
    for dependency in dependencies(&content) {
        add(&dependency, files, tools, order)?;
    }
    order.push(Module {
        name: name.to_owned(),
        content,
    });
    Ok(())
}

/// The names in the `depends=` line of a module's information section.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let value = module[start + KEY.len()..].split(|&byte| byte == 0).next();
    let names = String::from_utf8_lossy(value.unwrap_or_default());
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

fn decompressed(path: &Path, tools: &Tools) -> Result<Vec<u8>> {
    let mut unpack = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => {
            let mut busybox = Command::new(&tools.busybox);
            busybox.arg("unxz");
            busybox
        }
        Some("zst") => {
            let mut zstd = Command::new("zstd");
            zstd.arg("-d");
            zstd
        }
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let output = unpack
        .arg("-c")
        .arg(path)
        .output()
        .with_context(|| format!("cannot start {unpack:?}"))?;
    if !output.status.success() {
        bail!(
            "{unpack:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}

/// Notes every module file below `directory` under its name.
fn collect(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.to_string_lossy().contains(".ko") {
            files.insert(name_of(&path), path);
        }
    }
    Ok(())
}

/// The name under which the kernel knows the module in file `path`.
fn name_of(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let name = file.split(".ko").next().unwrap_or_default();
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{dependencies, name_of};

    #[test]
    fn dependencies_are_read_from_the_module_itself() {
        let module = b"\x7fELF\0license=GPL\0depends=stp,llc,ip-x\0name=bridge\0";
        assert_eq!(dependencies(module), ["stp", "llc", "ip_x"]);
        assert!(dependencies(b"\0depends=\0name=veth\0").is_empty());
    }

    #[test]
    fn a_module_is_known_by_its_name_and_not_by_its_file() {
        assert_eq!(name_of(Path::new("net/sched/cls-bpf.ko.xz")), "cls_bpf");
    }
}
