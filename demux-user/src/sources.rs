//! Telling the datapath from which address this host sends to a destination, as far as the routing
//! table alone decides that.
//!
//! Where it does not (several addresses of an interface over IPv6, several next hops, rules that
//! choose between tables), nothing is told, and whoever asks has to do without.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use demux_common::{
    address::Address,
    layout::{LocalPrefix, Source, capacity},
};
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    rule::{RuleAttribute, RuleMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::{Error, Result, bindings::pattern::from_ip, netlink::Netlink, tables::Tables};

/// Groups of rtnetlink (`enum rtnetlink_groups`) in which changes are told that matter here.
const GROUPS: [u32; 6] = [
    5,  // IPv4 addresses
    7,  // IPv4 routes
    8,  // IPv4 rules
    9,  // IPv6 addresses
    11, // IPv6 routes
    19, // IPv6 rules
];

/// The tables that every host has rules for.
const TABLES: [u8; 3] = [
    libc::RT_TABLE_LOCAL,
    libc::RT_TABLE_MAIN,
    libc::RT_TABLE_DEFAULT,
];

/// Brings the table of sources up to date. Where there are more routes than it has room for, it knows
/// this host's own addresses only.
///
/// # Errors
///
/// Where rtnetlink cannot be asked or the map cannot be written.
pub fn refresh(tables: &Tables) -> Result<()> {
    Wanted::read()?.write(tables)
}

/// What the table of sources should hold.
#[derive(Debug)]
pub(crate) struct Wanted(HashMap<LocalPrefix, Address>);

impl Wanted {
    /// Asks the kernel, which takes long on a router with many routes.
    ///
    /// # Errors
    ///
    /// Where rtnetlink cannot be asked.
    pub(crate) fn read() -> Result<Self> {
        sources().map(Self)
    }

    /// Writes what has changed.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read or written.
    pub(crate) fn write(&self, tables: &Tables) -> Result<()> {
        let known: HashMap<LocalPrefix, Address> = tables.sources()?.into_iter().collect();
        for prefix in known.keys() {
            if !self.0.contains_key(prefix) {
                tables.remove_source(prefix)?;
            }
        }
        for (prefix, address) in &self.0 {
            if known.get(prefix) != Some(address) {
                tables.set_source(prefix, address)?;
            }
        }
        Ok(())
    }
}

/// Changes of routes, addresses and rules in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Changes {
    socket: Socket,
}

impl Changes {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// Where the socket cannot be opened.
    pub fn open() -> Result<Self> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| Error::io("listen for changes of routes", source))?;
        Ok(Self { socket })
    }

    /// Takes what has come, and tells whether there was anything.
    pub fn take(&self) -> bool {
        let mut is_any = false;
        let mut buffer = Vec::with_capacity(1 << 16);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => is_any = true,
                // More than there was room for: something has changed.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => is_any = true,
                Err(_) => return is_any,
            }
        }
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the socket's, which lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

/// What is known of the addresses of an interface.
#[derive(Debug)]
struct Assigned {
    index: u32,
    address: IpAddr,
    net: IpNet,
    scope: AddressScope,
    flags: AddressHeaderFlags,
}

fn sources() -> Result<HashMap<LocalPrefix, Address>> {
    let sources = read(false)?;
    if sources.len() <= capacity::SOURCES as usize {
        return Ok(sources);
    }
    // With some routes and not others, the wrong one would be the longest that covers a destination.
    Ok(read(true)?
        .into_iter()
        .take(capacity::SOURCES as usize)
        .collect())
}

/// What the routing tables say, or the local one alone.
fn read(local_only: bool) -> Result<HashMap<LocalPrefix, Address>> {
    let mut sources = HashMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        match of_family(family, local_only) {
            Ok(found) => sources.extend(
                found
                    .into_iter()
                    .map(|(prefix, source)| (stored(&prefix), source)),
            ),
            // A kernel without IPv6 has no IPv6 routes.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOENT)) => {
            }
            Err(error) => return Err(Error::io("read the routing tables", error)),
        }
    }
    Ok(sources)
}

fn of_family(family: AddressFamily, local_only: bool) -> io::Result<HashMap<IpNet, Address>> {
    let mut netlink = Netlink::route()?;
    let local_only = local_only || has_rules_of_its_own(&mut netlink, family)?;
    let assigned = assigned(&mut netlink, family)?;
    let mut chosen: HashMap<IpNet, (u32, u32, Address)> = HashMap::new();
    for table in TABLES {
        let routes = match routes(&mut netlink, family, table) {
            Ok(routes) => routes,
            // Nobody has used that table yet.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) => return Err(error),
        };
        for route in routes {
            let is_local = route.header.kind == RouteType::Local;
            if route.header.table != table || route.header.tos != 0 || local_only && !is_local {
                continue;
            }
            let Some(prefix) = destination(&route) else {
                continue;
            };
            // Of one prefix, the local table's comes first, and then what has the lower metric.
            let order = (u32::from(!is_local), metric(&route));
            let source = source(&route, &assigned);
            match chosen.get(&prefix) {
                Some((before, other, _)) if (*before, *other) <= order => {}
                _ => {
                    chosen.insert(prefix, (order.0, order.1, source));
                }
            }
        }
    }
    Ok(chosen
        .into_iter()
        .map(|(prefix, (_, _, source))| (prefix, source))
        .collect())
}

