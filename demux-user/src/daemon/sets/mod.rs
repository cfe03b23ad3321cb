//! The sets that are open, and the queues that they use.

mod register;
mod registered;
mod wish;
mod worker;

use std::{
    collections::HashMap,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::sync::Notify;

use self::wish::{interfaces, owner, places, shape};
pub(super) use self::{
    register::RegisteredSet,
    worker::{Close, Kept, Worker},
};
use super::{
    config::Limits,
    counters::Counters,
    gate::Gate,
    hub::{Hub, OwnerSide, PortId},
    peer::Peer,
    protocol::{Open, Opened, OpenedQueue, Statistics},
    rights::Rights,
};
use crate::{
    Error, Result,
    bindings::SetName,
    bpffs::BpfFs,
    interface::Interface,
    netns::NetworkNamespace,
    process::Process,
    state::{Instance, Lock, Paths},
    tables::{Access, Sender, Tables},
    xsk::{
        port::longest_frame,
        queue::{Place, QueueId},
        region::{Region, Shape},
        registry::{self, Claim, Wish},
    },
};

/// How many queues one set may have here: a message has to bring two descriptors for each.
const MAX_QUEUES: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Sets {
    bpffs: Option<PathBuf>,
    daemon: Process,
    queues: HashMap<QueueId, InUse>,
    users: HashMap<u32, Usage>,
}

/// A queue, and how many sets use it.
#[derive(Debug)]
struct InUse {
    hub: Hub,
    sets: usize,
}

/// What a user has open.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    queues: u32,
    memory: u64,
}

/// A set whose sockets the daemon holds.
#[derive(Debug)]
pub(super) struct OpenSet {
    claim: Claim,
    ports: Vec<(QueueId, PortId)>,
    counters: Vec<Arc<Counters>>,
    uid: u32,
    usage: Usage,
    /// Notified when a queue is lost.
    pub(super) lost: Arc<Notify>,
}

/// What the owner of a new set is told, with two descriptors for each queue.
pub(super) type Answer = (Opened, Vec<OwnedFd>);

impl Sets {
    pub(super) fn new(bpffs: Option<PathBuf>) -> Result<Self> {
        let daemon = Process::current().map_err(|source| Error::io("read /proc", source))?;
        Ok(Self {
            bpffs,
            daemon,
            queues: HashMap::new(),
            users: HashMap::new(),
        })
    }

    /// Opens a set for a peer that may own it within these limits.
    ///
    /// # Errors
    ///
    /// [`Error::QueueBusy`] also where a queue was given back a moment ago: it is worth another attempt.
    pub(super) fn open(
        &mut self,
        peer: &Peer,
        wish: &Open,
        limits: Limits,
        configuration: PathBuf,
    ) -> Result<(OpenSet, Answer)> {
        let name: SetName = wish.set.parse()?;
        let shape = shape(wish)?;
        let interfaces = interfaces(&wish.interfaces)?;
        let places = places(&interfaces);
        let usage = self.admit(peer, &places, &shape, limits, configuration)?;

        let result = self.open_all(peer, wish, name, shape, &interfaces, &places, usage);
        // Queues that were taken in vain.
        self.queues.retain(|_, queue| queue.sets > 0);
        result
    }

    /// What the set will take, if the user may have as much.
    fn admit(
        &self,
        peer: &Peer,
        places: &[Place],
        shape: &Shape,
        limits: Limits,
        configuration: PathBuf,
    ) -> Result<Usage> {
        let usage = Usage {
            queues: places.len() as u32,
            memory: places.len() as u64 * shape.len(),
        };
        let present = self.users.get(&peer.uid).copied().unwrap_or_default();
        let exceeded = if places.len() > MAX_QUEUES {
            Some(format!("{MAX_QUEUES} queues in one set"))
        } else if present.queues + usage.queues > limits.queues {
            Some(format!("{} queues", limits.queues))
        } else if present.memory + usage.memory > limits.memory {
            Some(format!("{} MiB of memory", limits.memory >> 20))
        } else {
            None
        };
        match exceeded {
            Some(limit) => Err(Error::OwnerLimit {
                user: peer.user(),
                limit,
                configuration,
            }),
            None => Ok(usage),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "all of it was derived from one request"
    )]
    fn open_all(
        &mut self,
        peer: &Peer,
        wish: &Open,
        name: SetName,
        shape: Shape,
        interfaces: &[(Interface, u16)],
        places: &[Place],
        usage: Usage,
    ) -> Result<(OpenSet, Answer)> {
        let mut longest = longest_frame(shape.chunk_size, wish.multi_buffer);
        for place in places {
            longest = longest.min(self.hub(place)?.longest());
        }
        let claim = registry::claim(
            &self.bpffs()?,
            &Wish {
                name,
                owner: owner(peer)?,
                uid: peer.uid,
                holder: self.daemon,
                interfaces: interfaces
                    .iter()
                    .map(|(interface, queues)| (interface.index, *queues))
                    .collect(),
                longest: longest as u32,
            },
        )?;
        let (rights, paths) = self.rights()?;
        let mut set = OpenSet {
            claim,
            ports: Vec::new(),
            counters: Vec::new(),
            uid: peer.uid,
            usage,
            lost: Arc::default(),
        };
        let taken = self.users.entry(peer.uid).or_default();
        taken.queues += usage.queues;
        taken.memory += usage.memory;

        let mut opened = Opened {
            longest_frame: longest as u32,
            chunk_size: shape.chunk_size,
            chunks: shape.chunks,
            ring_size: shape.ring_size,
            queues: Vec::new(),
        };
        let mut fds = Vec::new();
        for place in places {
            let sender = Sender::open(&paths);
            let ready = sender.and_then(|sender| {
                let gate = Gate::new(
                    set.claim.index(),
                    place.id.ifindex,
                    Arc::clone(&rights),
                    sender,
                )?;
                self.open_queue(&mut set, place, shape, wish.multi_buffer, gate)
            });
            match ready {
                Ok((queue, mine)) => {
                    opened.queues.push(queue);
                    fds.extend(mine);
                }
                Err(error) => {
                    self.close(set);
                    return Err(error);
                }
            }
        }
        Ok((set, (opened, fds)))
    }

