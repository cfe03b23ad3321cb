//! Bindings of a world.

use demux_common::{
    binding::{Binding, NAME_LEN, Target},
    protocol::Protocol,
    steering::CpuList,
};
use demux_user::bindings::Pattern;

/// A binding of a world. Its index is its place in the list, from 1 on.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    pub protocol: Protocol,
    pub local: String,
    pub v6_only: bool,
    pub target: Target,
    pub device: Device,
    pub flags: u8,
    /// The CPUs of a binding to such.
    pub cpus: Vec<u16>,
    /// The set of a binding to sockets.
    pub set: u16,
    /// The epoch in which it was made.
    pub created: u32,
    /// Until which epoch a steered binding had the entry before.
    pub steered_until: u32,
    /// The next binding of its group.
    pub next_member: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Any,
    /// The one that packets arrive on.
    This,
    Another,
}

impl Device {
    /// Its index, where packets arrive on the one with this index.
    pub const fn index(self, ifindex: u32) -> u32 {
        match self {
            Self::Any => 0,
            Self::This => ifindex,
            Self::Another => ifindex + 1,
        }
    }
}

/// CPUs as the tables have them.
pub fn cpu_list(cpus: &[u16]) -> CpuList {
    let mut list = CpuList::EMPTY;
    list.count = cpus.len() as u32;
    list.cpus[..cpus.len()].copy_from_slice(cpus);
    list
}

impl Bound {
    pub fn new(protocol: Protocol, local: &str) -> Self {
        Self {
            protocol,
            local: local.to_owned(),
            v6_only: false,
            target: Target::Stack,
            device: Device::Any,
            flags: 0,
            cpus: Vec::new(),
            set: 0,
            created: 1,
            steered_until: 0,
            next_member: 0,
        }
    }

    pub fn tcp(local: &str) -> Self {
        Self::new(Protocol::Tcp, local)
    }

    pub fn udp(local: &str) -> Self {
        Self::new(Protocol::Udp, local)
    }

    pub fn drop(mut self) -> Self {
        self.target = Target::Drop;
        self
    }

    pub fn reject(mut self) -> Self {
        self.target = Target::Reject;
        self
    }

    /// To CPUs, and nowhere else.
    pub fn to_cpus(mut self, cpus: &[u16]) -> Self {
        self.target = Target::Cpu;
        self.cpus = cpus.to_vec();
        self
    }

    /// To the sockets of a set, and nowhere else.
    pub fn to_set(mut self, set: u16) -> Self {
        self.target = Target::Xsk;
        self.set = set;
        self
    }

    /// What the target cannot take goes up the stack.
    pub fn or_stack(mut self) -> Self {
        self.flags |= Binding::FALLBACK_STACK;
        self
    }

    pub fn created(mut self, epoch: u32) -> Self {
        self.created = epoch;
        self
    }

    /// In the entry of a steered binding that ended in this epoch.
    pub fn after_steered(mut self, epoch: u32) -> Self {
        self.steered_until = epoch;
        self
    }

    /// In a group with the binding at this index.
    pub fn with_member(mut self, next: u16) -> Self {
        self.next_member = next;
        self.flags |= Binding::REUSE_PORT;
        self
    }

    /// The CPUs as the tables have them.
    pub fn cpu_list(&self) -> CpuList {
        cpu_list(&self.cpus)
    }

    pub fn here(mut self) -> Self {
        self.device = Device::This;
        self
    }

    pub fn elsewhere(mut self) -> Self {
        self.device = Device::Another;
        self
    }

    pub fn v6_only(mut self) -> Self {
        self.v6_only = true;
        self
    }

    pub fn untracked(mut self) -> Self {
        self.flags |= Binding::UNTRACKED;
        self
    }

    pub fn stored(&self, index: u16, ifindex: u32) -> Binding {
        let pattern = Pattern::parse(self.protocol, &self.local, self.v6_only)
            .unwrap_or_else(|error| panic!("{error}"));
        let (address, family, prefix_len, v6_only) = pattern.stored_address();
        let mut name = [0; NAME_LEN];
        let text = format!("b{index}");
        name[..text.len()].copy_from_slice(text.as_bytes());
        Binding {
            address,
            name,
            created: self.created,
            ifindex: self.device.index(ifindex),
            first_port: pattern.ports.first,
            last_port: pattern.ports.last,
            family,
            protocol: self.protocol,
            prefix_len,
            target: self.target,
            flags: self.flags | if v6_only { Binding::V6_ONLY } else { 0 },
            reserved: 0,
            next_member: self.next_member,
            set: self.set,
            steered_until: self.steered_until,
        }
    }
}
