//! `demux daemon`: lets processes without capabilities own sets of AF_XDP sockets, several on one queue,
//! none of which sees the frames of another.
//!
//! ```text
//!             main thread                          a thread for each queue in use
//!   socket ─▶ session, one for each owner ──▶ sets ──▶ hub ◀──▶ UMEM ◀──▶ kernel
//!             asks config and peer,                     ▲
//!             speaks protocol                           └─ port, one for each owner ◀──▶ region ◀──▶ owner
//!                                                            with its gate and rights
//! ```
//!
//! The daemon keeps nothing: what it holds ends with it, and with the owner. When it is killed the kernel
//! closes its sockets, and packets go to the fallbacks of their bindings.

pub mod config;
mod counters;
mod gate;
mod hub;
mod links;
mod listener;
pub mod peer;
pub mod protocol;
mod registered;
mod rights;
mod session;
mod sets;
pub mod transport;
mod watch;

use std::{
    cell::RefCell,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::{JoinSet, LocalSet},
    time::sleep,
};

use self::{
    config::Config, links::Links, listener::Listener, session::Shared, sets::Sets, watch::watch,
};
use crate::{
    Error, Result,
    bpffs::BpfFs,
    capability::{Capability, require},
    xsk::registry,
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
    /// Where to listen; by default where the configuration says, or at [`DEFAULT_SOCKET`].
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
    /// The configuration was read again, and holds from now on.
    Configured,
    /// The configuration was read again and refused: the old one holds.
    Misconfigured(Error),
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
/// [`Error::MissingCapability`]; [`Error::BadConfiguration`]; [`Error::DaemonRunning`]; and where the
/// socket file cannot be made.
pub fn run(options: &Options, tell: &mut dyn FnMut(Event)) -> Result<()> {
    require(
        "run the daemon",
        &[Capability::Bpf, Capability::NetAdmin, Capability::NetRaw],
    )?;
    let config = Config::read(options.config.as_deref())?;
    // What a daemon has left that was killed. Where demux is not loaded, there is nothing.
    let _ = BpfFs::find(options.bpffs.as_deref()).and_then(|bpffs| registry::reap(&bpffs));
    let socket = options
        .socket
        .as_deref()
        .or(config.socket.as_deref())
        .unwrap_or(Path::new(DEFAULT_SOCKET))
        .to_owned();
    let (events, happened) = mpsc::unbounded_channel();
    let shared = Rc::new(Shared {
        config: RefCell::new(config),
        path: options.config.clone(),
        sets: RefCell::new(Sets::new(options.bpffs.clone())?),
        users: RefCell::default(),
        events,
    });
    let reactor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::io("start the reactor", source))?;
    let tasks = LocalSet::new();
    reactor.block_on(tasks.run_until(main_loop(shared, &socket, happened, tell)))
}

/// Everything that the main thread does.
async fn main_loop(
    shared: Rc<Shared>,
    socket: &Path,
    mut happened: mpsc::UnboundedReceiver<Event>,
    tell: &mut dyn FnMut(Event),
) -> Result<()> {
    let catch = |kind| signal(kind).map_err(|source| Error::io("wait for signals", source));
    let mut hangup = catch(SignalKind::hangup())?;
    let mut terminate = catch(SignalKind::terminate())?;
    let mut interrupt = catch(SignalKind::interrupt())?;
    let listener = Listener::open(socket)?;
    let arrivals = listener
        .as_fd()
        .try_clone_to_owned()
        .and_then(watch)
        .map_err(|source| Error::io("wait for connections", source))?;
    let links = Links::open()?;
    let mut sessions = JoinSet::new();
    tell(Event::Ready {
        socket: socket.to_owned(),
    });
    loop {
        tokio::select! {
            accepted = accept(&listener, &arrivals) => match accepted {
                Ok(connection) => {
                    sessions.spawn_local(session::serve(Rc::clone(&shared), connection));
                }
                Err(error) => {
                    tell(Event::Deaf(error));
                    sleep(PAUSE).await;
                }
            },
            Some(_) = sessions.join_next() => {}
            Some(event) = happened.recv() => tell(event),
            _ = hangup.recv() => match Config::read(shared.path.as_deref()) {
                Ok(config) => {
                    shared.config.replace(config);
                    tell(Event::Configured);
                }
                Err(error) => tell(Event::Misconfigured(error)),
            },
            gone = links.gone(|| shared.sets.borrow().interfaces()) => {
                shared.sets.borrow().lose(&gone);
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    // Nobody connects any more, and then every set is closed.
    drop((arrivals, listener));
    sessions.shutdown().await;
    while let Ok(event) = happened.try_recv() {
        tell(event);
    }
    Ok(())
}

async fn accept(listener: &Listener, arrivals: &AsyncFd<OwnedFd>) -> Result<OwnedFd> {
    let failed = |source| Error::io("accept a connection", source);
    loop {
        let mut ready = arrivals.readable().await.map_err(failed)?;
        match listener.accept().map_err(failed)? {
            Some(connection) => return Ok(connection),
            None => ready.clear_ready(),
        }
    }
}
