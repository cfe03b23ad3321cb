//! Two hosts with a cable between them: the one that demux is loaded on, and its peer.

use std::net::{IpAddr, SocketAddr};

use super::netns::Netns;

/// The interface of the host that demux is loaded on.
pub const HOST: &str = "host0";

/// The interface of its peer.
pub const PEER: &str = "peer0";

/// Both versions of IP.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A version of IP, with the addresses of both hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The address of the host that demux is loaded on.
    pub fn host(self) -> IpAddr {
        match self {
            Self::V4 => [10, 0, 0, 2].into(),
            Self::V6 => [0xfd00, 0, 0, 0, 0, 0, 0, 2].into(),
        }
    }

    /// The address of its peer.
    pub fn peer(self) -> IpAddr {
        match self {
            Self::V4 => [10, 0, 0, 1].into(),
            Self::V6 => [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(),
        }
    }

    pub fn at_host(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.host(), port)
    }

    pub fn at_peer(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.peer(), port)
    }

    /// The wildcard with a port.
    pub fn any(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => ([0, 0, 0, 0], port).into(),
            Self::V6 => ([0_u16; 8], port).into(),
        }
    }
}

/// The two hosts.
#[derive(Debug)]
pub struct Pair {
    pub host: Netns,
    pub peer: Netns,
}

impl Pair {
    pub fn new() -> Self {
        let pair = Self {
            host: quick_netns(),
            peer: quick_netns(),
        };
        pair.host.veth(HOST, &pair.peer, PEER);
        for family in FAMILIES {
            let bits = match family {
                Family::V4 => 24,
                Family::V6 => 64,
            };
            pair.host
                .add_address(HOST, &format!("{}/{bits}", family.host()));
            pair.peer
                .add_address(PEER, &format!("{}/{bits}", family.peer()));
        }
        pair
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

/// A namespace that does not look for duplicates of its own addresses, which takes a second.
pub fn quick_netns() -> Netns {
    let netns = Netns::new();
    netns.sysctl("net/ipv6/conf/default/accept_dad", "0");
    netns
}
