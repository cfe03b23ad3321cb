//! What the main thread does: it waits, and everything that takes time is done elsewhere.

use std::{
    cell::{Cell, RefCell},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    rc::Rc,
};

use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use super::{
    DEFAULT_SOCKET, Event, Options, PAUSE,
    activation::Given,
    blocking::blocking,
    config::Config,
    follow::{self, Ear},
    http::Exporter,
    listener::Listener,
    look,
    service::Manager,
    session::{self, Shared},
    sets::{Sets, Worker},
    single::Single,
    state::State,
    sweep,
    watch::watch as watch_fd,
};
use crate::{Error, Result, bpffs::BpfFs, netns::NetworkNamespace, xsk::registry};

/// Serves until SIGTERM or SIGINT.
pub(super) async fn serve(
    options: &Options,
    config: Config,
    tell: &mut dyn FnMut(Event),
) -> Result<()> {
    let catch = |kind| signal(kind).map_err(|source| Error::io("wait for signals", source));
    let mut hangup = catch(SignalKind::hangup())?;
    let mut terminate = catch(SignalKind::terminate())?;
    let mut interrupt = catch(SignalKind::interrupt())?;
    let mut manager = Manager::find();

    let given = Given::take()?;
    let listener = match given.owners {
        Some(listener) => listener,
        None => Listener::open(
            options
                .socket
                .as_deref()
                .or(config.service.socket.as_deref())
                .unwrap_or(Path::new(DEFAULT_SOCKET)),
        )?,
    };
    let _single = Single::acquire(NetworkNamespace::current()?.cookie())?;
    let (mut exporter, is_given) = match (given.metrics, config.service.metrics) {
        (Some(exporter), _) => (Some(exporter), true),
        (None, Some(address)) => (Some(Exporter::open(address)?), false),
        (None, None) => (None, false),
    };
    let ear = Ear::open()?;
    let arrivals = listener
        .as_fd()
        .try_clone_to_owned()
        .and_then(watch_fd)
        .map_err(|source| Error::io("wait for connections", source))?;

    let (events, mut happened) = mpsc::unbounded_channel();
    let shared = Rc::new(Shared {
        sets: Worker::start(Sets::new(options.bpffs.clone())?)?,
        config: RefCell::new(config),
        path: options.config.clone(),
        bpffs: options.bpffs.clone(),
        instance: watch::Sender::new(None),
        configured: watch::Sender::new(()),
        follow: Notify::new(),
        counts: Cell::default(),
        users: RefCell::default(),
        events,
    });
    let mut background = JoinSet::new();
    background.spawn_local(reap(Rc::clone(&shared)));
    // Sources of events, and whatever else is done beside serving owners.
    background.spawn_local(look::run(Rc::clone(&shared)));
    background.spawn_local(follow::run(Rc::clone(&shared), ear));
    background.spawn_local(sweep::run(Rc::clone(&shared)));
    let mut metrics = Metrics::default();
    if let Some(exporter) = exporter.take() {
        metrics.serve(exporter, &mut background, &shared, tell)?;
    }

    let mut state = State::default();
    let mut sessions = JoinSet::new();
    tell(Event::Ready {
        socket: listener.path().to_owned(),
    });
    manager.ready(&state.to_string());
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
            // They end with the daemon, or panic.
            Some(ended) = background.join_next() => if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            },
            Some(event) = happened.recv() => {
                if state.see(&event, &shared.counts) {
                    manager.status(&state.to_string());
                }
                tell(event);
            }
            _ = hangup.recv() => {
                manager.reloading();
                let path = shared.path.clone();
                let result = match blocking(move || Config::read(path.as_deref())).await {
                    Ok(config) => {
                        let address = config.service.metrics;
                        shared.config.replace(config);
                        shared.configured.send_replace(());
                        if is_given {
                            Ok(())
                        } else {
                            metrics.change(address, &mut background, &shared, tell)
                        }
                    }
                    Err(error) => Err(error),
                };
                tell(match result {
                    Ok(()) => Event::Configured,
                    Err(error) => Event::Misconfigured(error),
                });
                manager.ready(&state.to_string());
            }
            () = manager.alive(), if shared.sets.is_alive() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    manager.stopping();
    // Nobody connects any more, and then every set is closed.
    drop((arrivals, listener));
    background.shutdown().await;
    sessions.shutdown().await;
    shared.sets.flush();
    while let Ok(event) = happened.try_recv() {
        tell(event);
    }
    Ok(())
}

/// Gives back what a daemon has left that was killed. Where demux is not loaded, there is nothing.
async fn reap(shared: Rc<Shared>) {
    let bpffs = shared.bpffs.clone();
    let _ =
        blocking(move || BpfFs::find(bpffs.as_deref()).and_then(|bpffs| registry::reap(&bpffs)))
            .await;
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

/// Metrics that are served, and where.
#[derive(Debug, Default)]
struct Metrics {
    address: Option<std::net::SocketAddr>,
    task: Option<AbortHandle>,
}

impl Metrics {
    fn serve(
        &mut self,
        exporter: Exporter,
        background: &mut JoinSet<()>,
        shared: &Rc<Shared>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<()> {
        tell(Event::Exporting {
            address: exporter.address()?,
        });
        self.address = shared.config.borrow().service.metrics;
        self.task = Some(background.spawn_local(exporter.serve(Rc::clone(shared))));
        Ok(())
    }

    /// Serves them elsewhere, if the configuration says so.
    fn change(
        &mut self,
        address: Option<std::net::SocketAddr>,
        background: &mut JoinSet<()>,
        shared: &Rc<Shared>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<()> {
        if address == self.address {
            return Ok(());
        }
        let exporter = address.map(Exporter::open).transpose()?;
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.address = None;
        match exporter {
            Some(exporter) => self.serve(exporter, background, shared, tell),
            None => Ok(()),
        }
    }
}
