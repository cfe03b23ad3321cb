//! A kernel to boot: the newest of its version that Debian builds for virtual machines.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{apt, workspace};

/// An unpacked kernel package.
pub(crate) struct Kernel {
    /// The image that boots.
    pub(crate) image: PathBuf,
    /// The modules, `lib/modules/<release>`.
    pub(crate) modules: PathBuf,
}

/// Finds the kernel of `version`, such as 6.1, and fetches it if it is not there.
///
/// # Errors
/// When Debian has no such package or it cannot be downloaded.
pub(crate) fn provide(version: &str) -> Result<Kernel> {
    let root = workspace::toolchain().join("kernels").join(version);
    if !root.exists() {
        fetch(version, &root)?;
    }
    Ok(Kernel {
        image: only_entry(&root.join("boot"), "vmlinuz-")?,
        modules: only_entry(&root.join("lib/modules"), "")?,
    })
}

fn fetch(version: &str, root: &Path) -> Result<()> {
    apt::require("linux-image-cloud-amd64")?;
    let pattern = format!(
        r"^linux-image-{}[.-][0-9].*cloud-amd64$",
        version.replace('.', r"\.")
    );
    let newest = apt::search(&pattern)?
        .into_iter()
        .max_by_key(|name| numbers(name))
        .with_context(|| {
            format!(
                "no package matches {pattern}; \
                 `apt-cache search linux-image` lists the kernels that there are"
            )
        })?;
    apt::Packages::resolve([newest])?.unpack(root)
}

/// The numbers in `name`, which order releases as `sort --version-sort` would.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf> {
    fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .with_context(|| format!("{} has no {prefix}*", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn releases_are_ordered_by_number_and_not_by_letter() {
        let older = "linux-image-6.12.9+deb12-cloud-amd64";
        let newer = "linux-image-6.12.107+deb12-cloud-amd64";
        assert!(numbers(older) < numbers(newer));
    }
}
