//! A connection, from its beginning to its end, which is also the end of the set that was opened by it.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::unix::AsyncFd,
    sync::{Notify, watch},
    time::sleep,
};

use super::{
    Event,
    config::{Config, DEFAULT_PATH, Limits},
    look,
    peer::{Peer, Watched},
    protocol::{Open, Refusal, Register, Reply, Request, decode, encode},
    sets::{Answer, Close, Kept, OpenSet, RegisteredSet, Sets, Worker},
    transport::{self, Received},
    watch::watch as watch_fd,
};
use crate::{Error, Result, metrics::DaemonCounts};

/// How many connections one user may have who is not root.
const CONNECTIONS: usize = 64;

/// A queue that was given back is busy for a moment more.
const RETRIES: u32 = 50;
const RETRY: Duration = Duration::from_millis(10);

/// What all connections have in common.
pub(super) struct Shared {
    pub(super) config: RefCell<Config>,
    /// The file that the configuration is read from, if it is not the usual one.
    pub(super) path: Option<PathBuf>,
    pub(super) sets: Worker,
    /// The instance that is there: see [`super::look`].
    pub(super) instance: watch::Sender<Option<u32>>,
    /// Where the BPF file system is, if it is not at its usual place.
    pub(super) bpffs: Option<PathBuf>,
    /// Told when the configuration was read again.
    pub(super) configured: watch::Sender<()>,
    /// Asks for everything to be brought up to date.
    pub(super) follow: Notify,
    /// What was done so far.
    pub(super) counts: Cell<DaemonCounts>,
    /// The users of the connections there are.
    pub(super) users: RefCell<Vec<u32>>,
    pub(super) events: tokio::sync::mpsc::UnboundedSender<Event>,
}

/// What a connection holds.
enum Held {
    Nothing,
    Open(Kept<OpenSet>),
    Registered(Kept<RegisteredSet>),
}

struct Session {
    shared: Rc<Shared>,
    connection: AsyncFd<OwnedFd>,
    peer: Peer,
    held: Held,
    /// The instance that the set is in.
    instance: Option<u32>,
}

/// Serves a connection until its owner, or what it owns, has ended.
pub(super) async fn serve(shared: Rc<Shared>, connection: OwnedFd) {
    let peer = match Watched::of(connection.as_fd()) {
        Ok(watched) => watched,
        Err(error) => return refuse(connection.as_fd(), &error),
    };
    let Watched { peer, process } = peer;
    if !peer.is_root() && shared.count(peer.uid) >= CONNECTIONS {
        return refuse(connection.as_fd(), &shared.too_many(&peer));
    }
    let process = watch_fd(process);
    let connection = watch_fd(connection);
    let (Ok(process), Ok(connection)) = (process, connection) else {
        return;
    };
    shared.users.borrow_mut().push(peer.uid);
    let mut session = Session {
        shared: Rc::clone(&shared),
        connection,
        peer,
        held: Held::Nothing,
        instance: None,
    };
    tokio::select! {
        () = session.talk() => {}
        _ = process.readable() => {}
    }
    // Dropping the session closes what it holds.
    let uid = session.peer.uid;
    drop(session);
    let mut users = shared.users.borrow_mut();
    if let Some(place) = users.iter().position(|user| *user == uid) {
        users.swap_remove(place);
    }
}

impl Shared {
    fn count(&self, uid: u32) -> usize {
        self.users
            .borrow()
            .iter()
            .filter(|user| **user == uid)
            .count()
    }

    fn configuration(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(|| DEFAULT_PATH.into())
    }

    fn too_many(&self, peer: &Peer) -> Error {
        Error::OwnerLimit {
            user: peer.user(),
            limit: format!("{CONNECTIONS} connections to the daemon"),
            configuration: self.configuration(),
        }
    }

    /// Says which instance is there, to whoever watches it.
    pub(super) fn seen(&self, instance: Option<u32>) {
        self.instance.send_if_modified(|present| {
            let is_news = *present != instance;
            *present = instance;
            is_news
        });
    }

    pub(super) fn tell(&self, event: Event) {
        // The receiver lives as long as the daemon.
        let _ = self.events.send(event);
    }
}

impl Session {
    /// Answers requests until the connection is at its end.
    async fn talk(&mut self) {
        loop {
            let received = tokio::select! {
                received = self.receive() => received,
                reason = self.lost() => {
                    let error = Error::unexpected("keep the socket set open", reason);
                    self.answer(&Reply::Error(Refusal::from(&error)), &[]);
                    return;
                }
            };
            let (bytes, fds) = match received {
                Ok(Received::Message(bytes, fds)) => (bytes, fds),
                Ok(Received::TooLarge) => {
                    let error = Error::InvalidMessage {
                        reason: format!(
                            "it is longer than {} bytes or has more than {} descriptors",
                            transport::MAX_MESSAGE,
                            transport::MAX_FDS
                        ),
                    };
                    self.answer(&Reply::Error(Refusal::from(&error)), &[]);
                    return;
                }
                Ok(Received::End) | Err(_) => return,
            };
            let is_answered = match self.obey(&bytes, fds).await {
                Ok((reply, fds)) => self.answer(&reply, &fds),
                Err(error) => self.answer(&Reply::Error(Refusal::from(&error)), &[]),
            };
            if !is_answered {
                return;
            }
        }
    }

    async fn receive(&self) -> io::Result<Received> {
        loop {
            let mut ready = self.connection.readable().await?;
            match ready.try_io(|connection| transport::receive(connection.as_fd())) {
                Ok(received) => return received,
                Err(_would_block) => {}
            }
        }
    }

