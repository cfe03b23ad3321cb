//! `demux daemon`: what is done in the background.

use std::path::PathBuf;

use super::{Outcome, context::Context};
use crate::{
    Result,
    daemon::{self, DEFAULT_SOCKET, Event, Options, SOCKET_ENVIRONMENT, config},
    load::Followed,
    tables::Swept,
};

/// Work in the background: sweep, follow interfaces and addresses, serve metrics and socket owners
///
/// An interface that vanishes and returns under its name is attached again as it was, unless it was
/// unloaded. Changes of addresses, routes and stations reach the datapath at once. Rows of connections that
/// have expired are swept out. Metrics are served over HTTP where the configuration says.
///
/// Processes without root can own sets of AF_XDP sockets: the daemon holds the sockets and copies frames to
/// and from memory that it shares with one owner each. So several owners can have bindings on one receive
/// queue, none sees the frames of another, and none can send from an endpoint that is not its own. Who may
/// own which set is said in the configuration; without one, only root.
///
/// It runs in the foreground until SIGTERM or SIGINT, and serves one network namespace, which has no other
/// daemon; where demux is not loaded, it waits. SIGHUP makes it read the configuration again; a broken one
/// is refused, and the old one stays. Sets end with it: packets of its owners' bindings then go to the
/// fallbacks of these. All else goes on without it. It needs CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW, and
/// CAP_DAC_OVERRIDE where another user, such as root, has loaded.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Read this configuration and not /etc/demux/demux.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen here; unless given, where the configuration says, else at /run/demux/demux.sock
    #[arg(long, value_name = "PATH", env = SOCKET_ENVIRONMENT, hide_env_values = true)]
    socket: Option<PathBuf>,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux daemon                                     serve this network namespace
  demux -N blue daemon --socket /run/demux/blue.sock

  /etc/demux/demux.toml:
    [daemon]
    sweep = \"30s\"                                or \"off\"
    metrics = \"127.0.0.1:9478\"                   not served unless given

    [[owner]]
    user = \"alice\"
    sets = [\"web\"]                                 those of: demux bind tcp :80 --to xsk:web";

const _: () = {
    // The help above names them.
    assert!(matches!(
        DEFAULT_SOCKET.as_bytes(),
        b"/run/demux/demux.sock"
    ));
    assert!(matches!(
        config::DEFAULT_PATH.as_bytes(),
        b"/etc/demux/demux.toml"
    ));
};

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let options = Options {
            config: self.config.clone(),
            socket: self.socket.clone(),
            bpffs: context.bpffs_path().map(Into::into),
        };
        daemon::run(&options, &mut |event| match event {
            Event::Ready { socket } => context.note(format!("listening on {}", socket.display())),
            Event::Exporting { address } => {
                context.note(format!("metrics at http://{address}/metrics"));
            }
            Event::Loaded { is_new, interfaces } => {
                let what = if is_new { "found demux" } else { "demux is" };
                context.detail(format!("{what} on {interfaces} interfaces"));
            }
            Event::Unloaded => context.detail("demux is not loaded any more"),
            Event::Followed(followed) => tell_followed(context, followed),
            Event::Swept(Swept { expired, .. }) => {
                context.detail(format!("swept out {expired} expired rows"));
            }
            Event::Trouble(error) => context.warn(error.to_string()),
            Event::Configured => context.note("the configuration was read again"),
            Event::Misconfigured(error) => {
                context.warn(format!("{error}; the old configuration stays"));
            }
            Event::Deaf(error) => context.warn(error.to_string()),
            Event::Opened { set, pid, user } => {
                context.note(format!("set {set}: opened by process {pid} of {user}"));
            }
            Event::Closed { set, pid } => {
                context.note(format!("set {set}: closed, was process {pid}'s"));
            }
        })?;
        Ok(Outcome::Done)
    }
}

fn tell_followed(context: &mut Context<'_>, followed: Followed) {
    match followed {
        Followed::Attached {
            interface,
            mode,
            note,
        } => {
            context.note(format!(
                "{interface} is back, and attached again in {} mode",
                mode.name()
            ));
            if let Some(note) = note {
                context.warn(format!("{interface}: {note}"));
            }
        }
        Followed::Refused {
            interface, error, ..
        } => context.warn(format!("{interface} is back, and not attached: {error}")),
        Followed::Station { interface } => {
            context.note(format!("the station address of {interface} is another now"));
        }
    }
}
