//! CPUs and sockets that packets are handed to, on the host.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
};

use demux_common::{
    fragments::{Datagram, Owner},
    steering::{CpuList, XskSet},
};

/// Where a packet was handed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedTo {
    Cpu(u32),
    Socket(u32),
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
    handed: Cell<Option<HandedTo>>,
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
