//! The thread of a hub.
//!
//! It goes round its owners as long as there is something to do, a portion each, and sleeps otherwise:
//! until frames arrive, an owner asks to be looked at, or a command comes.

use std::{
    collections::BTreeMap,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
    time::Duration,
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::{Errno, read},
};
use tokio::sync::Notify;

use super::{Command, Port, PortId, port::Turn, queue::Queue};

/// How soon frames are tried again that the kernel had no room for.
const SOON: Duration = Duration::from_millis(1);

/// How soon, while the interface is down.
const LATER: Duration = Duration::from_millis(100);

/// What an event is about: of owners twice their number, and one more for that of the second descriptor.
const COMMANDS: u64 = u64::MAX;

/// How many events are asked for at a time. Others come with the next call.
const EVENTS: usize = 64;

pub(super) struct Worker {
    // The owners' sockets share the queue's memory, and are closed before.
    owners: BTreeMap<PortId, Owner>,
    queue: Queue,
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
    epoll: OwnedFd,
}

struct Owner {
    port: Box<Port>,
    lost: Arc<Notify>,
    last: Turn,
}

/// However a hub ends, its owners are notified.
impl Drop for Owner {
    fn drop(&mut self) {
        self.lost.notify_one();
    }
}

/// What a round has come to.
enum Round {
    /// There is more to do at once.
    Again,
    /// There is nothing to do until something happens, or until then.
    Sleep(Option<Duration>),
}

/// The queue has ended, or its hub has.
struct Ended;

impl Worker {
    pub(super) fn new(
        queue: Queue,
        commands: Receiver<Command>,
        wake: Arc<OwnedFd>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &wake, EventData::new_u64(COMMANDS), EventFlags::IN)?;
        Ok(Self {
            owners: BTreeMap::new(),
            queue,
            commands,
            wake,
            epoll,
        })
    }

    pub(super) fn run(mut self) {
        while let Ok(round) = self.round() {
            let timeout = match round {
                Round::Again => Some(Duration::ZERO),
                Round::Sleep(timeout) => timeout,
            };
            if self.wait(timeout).is_err() {
                break;
            }
        }
    }

    /// Moves a portion of frames of every owner.
    fn round(&mut self) -> Result<Round, Ended> {
        let mut round = Round::Sleep(None);
        for owner in self.owners.values_mut() {
            if owner.port.arrive(&mut self.queue) == Turn::Busy {
                round = Round::Again;
            }
        }
        self.check(Queue::refill)?;

        for owner in self.owners.values_mut() {
            owner.last = owner.port.depart(&mut self.queue);
            match (owner.last, &round) {
                (Turn::Busy, _) => round = Round::Again,
                (Turn::Blocked, Round::Sleep(None)) => round = Round::Sleep(Some(SOON)),
                _ => {}
            }
        }
        let is_up = self.check(Queue::flush)?;
        if self.queue.is_waiting() && !matches!(round, Round::Again) {
            round = Round::Sleep(Some(if is_up { SOON } else { LATER }));
        }
        if !is_up && matches!(round, Round::Sleep(Some(_))) {
            round = Round::Sleep(Some(LATER));
        }
        Ok(round)
    }

    /// Does something with the queue; says whether its interface is up.
    fn check(&mut self, work: impl FnOnce(&mut Queue) -> io::Result<()>) -> Result<bool, Ended> {
        match work(&mut self.queue) {
            Ok(()) => Ok(true),
            Err(source) if source.raw_os_error() == Some(libc::ENETDOWN) => Ok(false),
            Err(_) => Err(Ended),
        }
    }

    /// Sleeps, and takes note of what has happened.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Ended> {
        let mut timeout = timeout;
        let sleeps = timeout != Some(Duration::ZERO);
        if sleeps {
            for owner in self.owners.values_mut() {
                if !owner.port.may_sleep(owner.last) && owner.last != Turn::Blocked {
                    timeout = Some(Duration::ZERO);
                }
            }
        }
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut events = [MaybeUninit::<Event>::uninit(); EVENTS];
        let happened = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((events, _)) => &*events,
            Err(Errno::INTR) => &[],
            Err(_) => return Err(Ended),
        };
        let mut has_commands = false;
        for event in happened {
            match event.data.u64() {
                COMMANDS => has_commands = true,
                // What has arrived is looked for in every round.
                data if data % 2 == 0 => {}
                data => {
                    if let Some(owner) = self.owners.get(&(data / 2))
                        && !owner.port.hear()
                    {
                        // Its connection ends too, and then so does its part here.
                        let _ = epoll::delete(&self.epoll, &owner.port.wake);
                    }
                }
            }
        }
        if sleeps {
            for owner in self.owners.values() {
                owner.port.awake();
            }
        }
        if has_commands {
            let _ = read(self.wake.as_fd(), &mut [0; 8]);
            self.obey()?;
        }
        Ok(())
    }

    fn obey(&mut self) -> Result<(), Ended> {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Add(id, port, lost)) => {
                    let is_watched = self.watch(id, &port);
                    let owner = Owner {
                        port,
                        lost,
                        last: Turn::Idle,
                    };
                    if is_watched.is_ok() {
                        self.owners.insert(id, owner);
                    }
                }
                Ok(Command::Remove(id, done)) => {
                    // Closing the socket takes it out of the map and out of the set of events.
                    self.owners.remove(&id);
                    let _ = done.send(());
                }
                Ok(Command::End) | Err(TryRecvError::Disconnected) => return Err(Ended),
                Err(TryRecvError::Empty) => return Ok(()),
            }
        }
    }

    fn watch(&self, id: PortId, port: &Port) -> io::Result<()> {
        let arrival = EventData::new_u64(2 * id);
        let wake = EventData::new_u64(2 * id + 1);
        epoll::add(&self.epoll, &port.socket, arrival, EventFlags::IN)?;
        epoll::add(&self.epoll, &port.wake, wake, EventFlags::IN)?;
        Ok(())
    }
}
