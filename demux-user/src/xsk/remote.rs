//! Sets by way of the daemon: what an owner says to it, and what it gets.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    port::{Peer, Port},
    queue::{Place, QueueId},
    region::{Region, Shape},
};
use crate::{
    Error, Result,
    daemon::{
        DEFAULT_SOCKET, SOCKET_ENVIRONMENT,
        protocol::{Open, Opened, Refusal, Register, Reply, Request, Statistics, decode, encode},
        transport::{self, Received},
    },
};

/// How long the daemon may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the daemon. The set that was opened by it lives as long as it does.
///
/// Its descriptor is readable once the set was lost: see [`Connection::check`].
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    path: PathBuf,
}

/// A set that the daemon holds the sockets of.
#[derive(Debug)]
pub struct Remote {
    /// To the daemon.
    pub connection: Connection,
    /// Bytes of the longest frame that can be received and sent.
    pub longest_frame: usize,
    /// The queues.
    pub queues: Vec<RemoteQueue>,
}

/// A queue of such a set.
#[derive(Debug)]
pub struct RemoteQueue {
    /// Which it is.
    pub place: Place,
    /// Whether the driver and the daemon share the memory of frames.
    pub zero_copy: bool,
    /// Where its frames are.
    pub port: Port,
}

/// Where the daemon listens, if nobody says otherwise: where the environment says, or at its usual place.
#[must_use]
pub fn default_socket() -> PathBuf {
    std::env::var_os(SOCKET_ENVIRONMENT)
        .filter(|path| !path.is_empty())
        .map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from)
}

impl Connection {
    /// Connects to the daemon that listens on the socket file at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::NoDaemon`]; EACCES for who is neither root nor in the group demux.
    pub fn open(path: &Path) -> Result<Self> {
        let socket = transport::connect_to(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Error::NoDaemon(path.into())
            }
            _ => Error::io(format!("connect to {}", path.display()), source),
        })?;
        Ok(Self {
            socket,
            path: path.into(),
        })
    }

    /// Publishes a socket of the caller's, which is bound to the queue. All that are registered by one
    /// connection are one set. The daemon keeps no descriptor of it.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn register(&self, wish: Register, socket: BorrowedFd<'_>) -> Result<()> {
        match self.ask(&Request::Register(wish), &[socket])? {
            (Reply::Registered, _) => Ok(()),
            (other, _) => Err(self.unexpected(&other)),
        }
    }

    /// What has happened on each queue of the set.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] where the set was lost or was not opened by this connection.
    pub fn statistics(&self) -> Result<Vec<Statistics>> {
        match self.ask(&Request::Statistics, &[])? {
            (Reply::Statistics { queues }, _) => Ok(queues),
            (other, _) => Err(self.unexpected(&other)),
        }
    }

    /// Says so if the set was lost. Does not wait.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the daemon's reason; [`Error::NoDaemon`] where it has ended.
    pub fn check(&self) -> Result<()> {
        if !self.is_readable(Duration::ZERO)? {
            return Ok(());
        }
        // It says nothing unasked but this.
        let (reply, _) = self.hear()?;
        Err(self.unexpected(&reply))
    }

    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        let failed =
            |source| Error::io(format!("ask the daemon at {}", self.path.display()), source);
        match transport::send(self.socket.as_fd(), &encode(request)?, fds) {
            Ok(()) => {}
            // It may have said why.
            Err(source) if source.kind() == io::ErrorKind::BrokenPipe => {}
            Err(source) => return Err(failed(source)),
        }
        if !self.is_readable(PATIENCE)? {
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
        self.hear()
    }

    fn hear(&self) -> Result<(Reply, Vec<OwnedFd>)> {
        match transport::receive(self.socket.as_fd()) {
            Ok(Received::Message(bytes, fds)) => match decode(&bytes)? {
                Reply::Error(refusal) => Err(Error::from(refusal)),
                reply => Ok((reply, fds)),
            },
            Ok(Received::End) => Err(Error::NoDaemon(self.path.clone())),
            Ok(Received::TooLarge) => Err(Error::InvalidMessage {
                reason: "it is too long".into(),
            }),
            Err(source) => Err(Error::io(
                format!("hear the daemon at {}", self.path.display()),
                source,
            )),
        }
    }

    fn is_readable(&self, patience: Duration) -> Result<bool> {
        let patience = Timespec::try_from(patience).ok();
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut fds, patience.as_ref()) {
                Ok(count) => return Ok(count > 0),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let operation = format!("wait for the daemon at {}", self.path.display());
                    return Err(Error::io(operation, errno));
                }
            }
        }
    }

    fn unexpected(&self, reply: &Reply) -> Error {
        match reply {
            Reply::Error(refusal) => Error::from(Refusal::clone(refusal)),
            other => Error::unexpected(
                format!("talk with the daemon at {}", self.path.display()),
                format!("it said {other:?}"),
            ),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Remote {
    /// Opens a set by way of the daemon that listens on the socket file at `path`.
    ///
    /// # Errors
    ///
    /// As [`Connection::open`]; [`Error::Refused`].
    pub fn open(path: &Path, wish: Open) -> Result<Self> {
        let connection = Connection::open(path)?;
        let multi_buffer = wish.multi_buffer;
        let (opened, fds) = match connection.ask(&Request::Open(wish), &[])? {
            (Reply::Opened(opened), fds) => (opened, fds),
            (other, _) => return Err(connection.unexpected(&other)),
        };
        let Opened {
            longest_frame,
            chunk_size,
            chunks,
            ring_size,
            queues,
        } = opened;
        let shape = Shape {
            chunk_size,
            chunks,
            ring_size,
        };
        if fds.len() != 2 * queues.len() {
            return Err(Error::unexpected(
                "open a socket set",
                format!(
                    "the daemon sent {} descriptors for {} queues",
                    fds.len(),
                    queues.len()
                ),
            ));
        }
        let mut fds = fds.into_iter();
        let mut opened = Vec::with_capacity(queues.len());
        while let (Some(region), Some(wake)) = (fds.next(), fds.next()) {
            let queue = &queues[opened.len()];
            opened.push(RemoteQueue {
                place: Place {
                    id: QueueId {
                        ifindex: queue.ifindex,
                        queue: queue.queue,
                    },
                    interface: queue.interface.clone(),
                },
                zero_copy: queue.zero_copy,
                port: port(region, wake, shape, multi_buffer)?,
            });
        }
        Ok(Self {
            connection,
            longest_frame: longest_frame as usize,
            queues: opened,
        })
    }
}

fn port(region: OwnedFd, wake: OwnedFd, shape: Shape, multi_buffer: bool) -> Result<Port> {
    let failed = |source| Error::io("use the memory that the daemon shares", source);
    let region = Region::open(region, shape).map_err(failed)?;
    let peer = Peer::Process {
        arrived: wake.try_clone().map_err(failed)?,
        kick: wake,
    };
    Port::new(region.area(), region.owner_side(), peer, multi_buffer)
}
