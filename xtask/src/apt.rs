//! Debian packages as a source of files: downloaded and unpacked, never installed.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{process, workspace};

/// Packages that can be downloaded, with their size.
pub(crate) struct Packages {
    names: Vec<String>,
    bytes: u64,
}

impl Packages {
    /// The newest versions of `names`.
    ///
    /// # Errors
    /// When apt does not know one of them.
    pub(crate) fn resolve(names: impl IntoIterator<Item = String>) -> Result<Self> {
        let names: Vec<String> = names.into_iter().collect();
        // One line per package: 'URI' file size hash.
        let uris = process::output(apt_get().args(["download", "--print-uris"]).args(&names))?;
        let sizes = uris
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2));
        let bytes = sizes.filter_map(|size| size.parse::<u64>().ok()).sum();
        Ok(Self { names, bytes })
    }

    /// Downloads the packages and unpacks them as the directory `into`, which appears only
    /// when all is done.
    ///
    /// # Errors
    /// When a download or the unpacking fails; `into` does not exist then.
    pub(crate) fn unpack(&self, into: &Path) -> Result<()> {
        let Self { names, bytes } = self;
        eprintln!(
            "setup: downloading {} MB of Debian packages for {}: {}",
            bytes.div_ceil(1_000_000),
            workspace::shown(into),
            names.join(" ")
        );
        let partial = into.with_extension("partial");
        let archives = into.with_extension("debs");
        for directory in [&partial, &archives] {
            remove(directory)?;
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let download =
            || process::output(apt_get().arg("download").args(names).current_dir(&archives));
        if download().is_err() {
            // The mirror may have moved on since the lists were fetched. What was downloaded by then may
            // be of other versions than the rest will be.
            update_lists()?;
            for entry in fs::read_dir(&archives)? {
                fs::remove_file(entry?.path())?;
            }
            download()?;
        }
        for entry in fs::read_dir(&archives)? {
            process::run(
                Command::new("dpkg")
                    .arg("-x")
                    .arg(entry?.path())
                    .arg(&partial),
            )?;
        }
        remove(into)?;
        fs::rename(&partial, into).with_context(|| {
            format!("cannot rename {} to {}", partial.display(), into.display())
        })?;
        remove(&archives)
    }
}

/// Makes sure that apt can be asked about `package`.
///
/// # Errors
/// When there is no apt, or it does not know the package even with fresh lists.
pub(crate) fn require(package: &str) -> Result<()> {
    if process::find("apt-get").is_none() || process::find("dpkg").is_none() {
        bail!("this system has no apt-get and dpkg");
    }
    if is_known(package) {
        return Ok(());
    }
    update_lists()?;
    if !is_known(package) {
        bail!("apt knows no package {package}; add a repository that has it (Debian 12 or later)");
    }
    Ok(())
}

/// Names of packages that match the regular expression `pattern`.
///
/// # Errors
/// When apt-cache fails.
pub(crate) fn search(pattern: &str) -> Result<Vec<String>> {
    let found =
        process::output(Command::new("apt-cache").args(["search", "--names-only", pattern]))?;
    let names = found
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

/// The packages that `package` depends on directly.
///
/// # Errors
/// When apt-cache fails.
pub(crate) fn dependencies(package: &str) -> Result<Vec<String>> {
    let listed = process::output(Command::new("apt-cache").args(["depends", package]))?;
    let names = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(names.map(str::to_owned).collect())
}

/// `packages` and everything they need that this system does not have.
pub(crate) fn with_missing_dependencies(packages: &[String]) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = packages.iter().cloned().collect();
    let simulation = process::output(
        apt_get()
            .args(["--simulate", "--no-install-recommends", "install"])
            .args(packages),
    );
    // A system where these cannot be installed may have what they need all the same.
    for line in simulation.unwrap_or_default().lines() {
        if let Some(name) = line
            .strip_prefix("Inst ")
            .and_then(|rest| rest.split(' ').next())
        {
            all.insert(name.to_owned());
        }
    }
    all
}

/// The directories below the unpacked `root` that hold shared libraries, as `LD_LIBRARY_PATH`.
pub(crate) fn library_path(root: &Path) -> OsString {
    let directories = library_directories(root);
    std::env::join_paths(directories).unwrap_or_default()
}

/// The directories below the unpacked `root` that hold shared libraries.
pub(crate) fn library_directories(root: &Path) -> Vec<PathBuf> {
    let multiarch = ["usr/lib", "lib"]
        .into_iter()
        .filter_map(|parent| fs::read_dir(root.join(parent)).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let is_multiarch = |path: &PathBuf| path.to_string_lossy().ends_with("-linux-gnu");
    multiarch.filter(is_multiarch).collect()
}

fn is_known(package: &str) -> bool {
    let show = process::output(Command::new("apt-cache").args(["show", package]));
    show.is_ok_and(|text| !text.trim().is_empty())
}

fn update_lists() -> Result<()> {
    if !process::is_root() {
        bail!("apt's package lists are missing or old; run `sudo apt-get update` and try again");
    }
    eprintln!("setup: apt's package lists are missing or old: apt-get update");
    process::output(apt_get().arg("update")).map(drop)
}

fn apt_get() -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.args(["--quiet", "--option", "APT::Sandbox::User=root"]);
    apt_get.env("DEBIAN_FRONTEND", "noninteractive");
    apt_get
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}
