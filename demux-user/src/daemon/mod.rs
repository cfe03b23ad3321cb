//! `demux daemon`: what is done in the background for the instance of a network namespace.
//!
//! ```text
//!   signals, owners ─▶ main_loop ─▶ session, one for each owner ─▶ sets (a thread) ─▶ hub (a thread for each queue)
//!                        │ background
//!                        ├─ look     which instance is there?
//!                        ├─ follow   interfaces and addresses, as rtnetlink tells of them
//!                        ├─ sweep    rows that have expired
//!                        └─ http     metrics
//! ```
//!
//! A session asks `config` and `peer` who may own what, and speaks `protocol`; `sets` has the queues that
//! are in use; a `hub` moves frames between a queue and its owners, each with a `gate` that knows its
//! `rights`.
//!
//! The daemon keeps nothing: what it holds ends with it, and with the owner, and what it follows it looks up
//! when it starts. When it is killed the kernel closes its sockets, and packets go to the fallbacks of
//! their bindings; the programs on the interfaces go on.

mod activation;
mod blocking;
mod changes;
pub mod config;
mod counters;
mod follow;
mod gate;
mod http;
mod hub;
mod listener;
mod look;
mod main_loop;
pub mod peer;
pub mod protocol;
mod rights;
mod service;
mod session;
mod sets;
mod single;
mod state;
mod sweep;
pub mod transport;
mod watch;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::task::LocalSet;

use self::config::Config;
use crate::{
    Error, Result,
    capability::{Capability, require},
    load::Followed,
    tables::Swept,
};

/// Where the daemon listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/demux/demux.sock";

/// The environment variable that names another socket.
pub const SOCKET_ENVIRONMENT: &str = "DEMUX_SOCKET";

/// How long accepting pauses where it fails, as it does without descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// How the daemon is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The configuration file; that of [`config::DEFAULT_PATH`] need not be there.
    pub config: Option<PathBuf>,
    /// Where to listen; by default where the configuration says, or at [`DEFAULT_SOCKET`]. A socket of the
    /// service manager comes first.
    pub socket: Option<PathBuf>,
    /// Where the BPF file system is, if it is not at its usual place.
    pub bpffs: Option<PathBuf>,
}

/// What has happened, for whoever watches.
#[derive(Debug)]
pub enum Event {
    /// Owners can connect.
    Ready {
        /// Where.
        socket: PathBuf,
    },
    /// Metrics can be read.
    Exporting {
        /// Where.
        address: SocketAddr,
    },
    /// The configuration was read again, and holds from now on.
    Configured,
    /// The configuration was read again and refused: the old one holds.
    Misconfigured(Error),
    /// There is an instance, or its interfaces are others.
    Loaded {
        /// It is another one than before, or there was none.
        is_new: bool,
        /// How many interfaces it has.
        interfaces: usize,
    },
    /// There is no instance any more.
    Unloaded,
    /// Something was done about an interface, or could not be.
    Followed(Followed),
    /// The connection table was swept.
    Swept(Swept),
    /// Something cannot be done for the moment.
    Trouble(Error),
    /// A set was opened, or registered.
    Opened {
        /// Its name.
        set: String,
        /// The process that owns it.
        pid: u32,
        /// The user of that process.
        user: String,
    },
    /// A set was closed.
    Closed {
        /// Its name.
        set: String,
        /// The process that owned it.
        pid: u32,
    },
    /// No connection can be accepted for the moment.
    Deaf(Error),
}

/// Runs the daemon until SIGTERM or SIGINT, and calls `tell` with what happens.
///
/// It serves the network namespace of the calling thread.
///
/// # Errors
///
/// [`Error::MissingCapability`]; [`Error::BadConfiguration`]; [`Error::DaemonRunning`];
/// [`Error::NamespaceServed`]; and where a socket cannot be made.
pub fn run(options: &Options, tell: &mut dyn FnMut(Event)) -> Result<()> {
    require(
        "run the daemon",
        &[Capability::Bpf, Capability::NetAdmin, Capability::NetRaw],
    )?;
    let config = Config::read(options.config.as_deref())?;
    let reactor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::io("start the reactor", source))?;
    let tasks = LocalSet::new();
    reactor.block_on(tasks.run_until(main_loop::serve(options, config, tell)))
}
