//! From an IP packet to the Ethernet frame that takes it to its next hop, by the kernel's own tables.
//!
//! A stack in user space need not know routes and neighbours: the kernel of the same namespace does, and
//! keeps them up to date by its own ARP and neighbour discovery, which demux leaves to it. [`Link`] asks it
//! by rtnetlink: for the route (policy rules, gateways of either family, path MTU), for the devices (MAC
//! address, MTU, VLAN tags where a route leaves by an 802.1Q device above an interface of the set), and for
//! the MAC address of the next hop. It remembers the answers, and forgets them when the kernel tells of a
//! change.
//!
//! A next hop that is not resolved is resolved by the kernel, which is told that it is needed; the packet
//! waits meanwhile, with few others, of which the oldest give way. What waited is handed out by
//! [`Link::next_ready`].
//!
//! What else the kernel does to packets is not done: netfilter, traffic control, IPsec, fragments.
//!
//! ```no_run
//! # fn send(frame: &[u8]) {}
//! # fn stack_has() -> Option<Vec<u8>> { None }
//! use demux_user::xsk::link::{Link, Outcome};
//!
//! # fn main() -> demux_user::Result<()> {
//! let mut link = Link::open(&["eth0"])?;
//! while let Some(packet) = stack_has() {
//!     if let Outcome::Frame(frame) = link.frame(&packet)? {
//!         send(frame.bytes);
//!     }
//! }
//! // Once its descriptor is readable, or `link.timeout()` is over:
//! link.update()?;
//! while let Some(frame) = link.next_ready() {
//!     send(frame.bytes);
//! }
//! # Ok(()) }
//! ```
//!
//! A server that only ever answers can do without: see [`reply_like`].

mod device;
mod hop;
mod neighbour;
mod prompt;
mod route;
mod waiting;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use netlink_packet_route::route::RouteType;

pub use self::{
    device::Tag,
    hop::{Hop, Station, reply_like},
};
use self::{
    device::{Devices, Layer},
    hop::addresses,
    neighbour::{Key, Neighbour, Standing},
    prompt::Prompt,
    route::Route,
    waiting::Queue,
};
use crate::{
    Error, Result, interface,
    netlink::{Netlink, Notification, Notifications, RawMessage},
};

/// Of how many pairs of addresses the route is remembered, and of how many next hops the MAC address. Where
/// there are more, all are forgotten and asked for again.
const REMEMBERED: usize = 4096;

/// For how long a route is remembered. Redirects and what the kernel learns of path MTUs are not told.
const ROUTE_AGE: Duration = Duration::from_secs(10);

/// For how long it is remembered that there is none.
const NO_ROUTE_AGE: Duration = Duration::from_secs(1);

/// `RTNLGRP_` numbers of what is listened to: links, neighbours, then addresses, routes and rules of both
/// families (include/uapi/linux/rtnetlink.h).
const GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];

/// Makes Ethernet frames of IP packets, as the kernel of this namespace would address them.
///
/// It belongs to the network namespace of the thread that opened it. [`Link::frame`] never waits for
/// another host. The descriptor ([`AsFd`]) is readable when [`Link::update`] has something to read.
#[derive(Debug)]
pub struct Link {
    interfaces: Vec<u32>,
    netlink: Netlink,
    notifications: Notifications,
    prompt: Prompt,
    devices: Devices,
    routes: HashMap<(IpAddr, IpAddr), Remembered>,
    neighbours: HashMap<Key, Neighbour>,
    waiting: Queue,
    /// Whether there may be a packet that needs to wait no longer.
    is_any_ready: bool,
    frame: Vec<u8>,
    statistics: Statistics,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The frame to send now.
    Frame(Frame<'a>),
    /// The packet waits until its next hop is resolved, and is then handed out by [`Link::next_ready`].
    Waiting,
}

/// A frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The index of the interface to send it by, which is one of the set's.
    pub interface: u32,
    /// The frame, from its Ethernet header on.
    pub bytes: &'a [u8],
}

/// What became of packets that could not be sent at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Those that had to wait for their next hop.
    pub waited: u64,
    /// Those of them that gave way to newer ones.
    pub overflowed: u64,
    /// Those of them whose next hop did not answer.
    pub unreachable: u64,
}

