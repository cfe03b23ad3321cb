//! What the kernel's neighbour table says about a next hop.

use std::{
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_CREATE, Parseable as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};

use crate::netlink::Netlink;

/// A next hop: the index of the device that it is a neighbour on, and its address.
pub(super) type Key = (u32, IpAddr);

/// For how long a next hop that did not answer is not asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// How often at most the kernel is told that a neighbour is in use that it last heard of long ago.
const REMINDER: Duration = Duration::from_secs(1);

/// What is known of a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has this MAC address.
    Known([u8; 6]),
    /// As `Known`, but nobody has heard of it for a while: the kernel should ask whether it is still there.
    Stale([u8; 6]),
    /// The kernel is asking for it, or is about to.
    Resolving,
    /// It did not answer.
    Failed,
}

/// A next hop that was sent to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Neighbour {
    pub(super) standing: Standing,
    /// When that became so, or when the kernel was last told that the neighbour is in use.
    pub(super) since: Instant,
}

impl Neighbour {
    /// Whether it failed a moment ago.
    pub(super) fn is_hopeless(&self, now: Instant) -> bool {
        self.standing == Standing::Failed && now.duration_since(self.since) < RETRY
    }

    /// Whether the kernel should be told that a stale neighbour is in use.
    pub(super) fn wants_reminder(&self, now: Instant) -> bool {
        matches!(self.standing, Standing::Stale(_)) && now.duration_since(self.since) >= REMINDER
    }
}

/// Reads the payload of RTM_NEWNEIGH; `None` where it is about something else, such as a bridge's table.
pub(super) fn read(payload: &[u8]) -> Option<(Key, Standing)> {
    let message = NeighbourMessage::parse(payload).ok()?;
    let address = address(&message)?;
    Some(((message.header.ifindex, address), standing(&message)))
}

/// Asks what the kernel knows of a neighbour now.
pub(super) fn ask(netlink: &mut Netlink, key: Key) -> io::Result<Standing> {
    let request = RouteNetlinkMessage::GetNeighbour(message(key));
    match netlink.request(request, 0) {
        Ok(answer) => Ok(answer
            .iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => Some(standing(message)),
                _ => None,
            })
            .unwrap_or(Standing::Resolving)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Standing::Resolving),
        Err(error) => Err(error),
    }
}

/// Tells the kernel that a neighbour is in use, as if it had a packet for it: it resolves one that it does
/// not know, and verifies one that it has not heard of for long. Needs CAP_NET_ADMIN.
pub(super) fn tell_in_use(netlink: &mut Netlink, key: Key) -> io::Result<()> {
    let mut message = message(key);
    message.header.flags = NeighbourFlags::Use;
    let request = RouteNetlinkMessage::NewNeighbour(message);
    netlink.request(request, NLM_F_CREATE).map(drop)
}

fn message((device, address): Key) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = device;
    message
        .attributes
        .push(NeighbourAttribute::Destination(address.into()));
    message
}

fn address(message: &NeighbourMessage) -> Option<IpAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some(IpAddr::V4(*address))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some(IpAddr::V6(*address))
            }
            _ => None,
        })
}

fn standing(message: &NeighbourMessage) -> Standing {
    let mac = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(address) => address[..].try_into().ok(),
            _ => None,
        });
    match (message.header.state, mac) {
        (NeighbourState::Failed, _) => Standing::Failed,
        (NeighbourState::Stale, Some(mac)) => Standing::Stale(mac),
        (
            NeighbourState::Reachable
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Noarp
            | NeighbourState::Permanent,
            Some(mac),
        ) => Standing::Known(mac),
        _ => Standing::Resolving,
    }
}
