//! `cargo xtask test`: every test there is, on this kernel and on older ones in virtual machines.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

use crate::{build, elevate, process, setup, tally::Tally, vm};

/// Run the tests here and on other kernels
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the kernel tests, in a virtual machine with this kernel, such as 6.1
    #[arg(long, value_name = "VERSION", conflicts_with = "host")]
    kernel: Vec<String>,
    /// Run no virtual machines
    #[arg(long)]
    host: bool,
    /// Show what the virtual machines print from their first line on
    #[arg(short, long)]
    verbose: bool,
    /// Run only tests whose names contain this
    #[arg(value_name = "FILTER")]
    name_filter: Option<String>,
    /// Arguments of the test binaries
    #[arg(last = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let tools = setup::tools()?;
    let path = process::search_path([tools.path.clone()]);
    let runner = elevate::runner(&path)?;
    build::object()?;
    let kernels: Vec<&str> = match (args.host, args.kernel.as_slice()) {
        (true, _) => Vec::new(),
        (false, []) => vm::VERSIONS.to_vec(),
        (false, named) => named.iter().map(String::as_str).collect(),
    };
    // One after the other, as apt wants it.
    for kernel in &kernels {
        vm::kernel::provide(kernel)?;
    }
    let mut tally = Tally::default();
    let guest = if kernels.is_empty() {
        None
    } else {
        built_guest(args).map_or_else(
            |error| {
                eprintln!("test: {error:#}");
                tally.add(Tally::BROKEN);
                None
            },
            Some,
        )
    };
    // All at once: an emulated machine keeps one CPU busy, and the tests here wait for something half of
    // the time.
    thread::scope(|scope| -> Result<()> {
        let machines: Vec<_> = guest
            .iter()
            .flat_map(|guest| kernels.iter().map(move |kernel| (guest, *kernel)))
            .map(|(guest, kernel)| {
                let tools = &tools;
                scope.spawn(move || in_virtual_machine(args, tools, kernel, guest))
            })
            .collect();
        if args.kernel.is_empty() {
            tally.add(on_this_kernel(args, &path, runner.as_deref())?);
        }
        for (machine, kernel) in machines.into_iter().zip(&kernels) {
            let Ok((output, result)) = machine.join() else {
                bail!("the thread that watches kernel {kernel} has panicked");
            };
            // One after the other, though they ran at once.
            print!("{output}");
            println!("kernel {kernel}: {result}");
            tally.add(result);
        }
        Ok(())
    })?;
    println!("{tally}");
    if tally.failed > 0 {
        bail!("not all tests passed");
    }
    if tally.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

fn on_this_kernel(args: &Args, path: &OsStr, runner: Option<&[String]>) -> Result<Tally> {
    // Linked as for the virtual machines, so that nothing is built twice, and as what is shipped.
    let mut cargo = build::static_cargo("test");
    cargo
        .args(["--workspace", "--exclude", "demux-ebpf"])
        .arg("--no-fail-fast")
        .args(&args.name_filter)
        .env("PATH", path)
        // A test that lacks a privilege or a program fails instead of passing over it.
        .env("DEMUX_REQUIRE_PRIV", "1");
    if let Some(runner) = runner {
        let runner = serde_json::to_string(runner)?;
        cargo
            .arg("--config")
            .arg(format!("target.'cfg(unix)'.runner = {runner}"));
    }
    if !args.args.is_empty() {
        cargo.arg("--").args(&args.args);
    }
    counted(&mut cargo)
}

/// Runs `command`, lets its output through and counts the results in it.
fn counted(command: &mut Command) -> Result<Tally> {
    let shown = process::shown(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.with_context(|| format!("cannot read the output of {shown}"))?;
            println!("{line}");
            tally.read(&line);
        }
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        eprintln!("test: {shown} failed without reporting a test ({status})");
        tally.add(Tally::BROKEN);
    }
    Ok(tally)
}

/// What the virtual machines run.
fn built_guest(args: &Args) -> Result<vm::Guest> {
    let mut test_args: Vec<String> = args.name_filter.iter().cloned().collect();
    test_args.extend(args.args.iter().cloned());
    vm::Guest::build(test_args)
}

/// Runs the tests in a virtual machine; what it prints is kept for later, unless it is the only one.
fn in_virtual_machine(
    args: &Args,
    tools: &setup::Tools,
    kernel: &str,
    guest: &vm::Guest,
) -> (String, Tally) {
    let is_alone = args.kernel.len() == 1;
    let mut output = String::new();
    let mut show = |line: String| {
        if is_alone {
            println!("{line}");
        } else {
            output += &line;
            output.push('\n');
        }
    };
    let result = vm::run(kernel, guest, tools, args.verbose, &mut show);
    let tally = result.unwrap_or_else(|error| {
        eprintln!("test: kernel {kernel}: {error:#}");
        Tally::BROKEN
    });
    (output, tally)
}
