//! `cargo xtask build`: the BPF object, then the `demux` binary that embeds it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{process, setup, workspace};

/// The binary of demux-ebpf that is demux; another is there for the benchmark.
const PROGRAMS: &str = "demux-ebpf";

/// The target of everything that runs on a machine, given to cargo so that flags for it do not reach
/// build scripts and macros, which cannot be linked statically.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Build the BPF programs and the demux binary that embeds them
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Optimise; always the case, the option is for fingers that type it
    #[arg(long)]
    release: bool,
    /// Log a line for each packet, for `demux log` to print; slow
    #[arg(long)]
    log: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { release: _, log } = args;
    let demux = if *log { logging_demux()? } else { demux()? };
    eprintln!("build: {}", workspace::shown(&demux));
    Ok(())
}

/// Builds everything and returns the `demux` binary, which needs no shared library.
pub(crate) fn demux() -> Result<PathBuf> {
    object()?;
    process::run(static_cargo("build").args(["--release", "--package", "demux-user"]))?;
    Ok(workspace::target().join(TARGET).join("release/demux"))
}

/// The cargo command `command`, which links what it builds with the C library for good.
pub(crate) fn static_cargo(command: &str) -> Command {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(remapped(None));
    let mut cargo = process::cargo();
    cargo
        .args([command, "--target", TARGET])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS");
    cargo
}

/// Builds an example of demux-user, which lands where [`example`] says.
pub(crate) fn build_example(name: &str) -> Result<()> {
    let mut cargo = static_cargo("build");
    process::run(cargo.args(["--release", "--package", "demux-user", "--example", name]))
}

/// Where an example is that was built together with this `demux`.
pub(crate) fn example(demux: &Path, name: &str) -> PathBuf {
    demux.with_file_name("examples").join(name)
}

/// As [`demux`], with the features that log packets; beside the other, and not instead of it.
fn logging_demux() -> Result<PathBuf> {
    const FEATURE: [&str; 2] = ["--features", "log"];
    let target = workspace::target().join("log");
    let mut bpf = cargo_bpf(&setup::toolchain()?);
    process::run(
        bpf.args(["--bin", PROGRAMS])
            .args(FEATURE)
            .arg("--target-dir")
            .arg(target.join("bpf")),
    )?;
    let mut cargo = process::cargo();
    cargo
        .args(["build", "--release", "--package", "demux-user"])
        .args(FEATURE)
        .arg("--target-dir")
        .arg(&target)
        .env(
            "DEMUX_BPF_OBJECT",
            target.join("bpf/bpfel-unknown-none/release/demux-ebpf"),
        );
    process::run(&mut cargo)?;
    Ok(target.join("release/demux"))
}

/// Builds the BPF programs as `target/bpf/demux.o`, where the build of demux-user looks.
pub(crate) fn object() -> Result<PathBuf> {
    built_object(PROGRAMS, "demux.o")
}

/// Builds what the benchmark measures demux against as `target/bpf/reference.o`.
pub(crate) fn reference_object() -> Result<PathBuf> {
    built_object("reference", "reference.o")
}

fn built_object(binary: &str, name: &str) -> Result<PathBuf> {
    let mut cargo = cargo_bpf(&setup::toolchain()?);
    process::run(
        cargo
            .args(["--bin", binary, "--target-dir"])
            .arg(bpf_target()),
    )?;
    let built = bpf_target().join("bpfel-unknown-none/release").join(binary);
    let object = bpf_target().join(name);
    copy_if_changed(&built, &object)?;
    Ok(object)
}

/// Builds the BPF programs and fails on warnings; builds nothing twice, unlike `-D warnings`.
pub(crate) fn object_without_warnings() -> Result<()> {
    let mut cargo = cargo_bpf(&setup::toolchain()?);
    cargo.arg("--target-dir").arg(bpf_target());
    process::run(cargo.args(["-Zwarnings", "--config", "build.warnings='deny'"]))
}

fn bpf_target() -> PathBuf {
    workspace::target().join("bpf")
}

/// The cargo command that builds the BPF programs.
fn cargo_bpf(toolchain: &setup::Toolchain) -> Command {
    let mut cargo = process::cargo();
    cargo
        .args(["build", "--package", "demux-ebpf", "--release"])
        .args(["-Zbuild-std=core", "--target", "bpfel-unknown-none"])
        .env("RUSTC", &toolchain.rustc)
        // Lets a stable cargo accept -Z, and a release compiler compile `core`.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(toolchain).join("\x1f"))
        .env_remove("RUSTFLAGS");
    match &toolchain.libraries {
        Some(libraries) => cargo.env("LD_LIBRARY_PATH", libraries),
        None => cargo.env_remove("LD_LIBRARY_PATH"),
    };
    cargo
}

fn rustflags(toolchain: &setup::Toolchain) -> Vec<String> {
    let mut flags = vec![
        format!("-Clinker={}", toolchain.linker.display()),
        // BTF names the fields of keys and values in map dumps, and is made from debug info.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Memory is copied and cleared by plain stores. In the order that this would ask for, it
        // is cleared by calls of a function that writes one byte at a time.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        // Atomic compare-and-exchange; Linux 5.12.
        "-Ctarget-cpu=v3".to_owned(),
        // Header fields are read in one load each. The compiler then joins stores to the stack
        // wherever they stand, which the verifier only takes where everything there is aligned.
        // Told to the linker, which makes the code; the compiler would warn that it is unstable.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
    ];
    flags.extend(remapped(Some(toolchain)));
    flags
}

/// Flags that keep the directories of the machine that builds out of what is built. The workspace becomes
/// `.` so that the linker of BPF, which runs there, still finds the source lines it puts into BTF.
fn remapped(toolchain: Option<&setup::Toolchain>) -> Vec<String> {
    let mut flags = Vec::new();
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    // The last one that matches counts, and the toolchain may lie inside the workspace.
    remap(&workspace::root(), ".");
    if let Some(cargo_home) = cargo_home() {
        remap(&cargo_home, "/cargo");
    }
    let sysroot = toolchain.and_then(|toolchain| toolchain.rustc.parent()?.parent());
    if let Some(sysroot) = sysroot {
        remap(sysroot, "/rust");
        // What lies inside the workspace is compiled by its relative path.
        if let Ok(relative) = sysroot.strip_prefix(workspace::root()) {
            remap(relative, "/rust");
        }
    }
    flags
}

fn cargo_home() -> Option<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(home) => Some(home.into()),
        None => Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")),
    }
}

/// An untouched copy keeps cargo from building demux-user again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let partial = to.with_extension("partial");
    let written: io::Result<()> = fs::write(&partial, new).and_then(|()| fs::rename(&partial, to));
    written.with_context(|| format!("cannot write {}", to.display()))
}
