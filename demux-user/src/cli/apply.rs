//! `demux apply`: make the running state what a file asks for.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    Outcome,
    context::{Context, cannot_write},
    load,
};
use crate::{
    Error, Result,
    apply::{self, Action, Applied, Change, Options},
    configuration::{self, Configuration, Fault, Faults, check::check},
    render::{ChangeRow, FaultRow, write_changes, write_faults},
};

/// Make the running state what a file asks for
///
/// FILE is TOML: [[interface]] has the options of demux load, [settings] the keys of demux set,
/// [[binding]] the options of demux bind, and [instance] max_connections and max_bindings; demux schema
/// describes it, and demux export writes one. A directory stands for its demux.toml and then demux.d/*.toml,
/// - for standard input; without FILE it is /etc/demux.
///
/// Only what differs is changed, all of it or nothing: where something is refused or fails, what was
/// done before is undone. A binding is known again by its name, or by its endpoints where the file gives none;
/// one that is replaced goes from its old target to its new one with no packet in between. Where
/// nothing is loaded, the interfaces of the file are, with the bindings already in place. SIGTERM, SIGINT
/// and SIGHUP wait until the change is complete.
///
/// What the file does not name stays as it is. With --prune bindings that it does not name end, and
/// interfaces are detached; settings always stay.
///
/// Needs CAP_BPF and CAP_NET_ADMIN, CAP_PERFMON where interfaces are attached, and CAP_NET_BIND_SERVICE for
/// privileged ports; --check needs nothing but the file, and --diff what reading needs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The file, a directory, or - [default: /etc/demux]
    file: Option<PathBuf>,
    /// Change nothing; say what is wrong with the file, and end with 7 if anything is
    #[arg(long, conflicts_with_all = ["diff", "prune", "force"])]
    check: bool,
    /// Change nothing; say what would change, and end with 7 if anything would
    #[arg(long)]
    diff: bool,
    /// End bindings and detach interfaces that the file does not name
    #[arg(long)]
    prune: bool,
    /// Set defaults although they could drop wanted packets
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux apply                              what /etc/demux/demux.toml and demux.d/*.toml say
  demux apply --check web.toml             is it right?
  demux apply --diff --prune web.toml      what would change?
  demux export > now.toml                  the running state …
  demux apply --prune now.toml             … and back to it";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let sources = configuration::read(self.file.as_deref());
        let configuration = match sources.and_then(|sources| check(&sources)) {
            Ok(configuration) => configuration,
            Err(Error::Faulty(Faults(faults))) if self.check => {
                tell_faults(context, &faults)?;
                return Ok(Outcome::Found);
            }
            Err(Error::Faulty(faults)) => {
                let mut text = Vec::new();
                write_faults(&faults.0, &mut text).map_err(cannot_write)?;
                for line in String::from_utf8_lossy(&text).lines() {
                    context.note(line);
                }
                return Err(Error::Faulty(faults));
            }
            Err(error) => return Err(error),
        };
        if self.check {
            tell_faults(context, &[])?;
            context.note(summary(&configuration));
            return Ok(Outcome::Done);
        }
        if self.diff {
            return self.diff(context, &configuration);
        }
        self.apply(context, &configuration)
    }

    fn diff(&self, context: &mut Context<'_>, configuration: &Configuration) -> Result<Outcome> {
        let bpffs = match context.bpffs() {
            Ok(bpffs) => Some(bpffs),
            Err(Error::NoBpfFs(_)) => None,
            Err(error) => return Err(error),
        };
        let changes = apply::diff(bpffs.as_ref(), configuration, self.prune)?;
        let is_same = changes.is_empty();
        if is_same {
            context.note("no change");
        }
        tell_changes(context, changes, true)?;
        Ok(if is_same {
            Outcome::Done
        } else {
            Outcome::Found
        })
    }

    fn apply(&self, context: &mut Context<'_>, configuration: &Configuration) -> Result<Outcome> {
        let bpffs = if configuration.interfaces.is_empty() {
            context.bpffs()?
        } else {
            context.bpffs_or_mount()?
        };
        let options = Options {
            prune: self.prune,
            force: self.force,
        };
        let bar = bar(context);
        let applied = apply::apply(&bpffs, configuration, options, &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        tell_applied(context, applied?)?;
        Ok(Outcome::Done)
    }
}

/// A bar for people who wait; hidden where nobody looks.
fn bar(context: &Context<'_>) -> ProgressBar {
    if context.is_quiet() || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("bindings {bar:40} {pos}/{len}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn summary(configuration: &Configuration) -> String {
    let files: Vec<String> = configuration
        .files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    format!(
        "{}: right; {}, {}",
        files.join(", "),
        count(configuration.interfaces.len(), "interface"),
        count(configuration.bindings.len(), "binding"),
    )
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn tell_faults(context: &mut Context<'_>, faults: &[Fault]) -> Result<()> {
    if !context.is_json() {
        return write_faults(faults, context.out()).map_err(cannot_write);
    }
    let mut list = context.list::<FaultRow>();
    for fault in faults {
        list.push(&FaultRow(fault.clone())).map_err(cannot_write)?;
    }
    list.finish().map_err(cannot_write)
}

/// Changes are a result where they are asked for, and else for those who want to know more.
fn tell_changes(context: &mut Context<'_>, changes: Vec<Change>, is_asked: bool) -> Result<()> {
    if context.is_json() {
        let mut list = context.list::<ChangeRow>();
        for change in changes {
            list.push(&ChangeRow(change)).map_err(cannot_write)?;
        }
        return list.finish().map_err(cannot_write);
    }
    if is_asked {
        let is_styled = context.is_styled();
        return write_changes(&changes, is_styled, context.out()).map_err(cannot_write);
    }
    for change in changes {
        context.detail(change.to_string());
    }
    Ok(())
}

fn tell_applied(context: &mut Context<'_>, applied: Applied) -> Result<()> {
    let of = |action| {
        let changes = applied.changes.iter();
        changes.filter(|change| change.action == action).count()
    };
    let text = if applied.changes.is_empty() {
        "no change".to_owned()
    } else {
        format!(
            "{} added, {} changed, {} removed",
            of(Action::Add),
            of(Action::Change),
            of(Action::Remove)
        )
    };
    tell_changes(context, applied.changes, false)?;
    for loaded in &applied.loaded {
        load::tell(context, loaded);
    }
    context.note(text);
    if let Some(reason) = applied.shortcoming {
        context.warn(format!(
            "processes are not kept from binding the same ports: {reason}"
        ));
    }
    Ok(())
}