    /// Sends an answer; `false` where the owner takes none.
    fn answer(&self, reply: &Reply, fds: &[OwnedFd]) -> bool {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        encode(reply)
            .is_ok_and(|bytes| transport::send(self.connection.as_fd(), &bytes, &fds).is_ok())
    }

    async fn obey(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> Result<(Reply, Vec<OwnedFd>)> {
        let request: Request = decode(bytes)?;
        let mut fds = fds.into_iter();
        let (first, more) = (fds.next(), fds.next());
        match (request, first, more) {
            (Request::Open(wish), None, None) => {
                let (opened, fds) = self.open(&wish).await?;
                Ok((Reply::Opened(opened), fds))
            }
            (Request::Register(wish), Some(socket), None) => {
                self.register(wish, socket).await?;
                Ok((Reply::Registered, Vec::new()))
            }
            (Request::Statistics, None, None) => match &self.held {
                Held::Open(set) => {
                    let queues = set.statistics();
                    Ok((Reply::Statistics { queues }, Vec::new()))
                }
                _ => Err(Error::InvalidMessage {
                    reason: "this connection has not opened a set".into(),
                }),
            },
            (Request::Register(_), ..) => Err(Error::InvalidMessage {
                reason: "one descriptor comes with it".into(),
            }),
            _ => Err(Error::InvalidMessage {
                reason: "no descriptors come with it".into(),
            }),
        }
    }

    async fn open(&mut self, wish: &Open) -> Result<Answer> {
        if !matches!(self.held, Held::Nothing) {
            return Err(one_set());
        }
        let limits = self.permit(&wish.set)?;
        let mut left = RETRIES;
        let (set, answer) = loop {
            let (peer, wish) = (self.peer.clone(), wish.clone());
            let configuration = self.shared.configuration();
            let keep = self.shared.sets.keeper();
            let open = move |sets: &mut Sets| {
                let (set, answer) = sets.open(&peer, &wish, limits, configuration)?;
                Ok((keep(set), answer))
            };
            match self.run(open).await {
                Err(Error::QueueBusy { .. }) if left > 0 => {
                    left -= 1;
                    sleep(RETRY).await;
                }
                result => break result?,
            }
        };
        self.held = Held::Open(self.announce(set, &wish.set));
        Ok(answer)
    }

    async fn register(&mut self, wish: Register, socket: OwnedFd) -> Result<()> {
        self.permit(&wish.set)?;
        let known = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Registered(set) => Some(set),
            Held::Nothing => None,
            open @ Held::Open(_) => {
                self.held = open;
                return Err(one_set());
            }
        };
        let (peer, name, was_known) = (self.peer.clone(), wish.set.clone(), known.is_some());
        let keep = self.shared.sets.keeper();
        let register = move |sets: &mut Sets| {
            let result = sets.register(&peer, &wish, socket, known.as_deref());
            // What is known comes back whatever has become of the socket.
            let (new, result) = match result {
                Ok(new) => (new.map(keep), Ok(())),
                Err(error) => (None, Err(error)),
            };
            Ok((new.or(known), result))
        };
        let (set, result) = self.run(register).await?;
        if let Some(set) = set {
            self.held = Held::Registered(if was_known {
                set
            } else {
                self.announce(set, &name)
            });
        }
        result
    }

    /// Has something done with the sets, and finds out which instance they are in.
    async fn run<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut Sets) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let bpffs = self.shared.bpffs.clone();
        let both = move |sets: &mut Sets| {
            // The instance comes first: if it is replaced meanwhile, the set is taken for lost.
            let instance = look::identity(bpffs.as_deref());
            (job(sets), instance)
        };
        let (result, instance) = self.shared.sets.run(both).await?;
        if result.is_ok() {
            self.instance = instance;
            self.shared.seen(instance);
        }
        result
    }

    /// Tells that a set was opened, and when it is closed.
    fn announce<S: Close>(&self, mut set: Kept<S>, name: &str) -> Kept<S> {
        let Peer { pid, .. } = self.peer;
        let closed = Event::Closed {
            set: name.to_owned(),
            pid,
        };
        set.tell_when_closed(self.shared.events.clone(), closed);
        self.shared.tell(Event::Opened {
            set: name.to_owned(),
            pid,
            user: self.peer.user(),
        });
        set
    }

    /// Ends when the set is lost, and says why.
    async fn lost(&self) -> &'static str {
        let interface = async {
            match &self.held {
                Held::Open(set) => set.lost.notified().await,
                Held::Registered(_) | Held::Nothing => std::future::pending().await,
            }
        };
        let instance = async {
            if matches!(self.held, Held::Nothing) {
                std::future::pending::<()>().await;
            }
            let mut present = self.shared.instance.subscribe();
            let is_another = |present: &Option<u32>| *present != self.instance;
            if present.wait_for(is_another).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = interface => "one of its interfaces is gone",
            () = instance => "demux was unloaded",
        }
    }

    /// How much the peer may have, if it may own the set.
    fn permit(&self, set: &str) -> Result<Limits> {
        self.shared
            .config
            .borrow()
            .limits(&self.peer, set)
            .ok_or_else(|| Error::NotAnOwner {
                user: self.peer.user(),
                set: set.to_owned(),
                configuration: self.shared.configuration(),
            })
    }
}

fn one_set() -> Error {
    Error::InvalidMessage {
        reason: "a connection has one set, and this one has it already".into(),
    }
}

/// Tells a peer that is not served why, if it listens.
fn refuse(connection: BorrowedFd<'_>, error: &Error) {
    if let Ok(bytes) = encode(&Reply::Error(Refusal::from(error))) {
        let _ = transport::send(connection, &bytes, &[]);
    }
}
