//! `demux load`: attach to interfaces.

use std::time::Duration;

use demux_common::config::{Policy, Track};

use super::{
    Outcome,
    context::{Context, cannot_write},
    words::Words,
};
use crate::{
    Error, Result,
    attach::{EgressChoice, Hook, ModeChoice},
    load::{self, LoadOptions, Loaded},
    render::{CheckRow, LoadedRow, bytes, write_checks},
};

const MODES: Words<ModeChoice> = Words {
    what: "mode",
    words: &[
        (
            "auto",
            ModeChoice::Auto,
            "in the driver if it can, else generic",
        ),
        ("native", ModeChoice::Native, "in the driver"),
        (
            "generic",
            ModeChoice::Generic,
            "behind the driver, on socket buffers",
        ),
    ],
};

const EGRESS: Words<EgressChoice> = Words {
    what: "egress",
    words: &[
        (
            "auto",
            EgressChoice::Auto,
            "tcx where the kernel has it, else clsact",
        ),
        ("tcx", EgressChoice::Only(Hook::Tcx), "by a link"),
        (
            "clsact",
            EgressChoice::Only(Hook::Clsact),
            "by a filter of the qdisc clsact",
        ),
        ("none", EgressChoice::Nothing, "not at all"),
    ],
};

const DEFAULTS: Words<Policy> = Words {
    what: "default",
    words: &[
        ("pass", Policy::Pass, "up the stack"),
        (
            "drop",
            Policy::Drop,
            "nowhere, where this host would have received them",
        ),
        (
            "reject",
            Policy::Reject,
            "as drop, and the sender is told at once",
        ),
    ],
};

const TRACKS: Words<Track> = Words {
    what: "tracking",
    words: &[
        ("local", Track::Local, "every local endpoint"),
        ("bound", Track::Bound, "those with a binding"),
    ],
};

