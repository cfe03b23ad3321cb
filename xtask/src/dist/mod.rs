//! `cargo xtask dist`: a Debian package and a tarball, in `target/dist`.
//!
//! Both hold the same files. The same sources, toolchain and `SOURCE_DATE_EPOCH` give the same bytes.

mod contents;
mod deb;
mod tarball;
mod third_party;
mod tree;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{build, process, workspace};

/// The version of the packages, which is that of everything here.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Make a Debian package and a tarball in target/dist
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Package this demux, which must be linked statically, and build none
    #[arg(long, value_name = "BINARY")]
    demux: Option<PathBuf>,
    /// Leave the packages here
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    for (program, purpose) in [
        ("dpkg-deb", "makes the package (Debian package dpkg)"),
        ("tar", "makes the tarball"),
        ("gzip", "compresses manual pages"),
        (
            "strip",
            "removes debug information (Debian package binutils)",
        ),
    ] {
        if process::find(program).is_none() {
            bail!("there is no {program}, which {purpose}");
        }
    }
    let demux = match &args.demux {
        Some(demux) => demux.clone(),
        None => build::demux()?,
    };
    let directory = match &args.output {
        Some(directory) => directory.clone(),
        None => workspace::target().join("dist"),
    };
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let epoch = epoch()?;
    let work = directory.join("work");
    tree::remove(&work)?;
    fs::create_dir(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let contents = contents::collect(&demux, &work)?;
    for package in [
        deb::make(&contents, &work, &directory, &epoch)?,
        tarball::make(&contents, &work, &directory, &epoch)?,
    ] {
        let size = fs::metadata(&package)?.len();
        eprintln!(
            "dist: {} ({:.1} MB)",
            workspace::shown(&package),
            size as f64 / 1e6
        );
    }
    tree::remove(&work)
}

/// The time that everything in the packages has, in seconds: `SOURCE_DATE_EPOCH`, or that of the commit.
fn epoch() -> Result<String> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    if let Ok(epoch) = env::var(NAME) {
        if epoch.parse::<u64>().is_err() {
            bail!("{NAME} is {epoch:?}, which is no number of seconds");
        }
        return Ok(epoch);
    }
    let mut git = Command::new("git");
    git.current_dir(workspace::root());
    match process::output(git.args(["log", "-1", "--format=%ct"])) {
        Ok(time) => Ok(time.trim().to_owned()),
        Err(error) => {
            eprintln!("dist: no commit to take the time from, so it is 0; set {NAME}: {error:#}");
            Ok("0".to_owned())
        }
    }
}

/// Runs `program` on the file, and fails as it does.
fn on_file(program: &str, args: &[&str], file: &Path) -> Result<()> {
    process::output(Command::new(program).args(args).arg(file)).map(drop)
}
