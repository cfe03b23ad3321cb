//! Who has which set of sockets: the maps `XSK_SETS`, `XSK_SOCKETS` and `XSKS`.
//!
//! A set is *claimed* by name, which reserves a slot for each receive queue of its interfaces. Each
//! socket is *published* once it is bound to its queue. Packets to a slot that is not filled go to the
//! fallback of their binding.
//!
//! A set belongs to a process and is held by that process or by the daemon; both are named by number
//! and start, so a claim of the dead is recognised, whoever has their number now. Each claim has a
//! generation, and nothing is published under an old one. The kernel itself takes sockets out of their
//! slots when their last descriptor is closed, so the dead receive nothing, even while nobody has
//! cleared away their entry.

use std::{
    collections::{BTreeSet, HashSet},
    os::fd::{AsRawFd as _, BorrowedFd},
};

use demux_common::steering::{MAX_INTERFACES, Ownership, XskInterface, XskSet, XskSocket};

use super::cookie::cookie;
use crate::{
    Error, Result,
    bindings::{SetName, steering::tidy},
    bpf,
    bpffs::BpfFs,
    interface,
    netns::NetworkNamespace,
    process::Process,
    state::{Instance, Lock},
    tables::{Access, Sender, Tables},
};

/// What is claimed.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The name of the set.
    pub name: SetName,
    /// Who owns it.
    pub owner: Process,
    /// The user of the owner.
    pub uid: u32,
    /// Who holds the sockets: the owner, or the daemon.
    pub holder: Process,
    /// The interfaces, by index, each with the number of its receive queues.
    pub interfaces: Vec<(u32, u16)>,
    /// The longest frame that the sockets take.
    pub longest: u32,
}

/// A set that was claimed. It is given back when this is dropped; sockets are the holder's to close.
#[derive(Debug)]
pub struct Claim {
    bpffs: BpfFs,
    instance: u64,
    index: u16,
    generation: u32,
    set: XskSet,
}

/// Claims a set in the instance of this network namespace.
///
/// # Errors
///
/// [`Error::NotLoaded`]; [`Error::NotAttached`] for an interface without demux;
/// [`Error::SocketSetTaken`] where a living process has it; [`Error::SocketSetsFull`] and
/// [`Error::SocketSlotsFull`]; [`Error::InvalidArgument`] for too many interfaces.
pub fn claim(bpffs: &BpfFs, wish: &Wish) -> Result<Claim> {
    let count = wish.interfaces.len();
    if !(1..=MAX_INTERFACES).contains(&count) {
        return Err(Error::invalid(
            "number of interfaces",
            count.to_string(),
            format!("a set of sockets has one to {MAX_INTERFACES}"),
        ));
    }
    let namespace = NetworkNamespace::current()?;
    let instance = Instance::open(bpffs, namespace.cookie(), Lock::Exclusive)?;
    let tables = Tables::open(&instance, Access::ReadWrite)?;
    let loaded: HashSet<u32> = tables
        .interfaces()?
        .iter()
        .map(|(_, entry)| entry.ifindex)
        .collect();
    for (ifindex, _) in &wish.interfaces {
        if !loaded.contains(ifindex) {
            let name = interface::by_index(*ifindex)?.map(|interface| interface.name);
            return Err(Error::NotAttached(
                name.unwrap_or_else(|| ifindex.to_string()),
            ));
        }
    }
    let sets = tables.xsk_sets()?;
    let named = sets.iter().find(|(_, set)| SetName::of(set) == wish.name);
    if let Some((_, set)) = named
        && is_claimed(set)
    {
        let owner = owner_of(set);
        return Err(Error::SocketSetTaken {
            name: wish.name.to_string(),
            pid: owner.pid,
            process: owner.name().unwrap_or_else(|| "unknown".to_owned()),
        });
    }
    reap_in(&tables)?;
    let sets = tables.xsk_sets()?;
    let max = tables.max_xsk_sets()? as u16;
    let used: HashSet<u16> = sets.iter().map(|(index, _)| *index).collect();
    let index = sets
        .iter()
        .find(|(_, set)| SetName::of(set) == wish.name)
        .map(|(index, _)| *index)
        .or_else(|| (1..max).find(|index| !used.contains(index)))
        .ok_or(Error::SocketSetsFull(max - 1))?;
    let interfaces = place(&tables, &sets, &wish.interfaces)?;
    // What its owner sends is to be reported.
    Sender::provide(instance.paths(), &tables)?;
    let set = XskSet {
        interfaces,
        name: wish.name.stored(),
        started: wish.owner.started,
        holder_started: wish.holder.started,
        pid: wish.owner.pid,
        uid: wish.uid,
        holder: wish.holder.pid,
        generation: tables.xsk_set(index)?.generation.wrapping_add(1),
        longest: wish.longest,
        ownership: if wish.owner == wish.holder {
            Ownership::Direct
        } else {
            Ownership::Daemon
        },
        reserved: [0; 3],
    };
    // Whatever stood in the slots is of nobody any more.
    for slot in slots(&set) {
        tables.withdraw_xsk(slot)?;
        tables.set_xsk_socket(slot, &XskSocket::default())?;
    }
    tables.set_xsk_set(index, &set)?;
    Ok(Claim {
        bpffs: bpffs.clone(),
        instance: instance.id(),
        index,
        generation: set.generation,
        set,
    })
}

