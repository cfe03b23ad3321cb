//! CPUs and sockets that packets are handed to: those of a world, and what stands for them on the host.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
};

use demux_common::{
    fragments::{Datagram, LIFETIME, Owner},
    protocol::Protocol,
    steering::{CpuList, MAX_INTERFACES, NAME_LEN, Ownership, XskInterface, XskSet},
};
use demux_user::bindings::pattern::from_ip;

use super::{bound::Device, frames::socket, row::SECOND, world::EPOCH};

/// Where a packet was handed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedTo {
    Cpu(u32),
    Socket(u32),
}

/// What a world has to hand packets to, and by which queue they come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    /// The CPUs that take packets.
    pub cpus: Vec<u16>,
    /// The sets of sockets. The index of a set is its place in the list, from 1 on.
    pub sets: Vec<Set>,
    /// The slots that are filled.
    pub slots: Vec<u16>,
    /// The receive queue of every packet.
    pub queue: u32,
}

/// A set of sockets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    pub places: Vec<Place>,
    pub longest: u32,
}

/// Where a set has sockets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub device: Device,
    pub first_slot: u16,
    pub queues: u16,
}

impl Targets {
    /// The sets as the tables have them.
    pub fn tabulated(&self, ifindex: u32) -> Vec<(u16, XskSet)> {
        (1..)
            .zip(&self.sets)
            .map(|(index, set)| (index, set.stored(index, ifindex)))
            .collect()
    }
}

impl Set {
    fn stored(&self, index: u16, ifindex: u32) -> XskSet {
        let mut interfaces = [XskInterface::default(); MAX_INTERFACES];
        for (entry, place) in interfaces.iter_mut().zip(&self.places) {
            *entry = XskInterface {
                ifindex: place.device.index(ifindex),
                first_slot: place.first_slot,
                queues: place.queues,
            };
        }
        let mut name = [0; NAME_LEN];
        let text = format!("s{index}");
        name[..text.len()].copy_from_slice(text.as_bytes());
        XskSet {
            interfaces,
            name,
            longest: self.longest,
            ownership: if self.places.is_empty() {
                Ownership::None
            } else {
                Ownership::Direct
            },
            ..XskSet::FREE
        }
    }
}

/// What is remembered of a packet in fragments.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub datagram: Datagram,
    pub owner: Owner,
    /// How long ago the first fragment came, in seconds.
    pub age: u64,
}

impl Kept {
    /// The identification of all fragments of the tests.
    pub const ID: u32 = 7;

    /// Of a packet from `remote` to `local` whose first fragment came just now.
    pub fn new(protocol: Protocol, remote: &str, local: &str, binding: u16) -> Self {
        let (remote, local) = (socket(remote), socket(local));
        let number = u32::from(protocol.ip_number());
        Self {
            datagram: Datagram {
                source: from_ip(remote.ip()),
                destination: from_ip(local.ip()),
                id: Self::ID,
                // Fragments of IPv6 may differ in what they say of it (RFC 8200, section 4.5).
                protocol: if remote.is_ipv4() { number } else { 0 },
            },
            owner: Owner {
                expires: LIFETIME,
                epoch: EPOCH,
                local_port: local.port(),
                remote_port: remote.port(),
                binding: u32::from(binding),
                protocol: number,
            },
            age: 0,
        }
    }

    pub fn aged(mut self, seconds: u64) -> Self {
        self.age = seconds;
        self
    }

    /// As it stands in the tables at a time in nanoseconds.
    pub fn stored(&self, now: u64) -> (Datagram, Owner) {
        let owner = Owner {
            expires: (now + LIFETIME).saturating_sub(self.age * SECOND),
            ..self.owner
        };
        (self.datagram, owner)
    }
}

/// What there is to hand packets to, and what is kept for it.
#[derive(Default)]
pub struct Steering {
    /// The CPUs of each binding.
    pub lists: HashMap<u16, CpuList>,
    /// The CPUs that take packets.
    pub cpus: HashSet<u32>,
    /// The sets of sockets.
    pub sets: HashMap<u16, XskSet>,
    /// The slots that are filled.
    pub sockets: HashSet<u32>,
    /// The receive queue of every packet.
    pub queue: u32,
    /// Whose packets in fragments are.
    pub fragments: RefCell<HashMap<Datagram, Owner>>,
    pub handed: Cell<Option<HandedTo>>,
}

impl Steering {
    pub fn redirect_to_cpu(&self, cpu: u32) -> bool {
        let takes = self.cpus.contains(&cpu);
        if takes {
            self.handed.set(Some(HandedTo::Cpu(cpu)));
        }
        takes
    }

    pub fn redirect_to_socket(&self, slot: u32) -> bool {
        let takes = self.sockets.contains(&slot);
        if takes {
            self.handed.set(Some(HandedTo::Socket(slot)));
        }
        takes
    }

    /// Where the last packet was handed to.
    pub fn handed(&self) -> Option<HandedTo> {
        self.handed.take()
    }
}