/// The answer to where a packet goes, for some time.
#[derive(Debug)]
struct Remembered {
    answer: Result<Hop, Failure>,
    since: Instant,
}

/// Why there is no way for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    NoRoute,
    Local,
    Elsewhere(u32),
    Encapsulated,
    NotEthernet(u32),
    Silent,
}

impl Link {
    /// For a set that has sockets on these interfaces, given by their names.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownInterface`]; and where rtnetlink cannot be opened.
    pub fn open(interfaces: &[impl AsRef<str>]) -> Result<Self> {
        let failed = |source| Error::io("open rtnetlink", source);
        // First: no change may be missed after what it changes was asked for.
        let notifications = Notifications::of(&GROUPS).map_err(failed)?;
        let interfaces = interfaces
            .iter()
            .map(|name| Ok(interface::by_name(name.as_ref())?.index))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            interfaces,
            netlink: Netlink::route().map_err(failed)?,
            notifications,
            prompt: Prompt::new(),
            devices: Devices::default(),
            routes: HashMap::new(),
            neighbours: HashMap::new(),
            waiting: Queue::default(),
            is_any_ready: false,
            frame: Vec::new(),
            statistics: Statistics::default(),
        })
    }

    /// The frame that takes an IP packet, complete with its checksums, to its next hop.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where it is no whole IP packet, [`Error::PacketTooLong`] where it is longer
    /// than [`Link::mtu`], [`Error::Unreachable`] where no route leads by an interface of the set or the next
    /// hop has just failed to answer. These concern the packet alone; the link can be used on. Any other
    /// means that rtnetlink fails.
    pub fn frame(&mut self, packet: &[u8]) -> Result<Outcome<'_>> {
        let Some((source, destination)) = addresses(packet) else {
            return Err(Error::invalid(
                "IP packet",
                format!("{} bytes", packet.len()),
                "it is not as long as its header says",
            ));
        };
        let now = Instant::now();
        let hop = match self.way(source, destination, now)? {
            Ok(hop) => hop.clone(),
            Err(failure) => return Err(failure.error(destination)),
        };
        if packet.len() > hop.mtu {
            return Err(Error::PacketTooLong {
                destination,
                length: packet.len(),
                mtu: hop.mtu,
            });
        }
        let key = match hop.station {
            Station::Mac(mac) => return Ok(Outcome::Frame(self.write(&hop, mac, packet))),
            Station::Neighbour(address) => (hop.device, address),
        };
        match self.standing(key, now)? {
            Standing::Known(mac) | Standing::Stale(mac) => {
                Ok(Outcome::Frame(self.write(&hop, mac, packet)))
            }
            Standing::Resolving => {
                self.statistics.waited += 1;
                self.statistics.overflowed += self.waiting.push(key, hop, packet, now);
                Ok(Outcome::Waiting)
            }
            Standing::Failed => Err(Failure::Silent.error(destination)),
        }
    }

    /// Where a packet between these addresses would go.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`]; and where rtnetlink fails.
    pub fn hop(&mut self, source: IpAddr, destination: IpAddr) -> Result<Hop> {
        match self.way(source, destination, Instant::now())? {
            Ok(hop) => Ok(hop.clone()),
            Err(failure) => Err(failure.error(destination)),
        }
    }

    /// The largest IP packet between these addresses, in bytes: that of the device, or what the route or the
    /// kernel's knowledge of the path says.
    ///
    /// # Errors
    ///
    /// As [`Link::hop`].
    pub fn mtu(&mut self, source: IpAddr, destination: IpAddr) -> Result<usize> {
        Ok(self.hop(source, destination)?.mtu)
    }

    /// Takes in what the kernel has told of changes, and gives up what has waited for too long. Returns at
    /// once. To be called when the descriptor is readable, and after [`Link::timeout`].
    ///
    /// # Errors
    ///
    /// Where rtnetlink fails.
    pub fn update(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut changes = Vec::new();
        self.notifications
            .read(|notification| changes.push(notification))
            .map_err(|source| Error::io("read notifications of rtnetlink", source))?;
        for change in changes {
            match change {
                Notification::Change(message) => self.apply(&message, now),
                Notification::Lost => self.forget(),
            }
        }
        // What was forgotten is asked for again on behalf of those who wait for it.
        for key in self.waiting.keys() {
            if !self.neighbours.contains_key(&key) {
                self.standing(key, now)?;
            }
        }
        self.statistics.unreachable += self.waiting.expire(now);
        Ok(())
    }

    /// A packet whose next hop was resolved while it waited, as a frame to send.
    pub fn next_ready(&mut self) -> Option<Frame<'_>> {
        if !self.is_any_ready {
            return None;
        }
        let neighbours = &self.neighbours;
        let mac = |key: Key| match neighbours.get(&key)?.standing {
            Standing::Known(mac) | Standing::Stale(mac) => Some(mac),
            Standing::Resolving | Standing::Failed => None,
        };
        let Some((waiting, mac)) = self.waiting.take(mac) else {
            self.is_any_ready = false;
            return None;
        };
        Some(self.write(&waiting.hop, mac, &waiting.packet))
    }

    /// After which time [`Link::update`] should be called even where the descriptor is not readable; `None`
    /// while nothing waits.
    pub fn timeout(&self) -> Option<Duration> {
        let deadline = self.waiting.deadline()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// How many packets wait for their next hop now.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What became of packets that could not be sent at once.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Where a packet goes, remembered or asked for.
    fn way(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        now: Instant,
    ) -> Result<Result<&Hop, Failure>> {
        let key = (source, destination);
        let is_fresh = self.routes.get(&key).is_some_and(|known| {
            let age = if known.answer.is_ok() {
                ROUTE_AGE
            } else {
                NO_ROUTE_AGE
            };
            now.duration_since(known.since) < age
        });
        if !is_fresh {
            let answer = self.ask(source, destination)?;
            if self.routes.len() >= REMEMBERED {
                self.routes.clear();
            }
            self.routes.insert(key, Remembered { answer, since: now });
        }
        let known = &self.routes[&key];
        Ok(known.answer.as_ref().map_err(|failure| *failure))
    }

    /// Asks the kernel where a packet goes.
    fn ask(&mut self, source: IpAddr, destination: IpAddr) -> Result<Result<Hop, Failure>> {
        let failed = |error| Error::io(format!("ask for the route to {destination}"), error);
        // As a socket that is not bound to a device; then, for what has several tables (VRF) or addresses
        // of this link only, as one that is.
        let mut failure = Failure::NoRoute;
        let bound = self.interfaces.clone().into_iter().map(Some);
        for device in std::iter::once(None).chain(bound) {
            let route =
                route::ask(&mut self.netlink, source, destination, device).map_err(failed)?;
            let Some(route) = route else { continue };
            match self.hop_of(&route, destination).map_err(failed)? {
                Ok(hop) => return Ok(Ok(hop)),
                // The first is why it does not go by itself.
                Err(found) if failure == Failure::NoRoute => failure = found,
                Err(_) => {}
            }
        }
        Ok(Err(failure))
    }

    fn hop_of(&mut self, route: &Route, destination: IpAddr) -> io::Result<Result<Hop, Failure>> {
        let path = self
            .devices
            .path(&mut self.netlink, route.device, &self.interfaces)?;
        let Some(path) = path else {
            return Ok(Err(match route.kind {
                RouteType::Local => Failure::Local,
                _ => Failure::Elsewhere(route.device),
            }));
        };
        let Some(device) = self.devices.get(&mut self.netlink, route.device)? else {
            return Ok(Err(Failure::NoRoute));
        };
        let neighbour = Station::Neighbour(route.gateway.unwrap_or(destination));
        let station = match (device.layer, route.kind) {
            (Layer::Other, _) => return Ok(Err(Failure::NotEthernet(route.device))),
            _ if route.is_encapsulated => return Ok(Err(Failure::Encapsulated)),
            (Layer::Loopback, RouteType::Local | RouteType::Unicast) => Station::Mac(device.mac),
            (Layer::Ethernet, RouteType::Unicast | RouteType::Multicast)
                if destination.is_multicast() =>
            {
                Station::multicast(destination)
            }
            (Layer::Ethernet, RouteType::Unicast | RouteType::Anycast) => neighbour,
            (Layer::Ethernet, RouteType::Broadcast) => Station::BROADCAST,
            (_, RouteType::Local) => return Ok(Err(Failure::Local)),
            _ => return Ok(Err(Failure::NoRoute)),
        };
        let mtu = route.mtu.map_or(device.mtu, |mtu| mtu.min(device.mtu));
        Ok(Ok(Hop {
            interface: path.interface,
            device: route.device,
            tags: path.tags,
            source: device.mac,
            station,
            mtu: mtu as usize,
        }))
    }

    /// What is known of a next hop. Where that is nothing the kernel is asked, and told that it is needed.
    fn standing(&mut self, key: Key, now: Instant) -> Result<Standing> {
        let failed = |error| Error::io(format!("ask for the neighbour {}", key.1), error);
        if let Some(neighbour) = self.neighbours.get_mut(&key) {
            let reminds = neighbour.wants_reminder(now);
            if neighbour.standing != Standing::Failed || neighbour.is_hopeless(now) {
                if reminds {
                    neighbour.since = now;
                    self.prompt
                        .neighbour(&mut self.netlink, key)
                        .map_err(failed)?;
                }
                return Ok(neighbour.standing);
            }
        }
        let mut standing = neighbour::ask(&mut self.netlink, key).map_err(failed)?;
        if !matches!(standing, Standing::Known(_)) {
            self.prompt
                .neighbour(&mut self.netlink, key)
                .map_err(failed)?;
            // It may have answered in between, which nobody would tell.
            standing = match neighbour::ask(&mut self.netlink, key).map_err(failed)? {
                // Not yet begun.
                Standing::Failed => Standing::Resolving,
                standing => standing,
            };
        }
        self.remember(key, standing, now);
        Ok(standing)
    }

    fn write(&mut self, hop: &Hop, station: [u8; 6], packet: &[u8]) -> Frame<'_> {
        hop.write(&mut self.frame, station, packet);
        Frame {
            interface: hop.interface,
            bytes: &self.frame,
        }
    }

    fn remember(&mut self, key: Key, standing: Standing, now: Instant) {
        if self.neighbours.len() >= REMEMBERED && !self.neighbours.contains_key(&key) {
            self.neighbours.clear();
        }
        let since = now;
        self.neighbours.insert(key, Neighbour { standing, since });
        match standing {
            Standing::Known(_) | Standing::Stale(_) => self.is_any_ready = true,
            Standing::Failed => self.statistics.unreachable += self.waiting.remove(key),
            Standing::Resolving => {}
        }
    }

    /// Takes in a message about a change.
    fn apply(&mut self, message: &RawMessage, now: Instant) {
        match message.message_type {
            libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
                let Some((key, standing)) = neighbour::read(&message.payload) else {
                    return;
                };
                // Others are none of ours, of which there may be many.
                let Some(neighbour) = self.neighbours.get(&key) else {
                    return;
                };
                if message.message_type == libc::RTM_DELNEIGH {
                    self.neighbours.remove(&key);
                } else if neighbour.standing != standing {
                    self.remember(key, standing, now);
                }
            }
            libc::RTM_NEWLINK | libc::RTM_DELLINK => {
                if link_index(&message.payload).is_none_or(|index| self.devices.knows(index)) {
                    self.forget();
                }
            }
            // Addresses, routes and rules: any of them may change any route.
            _ => self.routes.clear(),
        }
    }

    /// Forgets what the kernel has told; it will be asked again.
    fn forget(&mut self) {
        self.devices.clear();
        self.routes.clear();
        self.neighbours.clear();
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifications.as_fd()
    }
}

/// The index in the header of a message about a link (`struct ifinfomsg`).
fn link_index(payload: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*payload.get(4..)?.first_chunk()?))
}

impl Failure {
    fn error(self, destination: IpAddr) -> Error {
        let reason = match self {
            Self::NoRoute => "there is no route from the source address".to_owned(),
            Self::Local => "it is this host itself".to_owned(),
            Self::Elsewhere(device) => format!(
                "the route leaves by device {device}, which is none of the set's interfaces"
            ),
            Self::Encapsulated => "the route puts packets into others".to_owned(),
            Self::NotEthernet(device) => format!("device {device} does not have Ethernet frames"),
            Self::Silent => "the next hop does not answer".to_owned(),
        };
        Error::Unreachable {
            destination,
            reason,
        }
    }
}