/// Whether rules other than those that every host has may send packets by other tables.
fn has_rules_of_its_own(netlink: &mut Netlink, family: AddressFamily) -> io::Result<bool> {
    let mut request = RuleMessage::default();
    request.header.family = family;
    let answer = match netlink.dump(&RouteNetlinkMessage::GetRule(request)) {
        Ok(answer) => answer,
        // A kernel without rules has none.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(answer.iter().any(|message| match message {
        RouteNetlinkMessage::NewRule(rule) => {
            let priority = rule
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RuleAttribute::Priority(priority) => Some(*priority),
                    _ => None,
                })
                .unwrap_or_default();
            // That of VRFs is for sockets that are bound to a device.
            !(TABLES.contains(&rule.header.table) && [0, 32_766, 32_767].contains(&priority)
                || priority == 1000)
        }
        _ => false,
    }))
}

fn routes(
    netlink: &mut Netlink,
    family: AddressFamily,
    table: u8,
) -> io::Result<Vec<RouteMessage>> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.header.table = table;
    let answer = netlink.dump(&RouteNetlinkMessage::GetRoute(request))?;
    Ok(answer
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        })
        .collect())
}

fn assigned(netlink: &mut Netlink, family: AddressFamily) -> io::Result<Vec<Assigned>> {
    let mut request = AddressMessage::default();
    request.header.family = family;
    let answer = netlink.dump(&RouteNetlinkMessage::GetAddress(request))?;
    Ok(answer
        .into_iter()
        .filter_map(|message| {
            let RouteNetlinkMessage::NewAddress(message) = message else {
                return None;
            };
            let of = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
                message.attributes.iter().find_map(wanted)
            };
            let peer = of(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            let own = of(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let address = own.or(peer)?;
            Some(Assigned {
                index: message.header.index,
                address,
                net: IpNet::new(peer?, message.header.prefix_len).ok()?,
                scope: message.header.scope,
                flags: message.header.flags,
            })
        })
        .collect())
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        })
        .unwrap_or(match route.header.address_family {
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        });
    IpNet::new(address, route.header.destination_prefix_length)
        .ok()
        .map(|prefix| prefix.trunc())
}

fn metric(route: &RouteMessage) -> u32 {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        })
        .unwrap_or_default()
}

/// The source address of what takes a route: a value of the table.
fn source(route: &RouteMessage, assigned: &[Assigned]) -> Address {
    let mut preferred = None;
    let mut gateway = None;
    let mut device = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => {
                preferred = Some(IpAddr::V4(*address));
            }
            RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => {
                preferred = Some(IpAddr::V6(*address));
            }
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                gateway = Some(IpAddr::V4(*address));
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                gateway = Some(IpAddr::V6(*address));
            }
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::MultiPath(_) => return Source::UNKNOWN,
            _ => {}
        }
    }
    if let Some(address) = preferred {
        return from_ip(address);
    }
    let is_v6 = route.header.address_family == AddressFamily::Inet6;
    match (route.header.kind, device) {
        (RouteType::Local, _) => Source::DESTINATION,
        (RouteType::Unicast, Some(device)) if is_v6 => only_global(assigned, device),
        (RouteType::Unicast, Some(device)) => primary(assigned, device, gateway),
        _ => Source::UNKNOWN,
    }
}

/// `inet_select_addr()`: of the interface's primary addresses the one whose network has the gateway
/// in it, else the first.
fn primary(assigned: &[Assigned], device: u32, gateway: Option<IpAddr>) -> Address {
    if gateway.is_some_and(|gateway| gateway.is_ipv6()) {
        return Source::UNKNOWN;
    }
    let candidates = || {
        assigned.iter().filter(|entry| {
            entry.index == device
                && entry.scope == AddressScope::Universe
                && !entry.flags.contains(AddressHeaderFlags::Secondary)
        })
    };
    let beside = |gateway: IpAddr| candidates().find(|entry| entry.net.contains(&gateway));
    gateway
        .and_then(beside)
        .or_else(|| candidates().next())
        .map_or(Source::UNKNOWN, |entry| from_ip(entry.address))
}

/// RFC 6724 prefers addresses of the interface by which packets leave; so where there is only one
/// that reaches everywhere, it is the one.
fn only_global(assigned: &[Assigned], device: u32) -> Address {
    let unusable = AddressHeaderFlags::Tentative
        | AddressHeaderFlags::Deprecated
        | AddressHeaderFlags::Dadfailed;
    let mut candidates = assigned.iter().filter(|entry| {
        entry.index == device
            && entry.scope == AddressScope::Universe
            && !entry.flags.intersects(unusable)
    });
    match (candidates.next(), candidates.next()) {
        (Some(entry), None) => from_ip(entry.address),
        _ => Source::UNKNOWN,
    }
}

fn stored(net: &IpNet) -> LocalPrefix {
    let mapping = if net.addr().is_ipv4() { 96 } else { 0 };
    LocalPrefix {
        prefix_len: LocalPrefix::FIXED_BITS + mapping + u32::from(net.prefix_len()),
        reserved: 0,
        address: from_ip(net.network()),
    }
}
