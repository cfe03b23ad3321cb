//! Bindings of a world.

use demux_common::{
    binding::{Binding, NAME_LEN, Target},
    protocol::Protocol,
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Any,
    /// The one that packets arrive on.
    This,
    Another,
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
            created: 1,
            ifindex: match self.device {
                Device::Any => 0,
                Device::This => ifindex,
                Device::Another => ifindex + 1,
            },
            first_port: pattern.ports.first,
            last_port: pattern.ports.last,
            family,
            protocol: self.protocol,
            prefix_len,
            target: self.target,
            flags: self.flags | if v6_only { Binding::V6_ONLY } else { 0 },
            reserved: 0,
            next_member: 0,
            set: 0,
            steered_until: 0,
        }
    }
}
