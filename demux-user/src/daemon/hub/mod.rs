//! Hubs: for each receive queue in use a thread that moves frames between the queue and its owners.
//!
//! Whatever can fail for reasons that an owner should hear of is done by the caller before the thread has
//! part in it: the thread only moves frames, and ends when the queue does.

mod port;
mod queue;
mod worker;

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::write,
};
use tokio::sync::Notify;

pub(super) use self::port::{OwnerSide, Port};
use self::{queue::Queue, worker::Worker};
use crate::{
    Error, Result,
    xsk::{queue::Place, socket::Socket},
};

/// A number by which a hub knows an owner.
pub(super) type PortId = u64;

/// A queue that is in use, and the thread that serves it. Dropping it gives the queue back.
#[derive(Debug)]
pub(super) struct Hub {
    place: Place,
    socket: Arc<Socket>,
    longest: usize,
    is_zero_copy: bool,
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    next: PortId,
}

/// What a hub is told.
#[derive(Debug)]
enum Command {
    /// Serve an owner, and notify it if the queue is lost.
    Add(PortId, Box<Port>, Arc<Notify>),
    /// Serve it no longer, and say when its socket is closed.
    Remove(PortId, Sender<()>),
    End,
}

/// An owner's port that the hub does not serve yet: its socket can be published first.
#[derive(Debug)]
pub(super) struct Opened {
    port: Box<Port>,
}

impl Opened {
    /// Its socket, which is bound.
    #[must_use]
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.port.socket.as_fd()
    }
}

impl Hub {
    /// Takes a queue.
    ///
    /// # Errors
    ///
    /// [`Error::QueueBusy`] where somebody else has it, or had it a moment ago; [`Error::Io`].
    pub(super) fn open(place: &Place) -> Result<Self> {
        let failed = |source| Error::io(format!("serve {place}"), source);
        let queue = Queue::open(place)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| failed(errno.into()))?;
        let wake = Arc::new(wake);
        let (commands, received): (_, Receiver<Command>) = channel();
        let socket = Arc::clone(queue.socket());
        let longest = queue.longest();
        let is_zero_copy = socket.is_zero_copy()?;
        let worker = Worker::new(queue, received, Arc::clone(&wake)).map_err(failed)?;
        // The kernel keeps 15 bytes of it.
        let thread = thread::Builder::new()
            .name(format!("hub {}.{}", place.id.ifindex, place.id.queue))
            .spawn(move || worker.run())
            .map_err(failed)?;
        Ok(Self {
            place: place.clone(),
            socket,
            longest,
            is_zero_copy,
            commands,
            wake,
            thread: Some(thread),
            next: 0,
        })
    }

    /// The longest frame that the queue hands on.
    #[must_use]
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Whether driver and daemon share the memory of frames.
    #[must_use]
    pub(super) fn is_zero_copy(&self) -> bool {
        self.is_zero_copy
    }

    /// Opens an owner's socket on the queue.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses it.
    pub(super) fn open_port(&self, owner: OwnerSide) -> Result<Opened> {
        let port = Port::open(&self.place, &self.socket, owner)?;
        Ok(Opened {
            port: Box::new(port),
        })
    }

    /// Begins to serve an owner. `lost` is notified if the queue is lost.
    pub(super) fn serve(&mut self, opened: Opened, lost: Arc<Notify>) -> PortId {
        let id = self.next;
        self.next += 1;
        self.tell(Command::Add(id, opened.port, lost));
        id
    }

    /// Ends an owner's part in the queue. Its socket is closed when this returns.
    pub(super) fn remove(&self, id: PortId) {
        let (done, is_done) = channel();
        self.tell(Command::Remove(id, done));
        // If the thread has ended, so have all sockets.
        let _ = is_done.recv();
    }

    /// Ends the thread, and so its owners' parts: the queue is lost.
    pub(super) fn end(&self) {
        self.tell(Command::End);
    }

    fn tell(&self, command: Command) {
        // If the thread has ended, its owners have been notified, or are by the command's end.
        if let Err(refused) = self.commands.send(command)
            && let Command::Add(_, _, lost) = refused.0
        {
            lost.notify_one();
        }
        wake(&self.wake);
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.tell(Command::End);
        if let Some(thread) = self.thread.take() {
            // It is not expected to panic; if it has, its sockets are closed all the same.
            let _ = thread.join();
        }
    }
}

/// Makes the thread look at its commands.
fn wake(event: &OwnedFd) {
    // Where it holds all that it can, the thread has been told.
    let _: Result<usize, _> = write(event, &1_u64.to_ne_bytes()).map_err(io::Error::from);
}
