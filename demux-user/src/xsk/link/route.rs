//! What the kernel's routing tables say about a packet.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia,
    },
};

use crate::netlink::Netlink;

/// The way that the kernel would send a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// The index of the device that it leaves by.
    pub(super) device: u32,
    /// The gateway, of either family; `None` where the destination is on the link itself.
    pub(super) gateway: Option<IpAddr>,
    /// What the destination is.
    pub(super) kind: RouteType,
    /// The largest packet, where the route says so or the kernel has learned so.
    pub(super) mtu: Option<u32>,
    /// Whether the kernel would put the packet into another one (MPLS, segment routing, tunnels).
    pub(super) is_encapsulated: bool,
}

/// Asks how the kernel would send from `source` to `destination`: as an ordinary socket does, or, with a
/// device, as one that is bound to it (SO_BINDTODEVICE). `None` where it would not.
pub(super) fn ask(
    netlink: &mut Netlink,
    source: IpAddr,
    destination: IpAddr,
    device: Option<u32>,
) -> io::Result<Option<Route>> {
    let request = RouteNetlinkMessage::GetRoute(question(source, destination, device));
    match netlink.request(request, 0) {
        Ok(answer) => Ok(answer.iter().find_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => read(route),
            _ => None,
        })),
        // The words for: no route, an unreachable one, a prohibited one, a black hole, no such source.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
            ) =>
        {
            Ok(None)
        }
        // No device of that index, or no such protocol any more.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENODEV | libc::EOPNOTSUPP | libc::EADDRNOTAVAIL)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn question(source: IpAddr, destination: IpAddr, device: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    (header.address_family, header.destination_prefix_length) = match destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    header.source_prefix_length = header.destination_prefix_length;
    if destination.is_ipv4() {
        // The table of an IPv4 route tells a real one from a guess: see `read`.
        header.flags = RouteFlags::LookupTable;
    }
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(destination)),
        RouteAttribute::Source(RouteAddress::from(source)),
    ];
    message.attributes.extend(device.map(RouteAttribute::Oif));
    message
}

fn read(message: &RouteMessage) -> Option<Route> {
    let mut route = Route {
        device: 0,
        gateway: None,
        kind: message.header.kind,
        mtu: None,
        is_encapsulated: false,
    };
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.device = *index,
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Gateway(RouteAddress::Inet(gateway))
            | RouteAttribute::Via(RouteVia::Inet(gateway)) => {
                route.gateway = Some((*gateway).into());
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway))
            | RouteAttribute::Via(RouteVia::Inet6(gateway)) => {
                route.gateway = Some((*gateway).into());
            }
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => {
                route.is_encapsulated = true;
            }
            _ => {}
        }
    }
    // Asked for an IPv4 destination that no table has, but with a device, Linux supposes that it is on
    // that link (`ip_route_output_key_hash_rcu`); the answer is then of no table.
    let is_guess = message.header.address_family == AddressFamily::Inet
        && table == u32::from(libc::RT_TABLE_UNSPEC);
    (route.device != 0 && !is_guess).then_some(route)
}
