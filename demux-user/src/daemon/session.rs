//! A connection, from its beginning to its end, which is also the end of the set that was opened by it.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use tokio::{io::unix::AsyncFd, time::sleep};

use super::{
    Event,
    config::{Config, DEFAULT_PATH, Limits},
    peer::{Peer, Watched},
    protocol::{Open, Refusal, Register, Reply, Request, decode, encode},
    sets::{Answer, OpenSet, RegisteredSet, Sets},
    transport::{self, Received},
    watch::watch,
};
use crate::{Error, Result};

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
    pub(super) sets: RefCell<Sets>,
    /// The users of the connections there are.
    pub(super) users: RefCell<Vec<u32>>,
    pub(super) events: tokio::sync::mpsc::UnboundedSender<Event>,
}

/// What a connection holds.
enum Held {
    Nothing,
    Open(OpenSet),
    Registered(Option<RegisteredSet>),
}

struct Session {
    shared: Rc<Shared>,
    connection: AsyncFd<OwnedFd>,
    peer: Peer,
    held: Held,
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
    let process = watch(process);
    let connection = watch(connection);
    let (Ok(process), Ok(connection)) = (process, connection) else {
        return;
    };
    shared.users.borrow_mut().push(peer.uid);
    let mut session = Session {
        shared: Rc::clone(&shared),
        connection,
        peer,
        held: Held::Nothing,
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

    fn tell(&self, event: Event) {
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
                () = self.held.lost() => {
                    let error = Error::unexpected(
                        "keep the socket set open",
                        "one of its interfaces is gone",
                    );
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
                self.register(&wish, socket)?;
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
            let configuration = self.shared.configuration();
            let result =
                self.shared
                    .sets
                    .borrow_mut()
                    .open(&self.peer, wish, limits, configuration);
            match result {
                Err(Error::QueueBusy { .. }) if left > 0 => {
                    left -= 1;
                    sleep(RETRY).await;
                }
                result => break result?,
            }
        };
        self.held = Held::Open(set);
        self.shared.tell(Event::Opened {
            set: wish.set.clone(),
            pid: self.peer.pid,
            user: self.peer.user(),
        });
        Ok(answer)
    }

    fn register(&mut self, wish: &Register, socket: OwnedFd) -> Result<()> {
        self.permit(&wish.set)?;
        if matches!(self.held, Held::Nothing) {
            self.held = Held::Registered(None);
        }
        let Held::Registered(set) = &mut self.held else {
            return Err(one_set());
        };
        let is_first = set.is_none();
        self.shared
            .sets
            .borrow_mut()
            .register(&self.peer, wish, socket, set)?;
        if is_first {
            self.shared.tell(Event::Opened {
                set: wish.set.clone(),
                pid: self.peer.pid,
                user: self.peer.user(),
            });
        }
        Ok(())
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

impl Drop for Session {
    fn drop(&mut self) {
        let name = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Open(set) => {
                let name = set.name();
                self.shared.sets.borrow_mut().close(set);
                name
            }
            Held::Registered(Some(set)) => set.name(),
            Held::Registered(None) | Held::Nothing => return,
        };
        self.shared.tell(Event::Closed {
            set: name,
            pid: self.peer.pid,
        });
    }
}

impl Held {
    /// Ends when a queue of the set is lost.
    async fn lost(&self) {
        match self {
            Self::Open(set) => set.lost.notified().await,
            Self::Registered(_) | Self::Nothing => std::future::pending().await,
        }
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
