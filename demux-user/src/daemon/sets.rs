//! The sets that are open, and the queues that they use.

use std::{
    collections::HashMap,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::sync::Notify;

use super::{
    config::Limits,
    counters::Counters,
    gate::Gate,
    hub::{Hub, OwnerSide, PortId},
    peer::Peer,
    protocol::{Open, Opened, OpenedQueue, Register, Statistics},
    registered,
    rights::Rights,
};
use crate::{
    Error, Result,
    bindings::SetName,
    bpffs::BpfFs,
    interface::{self, Interface},
    netns::NetworkNamespace,
    process::Process,
    state::{Instance, Lock, Paths},
    tables::{Access, Sender, Tables},
    xsk::{
        port::longest_frame,
        queue::{Place, QueueId, receive_queues},
        region::{Region, Shape},
        registry::{self, Claim, Wish},
    },
};

/// How many queues one set may have here: a message has to bring two descriptors for each.
const MAX_QUEUES: usize = 64;

/// The largest frame that an owner of sockets of its own may say they take.
const LONGEST_FRAME: u32 = 1 << 16;

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

/// A set whose sockets the daemon holds. To be closed by [`Sets::close`].
#[derive(Debug)]
pub(super) struct OpenSet {
    name: String,
    claim: Claim,
    ports: Vec<(QueueId, PortId)>,
    counters: Vec<Arc<Counters>>,
    uid: u32,
    usage: Usage,
    /// Notified when a queue is lost.
    pub(super) lost: Arc<Notify>,
}

/// A set whose sockets its owner holds. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct RegisteredSet {
    claim: Claim,
    name: String,
    interface: String,
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
            name: wish.set.clone(),
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
    pub(super) fn close(&mut self, set: OpenSet) {
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

    /// The indexes of the interfaces whose queues are in use.
    pub(super) fn interfaces(&self) -> Vec<u32> {
        let mut indexes: Vec<u32> = self.queues.keys().map(|id| id.ifindex).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes
    }

    /// Notifies the owners of the queues of interfaces that are gone.
    pub(super) fn lose(&self, gone: &[u32]) {
        for (id, queue) in &self.queues {
            if gone.contains(&id.ifindex) {
                queue.hub.end();
            }
        }
    }

    /// Publishes a socket of the owner's. The first one claims the set.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for what is no such socket, or not one of this set.
    pub(super) fn register(
        &mut self,
        peer: &Peer,
        wish: &Register,
        socket: OwnedFd,
        set: &mut Option<RegisteredSet>,
    ) -> Result<()> {
        let name: SetName = wish.set.parse()?;
        let interface = interface::by_name(&wish.interface)?;
        let queues = receive_queues(&interface);
        let place = Place {
            id: QueueId {
                ifindex: interface.index,
                queue: wish.queue,
            },
            interface: interface.name.clone(),
        };
        if wish.queue >= u32::from(queues) {
            return Err(Error::invalid(
                "receive queue",
                wish.queue.to_string(),
                format!("{} has {queues} of them, from 0 on", interface.name),
            ));
        }
        if wish.longest_frame == 0 || wish.longest_frame > LONGEST_FRAME {
            return Err(Error::invalid(
                "longest frame",
                wish.longest_frame.to_string(),
                format!("it has from 1 to {LONGEST_FRAME} bytes"),
            ));
        }
        let socket = registered::check(socket, &place)?;
        let known = match set {
            Some(known) if known.name == wish.set && known.interface == interface.name => known,
            Some(known) => {
                return Err(Error::invalid(
                    "set",
                    wish.set.clone(),
                    format!(
                        "this connection has registered the set {} on {}",
                        known.name, known.interface
                    ),
                ));
            }
            None => {
                let owner = owner(peer)?;
                let claim = registry::claim(
                    &self.bpffs()?,
                    &Wish {
                        name,
                        owner,
                        uid: peer.uid,
                        holder: owner,
                        interfaces: vec![(interface.index, queues)],
                        longest: wish.longest_frame,
                    },
                )?;
                set.insert(RegisteredSet {
                    claim,
                    name: wish.set.clone(),
                    interface: interface.name.clone(),
                })
            }
        };
        let is_zero_copy = socket.is_zero_copy()?;
        let QueueId { ifindex, queue } = place.id;
        // The owner's descriptor alone keeps it open from here on.
        known
            .claim
            .publish(ifindex, queue, socket.as_fd(), is_zero_copy)
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

impl OpenSet {
    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    /// What has happened on each queue.
    pub(super) fn statistics(&self) -> Vec<Statistics> {
        self.counters
            .iter()
            .map(|counters| counters.read())
            .collect()
    }
}

impl RegisteredSet {
    pub(super) fn name(&self) -> String {
        self.name.clone()
    }
}

/// Who owns a set, so that it is known again.
fn owner(peer: &Peer) -> Result<Process> {
    Process::find(peer.pid)
        .map_err(|source| Error::io(format!("find the process {}", peer.pid), source))
}

/// The shape of each region: as many chunks for what arrives as for what leaves.
fn shape(wish: &Open) -> Result<Shape> {
    let shape = Shape {
        chunk_size: wish.chunk_size,
        chunks: wish.ring_size.saturating_mul(2),
        ring_size: wish.ring_size,
    };
    if !matches!(wish.chunk_size, 2048 | 4096) {
        return Err(Error::invalid(
            "size of a chunk",
            wish.chunk_size.to_string(),
            "it has 2048 or 4096 bytes",
        ));
    }
    if !shape.is_sound() {
        return Err(Error::invalid(
            "size of a ring",
            wish.ring_size.to_string(),
            "it is a power of two up to 32768",
        ));
    }
    Ok(shape)
}

/// The interfaces with these names, and how many receive queues each has.
fn interfaces(names: &[String]) -> Result<Vec<(Interface, u16)>> {
    let mut interfaces: Vec<(Interface, u16)> = Vec::new();
    if names.len() > demux_common::steering::MAX_INTERFACES {
        return Err(Error::invalid(
            "number of interfaces",
            names.len().to_string(),
            format!(
                "a set has at most {}",
                demux_common::steering::MAX_INTERFACES
            ),
        ));
    }
    for name in names {
        let interface = interface::by_name(name)?;
        if interfaces
            .iter()
            .any(|(known, _)| known.index == interface.index)
        {
            return Err(Error::invalid(
                "interface",
                name.clone(),
                "it is named twice",
            ));
        }
        let queues = receive_queues(&interface);
        interfaces.push((interface, queues));
    }
    Ok(interfaces)
}

fn places(interfaces: &[(Interface, u16)]) -> Vec<Place> {
    interfaces
        .iter()
        .flat_map(|(interface, queues)| {
            (0..u32::from(*queues)).map(|queue| Place {
                id: QueueId {
                    ifindex: interface.index,
                    queue,
                },
                interface: interface.name.clone(),
            })
        })
        .collect()
}
