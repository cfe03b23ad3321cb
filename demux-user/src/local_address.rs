//! Which addresses this namespace receives for itself, and whether it forwards the rest.
//!
//! The kernel's *local* routing table decides: it holds the addresses of all interfaces, `127.0.0.0/8`,
//! and prefixes that were made local by hand (AnyIP).

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use crate::{Error, Result, netlink::Netlink};

/// The prefixes whose addresses are local, IPv4 before IPv6, each once, the least specific first.
///
/// Broadcast, multicast and anycast addresses are not among them.
///
/// # Errors
///
/// Where rtnetlink cannot be asked.
pub fn local_prefixes() -> Result<BTreeSet<IpNet>> {
    let failed = |source| Error::io("read the local routing table", source);
    let mut netlink = Netlink::route().map_err(failed)?;
    let mut prefixes = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        match dump(&mut netlink, family) {
            Ok(found) => prefixes.extend(found),
            // A kernel without IPv6 has no local IPv6 addresses, and a namespace that never had an
            // address has no local table.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOENT)) => {
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(prefixes)
}

/// The local addresses of interfaces, each with the index of its interface. Prefixes that were made
/// local by hand are not among them.
///
/// # Errors
///
/// Where rtnetlink cannot be asked.
pub fn by_interface() -> Result<Vec<(IpAddr, u32)>> {
    let failed = |source| Error::io("read the local routing table", source);
    let mut netlink = Netlink::route().map_err(failed)?;
    let mut addresses = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        match routes(&mut netlink, family) {
            Ok(routes) => addresses.extend(routes.iter().filter_map(|route| {
                let prefix = local_prefix(route)?;
                let is_address = prefix.prefix_len() == prefix.max_prefix_len();
                let device = route
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        RouteAttribute::Oif(index) => Some(*index),
                        _ => None,
                    })?;
                is_address.then_some((prefix.addr(), device))
            })),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOENT)) => {
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(addresses)
}

/// Whether the namespace forwards packets that come in through `interface` to somebody else.
///
/// # Errors
///
/// Where `/proc/sys/net` cannot be read.
pub fn is_forwarding(interface: &str) -> Result<bool> {
    Ok(switch("ipv4", interface)? || switch("ipv6", "all")? || switch("ipv6", interface)?)
}

/// Reads a forwarding sysctl, which /proc/sys shows of the namespace of the thread that reads it.
fn switch(family: &str, interface: &str) -> Result<bool> {
    let path = format!("/proc/sys/net/{family}/conf/{interface}/forwarding");
    match fs::read_to_string(&path) {
        Ok(value) => Ok(value.trim() != "0"),
        // No such protocol, or, for names with odd characters, no such file: then nothing is forwarded.
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::io(format!("read {path}"), source)),
    }
}

fn dump(netlink: &mut Netlink, family: AddressFamily) -> io::Result<Vec<IpNet>> {
    Ok(routes(netlink, family)?
        .iter()
        .filter_map(local_prefix)
        .collect())
}

fn routes(netlink: &mut Netlink, family: AddressFamily) -> io::Result<Vec<RouteMessage>> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.header.table = libc::RT_TABLE_LOCAL;
    request.header.kind = RouteType::Local;
    let answer = netlink.dump(&RouteNetlinkMessage::GetRoute(request))?;
    Ok(answer
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        })
        .collect())
}

/// The destination of a route, where it is a local one.
fn local_prefix(route: &RouteMessage) -> Option<IpNet> {
    let header = &route.header;
    if header.table != libc::RT_TABLE_LOCAL || header.kind != RouteType::Local {
        return None;
    }
    let destination = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        });
    // A route without a destination is for every address.
    let address = destination.unwrap_or(match header.address_family {
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    });
    IpNet::new(address, header.destination_prefix_length)
        .ok()
        .map(|prefix| prefix.trunc())
}