/// Attach demux to interfaces
///
/// Attaches the XDP program, and one that sees what leaves, and returns; they stay until
/// `demux unload`, whoever ends. Where the kernel refuses the latter, the former works alone.
/// With the default of `pass`, and without bindings, no packet is lost.
///
/// With `--default drop`, packets of this host that no binding, no connection and no socket of the
/// kernel claims end at the driver; with `--default reject` they are also answered there, by a TCP
/// reset or an ICMP port unreachable. `--try SECONDS` puts that default on probation: unless `demux confirm`
/// runs within that time, the default is `pass` again, even if every demux process is dead and the
/// machine can no longer be reached.
///
/// On an interface that is loaded already this is a note where every given option equals the
/// running one, and otherwise a conflict (exit status 5) that names the command to apply them.
///
/// It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; CAP_DAC_OVERRIDE where the BPF file system, or what is pinned
/// there, belongs to another user, as to root; CAP_SYS_ADMIN only to mount that file system.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The interfaces
    #[arg(required = true, value_name = "IFACE")]
    interfaces: Vec<String>,
    /// How to attach [default: auto]
    #[arg(long, value_name = "MODE", value_parser = MODES)]
    mode: Option<ModeChoice>,
    /// How to see what leaves [default: auto]
    #[arg(long, value_name = "HOOK", value_parser = EGRESS)]
    egress: Option<EgressChoice>,
    /// Where packets go that nothing claims [default: pass]
    #[arg(long, value_name = "POLICY", value_parser = DEFAULTS)]
    default: Option<Policy>,
    /// Which endpoints get rows in the connection table [default: local]
    #[arg(long, value_name = "WHICH", value_parser = TRACKS)]
    track: Option<Track>,
    /// How many rows the connection table has [default: 131072]
    #[arg(long, value_name = "N")]
    max_connections: Option<u32>,
    /// How many bindings there may be [default: 4095]
    #[arg(long, value_name = "N")]
    max_bindings: Option<u32>,
    /// Do not ask the kernel's own sockets before the default applies
    #[arg(long)]
    no_kernel_sockets: bool,
    /// Fall back to pass after so many seconds, unless demux confirm runs
    #[arg(long = "try", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    probation: Option<u32>,
    /// Change nothing; say what loading would be like, and end with 7 if it would fail
    #[arg(long)]
    check: bool,
    /// Load although the default could drop wanted packets
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux load eth0                          attach; every packet goes on to the stack
  demux load eth0 eth1 --mode native       attach to both, in their drivers or not at all
  demux load eth0 --check                  what it would be like
  demux load eth0 --default drop --try 60  drop what nothing claims, for a minute
  demux confirm                            … and for good";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let options = LoadOptions {
            mode: self.mode,
            egress: self.egress,
            default: self.default,
            track: self.track,
            max_connections: self.max_connections,
            max_bindings: self.max_bindings,
            kernel_sockets: self.no_kernel_sockets.then_some(false),
            probation: self.probation.map(|time| Duration::from_secs(time.into())),
            force: self.force,
        };
        if self.check {
            return self.check(context, &options);
        }
        let bpffs = context.bpffs_or_mount()?;
        let loaded = load::load(&bpffs, &self.interfaces, &options)?;
        if context.is_json() {
            let mut list = context.list::<LoadedRow>();
            for loaded in &loaded {
                list.push(&row(loaded)).map_err(cannot_write)?;
            }
            list.finish().map_err(cannot_write)?;
        }
        for loaded in &loaded {
            tell(context, loaded);
        }
        if let Some(first) = loaded.iter().find(|loaded| !loaded.already) {
            context.note(format!(
                "the tables take {}, for up to {} connections",
                bytes(first.memory_bytes),
                first.max_connections,
            ));
            context.detail(format!(
                "they are pinned below {}",
                bpffs.path().join("demux").display()
            ));
            if first.connections > 0 {
                context.note(format!(
                    "connections that existed already: {} entered",
                    first.connections
                ));
            }
            if let Some(note) = &first.connections_note {
                context.note(format!("connections that existed already: {note}"));
            }
            if let Some(seconds) = self.probation {
                context.note(format!(
                    "the default is on probation: pass again in {seconds} s unless you run: demux confirm"
                ));
            }
        }
        Ok(Outcome::Done)
    }

    fn check(&self, context: &mut Context<'_>, options: &LoadOptions) -> Result<Outcome> {
        let bpffs = match context.bpffs() {
            Ok(bpffs) => Some(bpffs),
            Err(Error::NoBpfFs(_)) => None,
            Err(error) => return Err(error),
        };
        let checks = load::check(bpffs.as_ref(), &self.interfaces, options)?;
        let is_ok = checks.iter().all(|check| check.ok);
        if context.is_json() {
            let mut list = context.list::<CheckRow>();
            for check in checks {
                list.push(&CheckRow(check)).map_err(cannot_write)?;
            }
            list.finish().map_err(cannot_write)?;
        } else {
            write_checks(&checks, context.out()).map_err(cannot_write)?;
        }
        Ok(if is_ok { Outcome::Done } else { Outcome::Found })
    }
}

fn row(loaded: &Loaded) -> LoadedRow {
    LoadedRow {
        interface: loaded.interface.clone(),
        ifindex: loaded.ifindex,
        mode: loaded.mode.name(),
        mode_reason: loaded.mode_note.clone(),
        egress: Hook::name_of(loaded.egress),
        egress_note: loaded.egress_note.clone(),
        already: loaded.already,
        connections: loaded.connections,
        connections_note: loaded.connections_note.clone(),
        memory_bytes: loaded.memory_bytes,
    }
}

/// Says how an interface was attached.
pub(super) fn tell(context: &mut Context<'_>, loaded: &Loaded) {
    let (interface, mode) = (&loaded.interface, loaded.mode.name());
    if loaded.already {
        context.note(format!("{interface}: loaded already, in {mode} mode"));
    } else if let Some(reason) = &loaded.mode_note {
        context.warn(format!(
            "{interface}: attached in {mode} mode, which is slower, because {reason}"
        ));
    } else {
        context.note(format!("{interface}: attached in {mode} mode"));
    }
    if let Some(reason) = &loaded.egress_note {
        context.warn(format!("{interface}: egress is {reason}"));
    }
}
