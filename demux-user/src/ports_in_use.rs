//! Who owns a local port: the kernel's sockets, demux's bindings and reservations, and the ports that
//! are reserved by the settings, joined.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv6Addr},
};

use demux_common::{
    connection::{ConnectionKey, State},
    protocol::Protocol,
};

use crate::{
    Result,
    bindings::{Labels, LocalAddress, Pattern, Ports, change::name_of, pattern::to_ip},
    bpffs::BpfFs,
    connections::Reader,
    netns::NetworkNamespace,
    ports,
    sockets::{
        self, Socket, SocketState, States,
        owner::{Owner, Owners},
    },
    state::{Instance, Lock},
    tables::{Access, Tables},
};

/// Which ports are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The ports; ranges count where they overlap.
    pub ports: Ports,
    /// The protocol; `None` for both.
    pub protocol: Option<Protocol>,
}

impl Wanted {
    /// Every port of both protocols.
    pub const ALL: Self = Self {
        ports: Ports::ANY,
        protocol: None,
    };

    fn includes(&self, protocol: Protocol, ports: Ports) -> bool {
        self.protocol.is_none_or(|wanted| wanted == protocol)
            && ports.first <= self.ports.last
            && self.ports.first <= ports.last
    }
}

/// A local port, or range of ports, that somebody owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The ports: one, unless a binding or the settings have a range.
    pub ports: Ports,
    /// Who owns them.
    pub owner: PortOwner,
}

/// Who owns a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortOwner {
    /// Sockets of the kernel that one process holds, or none.
    Kernel {
        /// The process. `None` for what no process holds, such as TIME-WAIT, and for processes that
        /// the caller may not look into.
        process: Option<Owner>,
        /// The local endpoints, each once, in order.
        locals: Vec<Pattern>,
        /// The states that they are in, each once, in the order of their numbers.
        states: Vec<SocketState>,
        /// How many sockets there are.
        sockets: u64,
    },
    /// A binding of demux.
    Binding {
        /// Its name.
        name: String,
        /// Its local endpoints.
        local: Pattern,
        /// The index of its device; 0 for every device.
        ifindex: u32,
        /// Where its packets go.
        target: Cow<'static, str>,
    },
    /// Ports that were allocated for connections to come.
    Reservation {
        /// The local endpoints, each once, in order.
        locals: Vec<Pattern>,
        /// How many remotes it is allocated for.
        reservations: u64,
    },
    /// The settings keep it from being handed out: `ephemeral.reserved`, which follows
    /// `net.ipv4.ip_local_reserved_ports` unless it was set.
    Reserved,
}

/// Who owns which ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortsInUse {
    /// By protocol and first port; of one port the kernel's first, then bindings, reservations and what
    /// the settings reserve.
    pub uses: Vec<PortUse>,
    /// How many sockets are held by processes that the caller may not look into.
    pub hidden: u64,
}

/// Reads who owns the ports of the current network namespace.
///
/// # Errors
///
/// [`Error::NotLoaded`](crate::Error::NotLoaded); where the maps, the kernel's sockets, `/proc` or the settings cannot be read.
pub fn ports_in_use(bpffs: &BpfFs, wanted: &Wanted) -> Result<PortsInUse> {
    let tables = {
        let namespace = NetworkNamespace::current()?;
        let instance = Instance::open(bpffs, namespace.cookie(), Lock::Shared)?;
        Tables::open(&instance, Access::ReadOnly)?
    };
    let (mut uses, hidden) = kernel(wanted)?;
    uses.extend(bindings(&tables, wanted)?);
    uses.extend(reservations(&tables, wanted)?);
    uses.extend(reserved(&tables, wanted)?);
    // Bindings come in the order of their precedence, processes in that of their numbers.
    uses.sort_by_key(|port_use| {
        let rank = match port_use.owner {
            PortOwner::Kernel { .. } => 0,
            PortOwner::Binding { .. } => 1,
            PortOwner::Reservation { .. } => 2,
            PortOwner::Reserved => 3,
        };
        (port_use.protocol, port_use.ports.first, rank)
    });
    Ok(PortsInUse { uses, hidden })
}

/// The sockets of one process with one port.
#[derive(Default)]
struct Held {
    process: Option<Owner>,
    locals: Vec<(IpAddr, Pattern)>,
    states: Vec<SocketState>,
    sockets: u64,
}

/// The ports of the kernel's sockets, and how many are held by processes that cannot be seen.
fn kernel(wanted: &Wanted) -> Result<(Vec<PortUse>, u64)> {
    let owners = Owners::read()?;
    let mut held: BTreeMap<(Protocol, u16, Option<u32>), Held> = BTreeMap::new();
    let mut hidden = 0;
    for protocol in Protocol::ALL {
        // A dump that was interrupted visits sockets again.
        let mut seen = HashSet::new();
        sockets::for_each(protocol, States::ALL, |socket| {
            let port = socket.local.port();
            if !wanted.includes(protocol, one(port)) || !seen.insert(socket.cookie) {
                return Ok(());
            }
            let process = owners.of(socket.inode);
            hidden += u64::from(socket.inode != 0 && process.is_none());
            let pid = process.map(|process| process.pid);
            let held = held.entry((protocol, port, pid)).or_insert_with(|| Held {
                process: process.cloned(),
                ..Held::default()
            });
            held.add(&socket);
            Ok(())
        })?;
    }
    let uses = held
        .into_iter()
        .map(|((protocol, port, _), held)| PortUse {
            protocol,
            ports: one(port),
            owner: held.owner(),
        })
        .collect();
    Ok((uses, hidden))
}