    /// Opens a queue for a set, publishes its socket, and begins to serve it.
    fn open_queue(
        &mut self,
        set: &mut OpenSet,
        place: &Place,
        shape: Shape,
        multi_buffer: bool,
        gate: Gate,
    ) -> Result<(OpenedQueue, [OwnedFd; 2])> {
        let failed = |source| Error::io("make the memory that an owner shares", source);
        let region = Region::create(shape).map_err(failed)?;
        let shared = region.as_fd().try_clone_to_owned().map_err(failed)?;
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(|errno| Error::io("make a pair of sockets", errno))?;
        let counters = Arc::new(Counters::default());
        let lost = Arc::clone(&set.lost);
        self.hub(place)?;
        let queue = self
            .queues
            .get_mut(&place.id)
            .expect("it is there since the line above");
        let opened = queue.hub.open_port(OwnerSide {
            region,
            wake: ours,
            takes_long_frames: multi_buffer,
            gate,
            counters: Arc::clone(&counters),
        })?;
        let zero_copy = queue.hub.is_zero_copy();
        let QueueId {
            ifindex,
            queue: number,
        } = place.id;
        set.claim
            .publish(ifindex, number, opened.socket(), zero_copy)?;
        queue.sets += 1;
        set.ports.push((place.id, queue.hub.serve(opened, lost)));
        set.counters.push(counters);
        let told = OpenedQueue {
            interface: place.interface.clone(),
            ifindex,
            queue: number,
            zero_copy,
        };
        Ok((told, [shared, theirs]))
    }

    /// Closes a set: its sockets first.
    fn close(&mut self, set: OpenSet) {
        for (id, port) in &set.ports {
            if let Some(queue) = self.queues.get_mut(id) {
                queue.hub.remove(*port);
                queue.sets -= 1;
            }
        }
        self.queues.retain(|_, queue| queue.sets > 0);
        if let Some(taken) = self.users.get_mut(&set.uid) {
            taken.queues -= set.usage.queues;
            taken.memory -= set.usage.memory;
            if taken.queues == 0 {
                self.users.remove(&set.uid);
            }
        }
        drop(set.claim);
    }

    /// Notifies the owners of queues whose interfaces are not among these.
    pub(super) fn lose_all_but(&self, present: &[u32]) {
        for (id, queue) in &self.queues {
            if !present.contains(&id.ifindex) {
                queue.hub.end();
            }
        }
    }

    /// The hub of a queue, opened where there is none.
    fn hub(&mut self, place: &Place) -> Result<&Hub> {
        use std::collections::hash_map::Entry;
        match self.queues.entry(place.id) {
            Entry::Occupied(queue) => Ok(&queue.into_mut().hub),
            Entry::Vacant(none) => {
                let hub = Hub::open(place)?;
                Ok(&none.insert(InUse { hub, sets: 0 }).hub)
            }
        }
    }

    fn bpffs(&self) -> Result<BpfFs> {
        BpfFs::find(self.bpffs.as_deref())
    }

    /// The rights of the present instance, and where it is.
    fn rights(&self) -> Result<(Arc<Rights>, Paths)> {
        let namespace = NetworkNamespace::current()?;
        let instance = Instance::open(&self.bpffs()?, namespace.cookie(), Lock::Shared)?;
        let rights = Rights::open(Tables::open(&instance, Access::ReadOnly)?)?;
        Ok((Arc::new(rights), instance.paths().clone()))
    }
}

impl Close for OpenSet {
    fn close(self, sets: &mut Sets) {
        sets.close(self);
    }
}

impl OpenSet {
    /// What has happened on each queue.
    pub(super) fn statistics(&self) -> Vec<Statistics> {
        self.counters
            .iter()
            .map(|counters| counters.read())
            .collect()
    }
}