impl Claim {
    /// Publishes the socket of a receive queue, to which it must be bound: packets reach it from now on.
    ///
    /// # Errors
    ///
    /// [`Error::SocketSetLost`] where the set is somebody else's by now; [`Error::InvalidArgument`] for
    /// a queue that was not claimed; and what the kernel refuses.
    pub fn publish(
        &self,
        ifindex: u32,
        queue: u32,
        socket: BorrowedFd<'_>,
        zero_copy: bool,
    ) -> Result<()> {
        let place = self
            .set
            .interfaces
            .iter()
            .find(|place| place.ifindex == ifindex && queue < u32::from(place.queues));
        let Some(place) = place else {
            return Err(Error::invalid(
                "receive queue",
                queue.to_string(),
                format!("the set {} has no such queue", SetName::of(&self.set)),
            ));
        };
        let slot = place.first_slot + queue as u16;
        let (_instance, tables) = self.open()?;
        let kept = XskSocket {
            cookie: cookie(socket)?,
            fd: socket.as_raw_fd() as u32,
            zero_copy: u32::from(zero_copy),
        };
        tables.set_xsk_socket(slot, &kept)?;
        tables.publish_xsk(slot, socket)
    }

    /// The generation of the claim.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The network namespace's instance that the set is in.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// The index of the set.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    fn open(&self) -> Result<(Instance, Tables)> {
        let instance = Instance::open(&self.bpffs, self.instance, Lock::Exclusive)?;
        let tables = Tables::open(&instance, Access::ReadWrite)?;
        let set = tables.xsk_set(self.index)?;
        if set.generation != self.generation || set.name != self.set.name {
            return Err(Error::SocketSetLost(SetName::of(&self.set).to_string()));
        }
        Ok((instance, tables))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What cannot be given back is the dead's, and cleared away by whoever comes next.
        if let Ok((_instance, tables)) = self.open() {
            let _ = release(&tables, self.index, &self.set).and_then(|()| tidy(&tables));
        }
    }
}

/// Gives back the sets of processes that have ended, and returns their names.
///
/// # Errors
///
/// [`Error::NotLoaded`], and where a map cannot be read or written.
pub fn reap(bpffs: &BpfFs) -> Result<Vec<SetName>> {
    let namespace = NetworkNamespace::current()?;
    let instance = Instance::open(bpffs, namespace.cookie(), Lock::Exclusive)?;
    reap_in(&Tables::open(&instance, Access::ReadWrite)?)
}

fn reap_in(tables: &Tables) -> Result<Vec<SetName>> {
    let mut names = Vec::new();
    for (index, set) in tables.xsk_sets()? {
        if set.ownership != Ownership::None && !is_claimed(&set) {
            release(tables, index, &set)?;
            names.push(SetName::of(&set));
        }
    }
    if !names.is_empty() {
        tidy(tables)?;
    }
    Ok(names)
}

/// Whether a set is that of somebody who lives.
#[must_use]
pub fn is_claimed(set: &XskSet) -> bool {
    set.ownership != Ownership::None && owner_of(set).is_alive() && holder_of(set).is_alive()
}

/// Who owns a set.
#[must_use]
pub fn owner_of(set: &XskSet) -> Process {
    Process {
        pid: set.pid,
        started: set.started,
    }
}

/// Who holds the sockets of a set.
#[must_use]
pub fn holder_of(set: &XskSet) -> Process {
    Process {
        pid: set.holder,
        started: set.holder_started,
    }
}

/// Takes the sockets of a set out of their slots, and the set from its owner.
fn release(tables: &Tables, index: u16, set: &XskSet) -> Result<()> {
    for slot in slots(set) {
        tables.withdraw_xsk(slot)?;
    }
    let free = XskSet {
        name: set.name,
        generation: set.generation.wrapping_add(1),
        ..XskSet::FREE
    };
    tables.set_xsk_set(index, &free)?;
    // Programs that have read where the slots are end before anybody else gets them. Where the kernel
    // cannot wait, they find them empty for as long as nobody does.
    let _ = bpf::synchronize();
    Ok(())
}

/// The slots of a set.
pub fn slots(set: &XskSet) -> impl Iterator<Item = u16> + use<> {
    let interfaces = set.interfaces;
    interfaces
        .into_iter()
        .filter(|place| place.ifindex != 0)
        .flat_map(|place| place.first_slot..place.first_slot + place.queues)
}

/// Finds slots in a row for the queues of each interface.
fn place(
    tables: &Tables,
    sets: &[(u16, XskSet)],
    wanted: &[(u32, u16)],
) -> Result<[XskInterface; MAX_INTERFACES]> {
    let max = tables.max_xsks()? as u16;
    let mut used: BTreeSet<u16> = sets.iter().flat_map(|(_, set)| slots(set)).collect();
    let mut placed = [XskInterface::default(); MAX_INTERFACES];
    for (place, (ifindex, queues)) in placed.iter_mut().zip(wanted) {
        let (ifindex, queues) = (*ifindex, *queues);
        let first_slot = (0..max)
            .find(|first| {
                first.checked_add(queues).is_some_and(|end| end <= max)
                    && used.range(*first..*first + queues).next().is_none()
            })
            .ok_or(Error::SocketSlotsFull {
                wanted: wanted.iter().map(|(_, queues)| u32::from(*queues)).sum(),
                max: u32::from(max),
            })?;
        used.extend(first_slot..first_slot + queues);
        *place = XskInterface {
            ifindex,
            first_slot,
            queues,
        };
    }
    Ok(placed)
}
