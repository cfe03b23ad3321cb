//! The `demux` command: its arguments, and one file for each command.
//!
//! Nouns read and change nothing; verbs change.

mod allocate;
mod bind;
mod bindings;
mod clean;
mod completions;
mod confirm;
mod connections;
mod context;
mod counters;
mod daemon;
mod doctor;
mod dump;
mod events;
mod exec;
mod explain;
mod kill;
mod load;
#[cfg(feature = "log")]
mod log;
mod man;
mod maps;
mod metrics;
mod names;
mod ports;
mod release;
mod set;
mod settings;
mod status;
mod stream;
mod top;
mod trace;
mod unbind;
mod unload;
mod upgrade;
mod usage;
mod words;
mod xsks;

use std::{
    ffi::OsString,
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, ColorChoice, CommandFactory as _, Parser, Subcommand};

use self::context::{Context, Styles};
use crate::{
    Error, Result,
    bpffs::BpfFs,
    render::{ErrorView, Format, write_error},
};

/// Demultiplex TCP and UDP at the network driver.
///
/// demux decides, at the driver, which socket each packet belongs to, and lets you list, steer or
/// refuse it. Nouns (status, bindings, connections, …) read; verbs (load, bind, set, …) change.
///
/// Exit status: 0 done, 1 failed, 2 usage, 3 not loaded or not found, 4 permission, 5 conflict,
/// 6 the kernel lacks a feature, 7 a check found something.
#[derive(Debug, Parser)]
#[command(
    name = "demux",
    bin_name = "demux",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = EXAMPLES
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux load eth0                                  attach; nothing is dropped yet
  demux bind tcp :80 --name web                    bind port 80 of every address
  demux connections state established              who talks to whom
  demux set default@eth0=drop --try 60             drop what nothing claims, for a minute
  demux confirm                                    keep it
  demux explain tcp from 192.0.2.7:40000 to 10.0.0.2:80
  demux unload --all                               detach and remove everything";

/// What every command understands, before or after its name.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Write one JSON document
    #[arg(short, long, global = true)]
    json: bool,
    /// Write one JSON object a line
    #[arg(long, global = true)]
    jsonl: bool,
    /// Write JSON over several lines (implies --json)
    #[arg(long, global = true)]
    pretty: bool,
    /// Leave the header of tables out
    #[arg(short = 'H', long, global = true)]
    no_header: bool,
    /// Work in another network namespace: a name that ip netns knows, or a path
    #[arg(short = 'N', long, global = true, value_name = "NAME|PATH")]
    netns: Option<String>,
    /// Where the BPF file system is; /sys/fs/bpf unless given
    #[arg(long, global = true, value_name = "PATH", env = BpfFs::ENVIRONMENT, hide_env_values = true)]
    bpffs: Option<PathBuf>,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more
    #[arg(short, long, global = true)]
    verbose: bool,
    /// When to use colours
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = false
    )]
    color: ColorChoice,
}

impl Global {
    fn format(&self, styles: Styles) -> Format {
        if self.jsonl {
            Format::JsonLines
        } else if self.json || self.pretty {
            Format::Json {
                pretty: self.pretty,
            }
        } else {
            Format::Table {
                header: !self.no_header,
                styled: styles.out,
            }
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Load(load::Args),
    Unload(unload::Args),
    Confirm(confirm::Args),
    #[cfg(feature = "log")]
    Log(log::Args),
    Set(set::Args),
    Bind(bind::Args),
    Unbind(unbind::Args),
    Allocate(allocate::Args),
    Release(release::Args),
    Kill(kill::Args),
    Status(status::Args),
    Settings(settings::Args),
    Counters(counters::Args),
    Bindings(bindings::Args),
    #[command(visible_alias = "conns")]
    Connections(connections::Args),
    Top(top::Args),
    Ports(ports::Args),
    Xsks(xsks::Args),
    Explain(explain::Args),
    Events(events::Args),
    Trace(trace::Args),
    Doctor(doctor::Args),
    Exec(exec::Args),
    Daemon(daemon::Args),
    Metrics(metrics::Args),
    Maps(maps::Args),
    Dump(dump::Args),
    Upgrade(upgrade::Args),
    Clean(clean::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// A check found something.
    Found,
    /// Some of several things were not done, and the output says which.
    Incomplete,
    /// A command that was run has ended with this status.
    Ended(u8),
}

impl Command {
    fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        match self {
            Self::Load(args) => args.run(context),
            Self::Unload(args) => args.run(context),
            Self::Confirm(args) => args.run(context),
            #[cfg(feature = "log")]
            Self::Log(args) => args.run(context),
            Self::Set(args) => args.run(context),
            Self::Bind(args) => args.run(context),
            Self::Unbind(args) => args.run(context),
            Self::Allocate(args) => args.run(context),
            Self::Release(args) => args.run(context),
            Self::Kill(args) => args.run(context),
            Self::Status(args) => args.run(context),
            Self::Settings(args) => args.run(context),
            Self::Counters(args) => args.run(context),
            Self::Bindings(args) => args.run(context),
            Self::Connections(args) => args.run(context),
            Self::Top(args) => args.run(context),
            Self::Ports(args) => args.run(context),
            Self::Xsks(args) => args.run(context),
            Self::Explain(args) => args.run(context),
            Self::Events(args) => args.run(context),
            Self::Trace(args) => args.run(context),
            Self::Doctor(args) => args.run(context),
            Self::Exec(args) => args.run(context),
            Self::Daemon(args) => args.run(context),
            Self::Metrics(args) => args.run(context),
            Self::Maps(args) => args.run(context),
            Self::Dump(args) => args.run(context),
            Self::Upgrade(args) => args.run(context),
            Self::Clean(args) => args.run(context),
            Self::Completions(args) => args.run(context),
            Self::Man(args) => args.run(context),
        }
    }
}

/// The whole command-line interface, for completions and manual pages.
fn command() -> clap::Command {
    Cli::command()
}

/// How much is written at once: lists may be long.
const OUTPUT: usize = 256 * 1024;

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut out = BufWriter::with_capacity(OUTPUT, io::stdout().lock());
    let mut err = io::stderr().lock();
    ExitCode::from(run(&arguments, &mut out, &mut err))
}

/// Runs a command, and returns the status it ends with.
pub fn run(arguments: &[OsString], out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error, arguments, out, err),
    };
    let styles = Styles::choose(cli.global.color);
    let format = cli.global.format(styles);
    let mut context = Context::new(&cli.global, format, styles, out, err);
    let result = context
        .enter_namespace()
        .and_then(|()| cli.command.run(&mut context))
        .and_then(|outcome| context.flush().map(|()| outcome));
    match result {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::Found) => 7,
        Ok(Outcome::Incomplete) => 1,
        Ok(Outcome::Ended(status)) => status,
        // Whoever read our output has read enough.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            // Where the error cannot be written, the status still tells.
            let _ = write_error(&ErrorView::from(&error), format, styles.err, out, err);
            match cli.command {
                Command::Exec(_) => exec::FAILED,
                _ => error.exit_status(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
