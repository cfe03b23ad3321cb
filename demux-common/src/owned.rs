//! Endpoints that demux owns for a target other than the stack, as the hooks of bind(2) look for them.

use crate::address::Address;

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
