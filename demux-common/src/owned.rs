//! Endpoints that demux owns for a target other than the stack, as the hooks of bind(2) look for them.

use crate::{
    address::Address,
    overlap::{Endpoint, overlaps},
    protocol::Protocol,
};

/// How many places a port has. Who owns more endpoints of it owns all of it.
pub const PLACES: u32 = 16;

/// One of the endpoints of a port that are owned.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct OwnedKey {
    /// The number of [`crate::protocol::Protocol`].
    pub protocol: u16,
    /// The port.
    pub port: u16,
    /// Which of the port's endpoints, counted from 0 without gaps.
    pub place: u32,
}

/// An endpoint that is owned.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Owned {
    /// The address.
    pub address: Address,
    /// The device; 0 for every device.
    pub ifindex: u32,
    /// Whether an IPv6 wildcard leaves IPv4 alone: 1 or 0.
    pub v6_only: u32,
}

impl Owned {
    /// The endpoint, as it is compared with others.
    #[inline(always)]
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        Endpoint {
            address: self.address,
            ifindex: self.ifindex,
            v6_only: self.v6_only != 0,
        }
    }
}

impl From<Endpoint> for Owned {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            address: endpoint.address,
            ifindex: endpoint.ifindex,
            v6_only: u32::from(endpoint.v6_only),
        }
    }
}

/// Where the owned endpoints are.
pub trait OwnedPorts {
    /// The endpoint at a place of a port, copied.
    fn get(&self, key: &OwnedKey) -> Option<Owned>;
}

/// Whether an endpoint that somebody asks for overlaps one that is owned. Flags for sharing do not
/// matter: what is owned is not shared.
#[inline(always)]
pub fn is_owned(ports: &impl OwnedPorts, protocol: Protocol, port: u16, asked: &Endpoint) -> bool {
    let mut key = OwnedKey {
        protocol: protocol as u16,
        port,
        place: 0,
    };
    while key.place < PLACES {
        let Some(owned) = ports.get(&key) else {
            return false;
        };
        if overlaps(&owned.endpoint(), asked) {
            return true;
        }
        key.place += 1;
    }
    false
}