impl Held {
    fn add(&mut self, socket: &Socket) {
        let pattern = endpoint(socket);
        if !self.locals.iter().any(|(_, known)| *known == pattern) {
            self.locals.push((socket.local.ip(), pattern));
        }
        if !self.states.contains(&socket.state) {
            self.states.push(socket.state);
        }
        self.sockets += 1;
    }

    fn owner(mut self) -> PortOwner {
        self.locals.sort_by_key(|(address, _)| *address);
        self.states.sort_by_key(|state| *state as u8);
        PortOwner::Kernel {
            process: self.process,
            locals: self.locals.into_iter().map(|(_, local)| local).collect(),
            states: self.states,
            sockets: self.sockets,
        }
    }
}

/// The local endpoint of a socket: a wildcard of IPv6 that takes IPv4 too is every address.
fn endpoint(socket: &Socket) -> Pattern {
    let address = match socket.local.ip() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) if socket.v6_only == Some(true) => LocalAddress::AnyV6,
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => LocalAddress::Any,
        address if address.is_unspecified() => LocalAddress::AnyV4,
        address => LocalAddress::Exact(address),
    };
    Pattern {
        protocol: socket.protocol,
        address,
        ports: one(socket.local.port()),
    }
}

fn bindings(tables: &Tables, wanted: &Wanted) -> Result<Vec<PortUse>> {
    let mut bindings = tables.bindings()?;
    let labels = Labels::read(tables, &bindings)?;
    bindings.sort_by_cached_key(|(_, binding)| {
        let pattern = Pattern::of(binding);
        (pattern.precedence(), binding.ifindex == 0, name_of(binding))
    });
    Ok(bindings
        .iter()
        .map(|(index, binding)| {
            let local = Pattern::of(binding);
            PortUse {
                protocol: local.protocol,
                ports: local.ports,
                owner: PortOwner::Binding {
                    name: name_of(binding),
                    local,
                    ifindex: binding.ifindex,
                    target: labels.of(*index, binding),
                },
            }
        })
        .filter(|port_use| wanted.includes(port_use.protocol, port_use.ports))
        .collect())
}

/// The ports of rows that no packet was seen of yet.
fn reservations(tables: &Tables, wanted: &Wanted) -> Result<Vec<PortUse>> {
    let mut reserved: BTreeMap<(Protocol, u16), (Vec<IpAddr>, u64)> = BTreeMap::new();
    Reader::new(tables)?.for_each_with_parts(|row, key: &ConnectionKey, _| {
        if row.state == State::Reserved && wanted.includes(key.protocol, one(key.local_port)) {
            let (addresses, count) = reserved.entry((key.protocol, key.local_port)).or_default();
            let address = to_ip(&key.local_address);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
            *count += 1;
        }
        Ok(())
    })?;
    Ok(reserved
        .into_iter()
        .map(|((protocol, port), (mut addresses, reservations))| {
            addresses.sort_unstable();
            let local = |address| Pattern {
                protocol,
                address: LocalAddress::Exact(address),
                ports: one(port),
            };
            PortUse {
                protocol,
                ports: one(port),
                owner: PortOwner::Reservation {
                    locals: addresses.into_iter().map(local).collect(),
                    reservations,
                },
            }
        })
        .collect())
}

/// The ports that the settings reserve, of either protocol.
fn reserved(tables: &Tables, wanted: &Wanted) -> Result<Vec<PortUse>> {
    let settings = ports::settings(tables)?;
    let ranges: Vec<Ports> = settings
        .reserved
        .ranges()
        .iter()
        .map(|range| Ports {
            first: range.first,
            last: range.last,
        })
        .collect();
    Ok(Protocol::ALL
        .into_iter()
        .flat_map(|protocol| {
            ranges.iter().map(move |&ports| PortUse {
                protocol,
                ports,
                owner: PortOwner::Reserved,
            })
        })
        .filter(|port_use| wanted.includes(port_use.protocol, port_use.ports))
        .collect())
}

/// A single port.
const fn one(port: u16) -> Ports {
    Ports {
        first: port,
        last: port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_wanted_where_it_overlaps() {
        let wanted = Wanted {
            ports: Ports {
                first: 100,
                last: 200,
            },
            protocol: Some(Protocol::Tcp),
        };
        for (first, last, expected) in [
            (100, 100, true),
            (200, 300, true),
            (0, 100, true),
            (0, u16::MAX, true),
            (99, 99, false),
            (201, 300, false),
        ] {
            let ports = Ports { first, last };
            assert_eq!(wanted.includes(Protocol::Tcp, ports), expected, "{ports}");
            assert!(!wanted.includes(Protocol::Udp, ports));
        }
        assert!(Wanted::ALL.includes(Protocol::Udp, one(0)));
    }
}
