//! Reserving a port for an outgoing connection, and giving it back.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use demux_common::{
    clock::Clock,
    connection::ConnectionKey,
    ports::{Algorithm, Answer, Barred, Request},
    protocol::Protocol,
};

use super::barred;
use crate::{
    Error, Result,
    bindings::pattern::from_ip,
    bpffs::BpfFs,
    local_address,
    netns::NetworkNamespace,
    state::{Instance, Lock},
    tables::{Access, Control, Tables},
};

/// How long a port stays reserved where a request does not say.
const LIFETIME: Duration = Duration::from_secs(60);

/// The longest that a port may stay reserved.
const LONGEST_LIFETIME: Duration = Duration::from_secs(86_400);

/// What a port is asked for with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocateRequest {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The other end of the connection to come.
    pub remote: SocketAddr,
    /// This host's address; the one that the routing table chooses, where there is none.
    pub address: Option<IpAddr>,
    /// The only port that will do; any that the algorithm finds, where there is none.
    pub port: Option<u16>,
    /// The algorithm; that of the settings, where there is none.
    pub algorithm: Option<Algorithm>,
    /// How long the port stays reserved without a packet.
    pub lifetime: Duration,
}

impl AllocateRequest {
    /// A port for a connection to `remote`, with nothing else said.
    #[must_use]
    pub const fn new(protocol: Protocol, remote: SocketAddr) -> Self {
        Self {
            protocol,
            remote,
            address: None,
            port: None,
            algorithm: None,
            lifetime: LIFETIME,
        }
    }
}

/// A port that is reserved for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Allocation {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// This host's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

impl Allocation {
    fn key(&self) -> ConnectionKey {
        key(self.protocol, self.local, self.remote)
    }
}

/// Reserves ports in the instance of a network namespace.
///
/// It needs no lock while it works: what must not happen twice is decided in the connection table, by
/// one compare-and-exchange. Once the instance is removed, what it reserves is worth nothing.
#[derive(Debug)]
pub struct Allocator {
    tables: Tables,
    control: Control,
}

impl Allocator {
    /// Opens the tables of the current network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`], [`Error::Io`] without permission.
    pub fn open(bpffs: &BpfFs) -> Result<Self> {
        let namespace = NetworkNamespace::current()?;
        let instance = Instance::open(bpffs, namespace.cookie(), Lock::Shared)?;
        Ok(Self {
            tables: Tables::open(&instance, Access::ReadWrite)?,
            control: Control::open(instance.paths())?,
        })
    }

    /// Reserves a port.
    ///
    /// # Errors
    ///
    /// [`Error::PortsExhausted`] where every port of the range is in use towards the remote,
    /// [`Error::AddressInUse`] where the only port that will do is,
    /// [`Error::AddressNotAvailable`] where the address is not this host's or there is no route,
    /// [`Error::InvalidArgument`], [`Error::ConnectionTableFull`].
    pub fn allocate(&self, request: &AllocateRequest) -> Result<Allocation> {
        let mut allocations = self.allocate_many(request, 1)?;
        allocations
            .pop()
            .ok_or_else(|| Error::unexpected("allocate a port", "there was no answer"))
    }

    /// Reserves several ports at once: as many as asked for, or none.
    ///
    /// # Errors
    ///
    /// As [`Allocator::allocate`].
    pub fn allocate_many(&self, request: &AllocateRequest, count: u32) -> Result<Vec<Allocation>> {
        let (address, requested) = self.prepare(request)?;
        let answers = self.control.allocate(&vec![requested; count as usize])?;
        let of_port = |port| Allocation {
            protocol: request.protocol,
            local: SocketAddr::new(address, port),
            remote: request.remote,
        };
        let mut allocations = Vec::with_capacity(answers.len());
        let mut refused = None;
        for answer in answers {
            match answer {
                Answer::Port(port) => allocations.push(of_port(port)),
                other => refused = Some(other),
            }
        }
        let Some(refused) = refused else {
            return Ok(allocations);
        };
        let keys: Vec<ConnectionKey> = allocations.iter().map(Allocation::key).collect();
        self.control.release(&keys)?;
        Err(self.refusal(request, address, refused)?)
    }

    /// Looks at the request and at the world, and says what the datapath is to be asked for.
    fn prepare(&self, request: &AllocateRequest) -> Result<(IpAddr, Request)> {
        check(request)?;
        let address = match request.address {
            Some(address) => local(request, address)?,
            None => source(request)?,
        };
        let settings = barred::refresh(&self.tables)?;
        if settings.last_port < settings.first_port {
            return Err(Error::PortsExhausted {
                remote: written(request),
                range: format!("{}-{}", settings.first_port, settings.last_port),
            });
        }
        let held = barred::bar_held(&self.tables, request.protocol)?;
        if let Some(port) = request.port {
            let bound = self.tables.barred(Barred::Bound, request.protocol)?;
            let holder = if barred::contains(&held, port) {
                "a socket of the kernel; see demux ports"
            } else if barred::contains(&bound, port) {
                "a binding; see demux bindings"
            } else {
                ""
            };
            if !holder.is_empty() {
                return Err(in_use(request, SocketAddr::new(address, port), holder));
            }
        }
        let local = SocketAddr::new(address, request.port.unwrap_or(0));
        let mut requested = Request::of(key(request.protocol, local, request.remote));
        if let Some(algorithm) = request.algorithm {
            requested.algorithm = algorithm as u32;
        }
        requested.lifetime = units(&self.tables.config()?.clock, request.lifetime);
        Ok((address, requested))
    }

    fn refusal(&self, request: &AllocateRequest, address: IpAddr, answer: Answer) -> Result<Error> {
        Ok(match answer {
            Answer::Full => Error::ConnectionTableFull(self.tables.max_connections()?),
            Answer::Taken => in_use(
                request,
                SocketAddr::new(address, request.port.unwrap_or(0)),
                "a connection or a reservation to the same remote",
            ),
            Answer::Exhausted => {
                let settings = self.tables.ephemeral()?;
                Error::PortsExhausted {
                    remote: written(request),
                    range: format!("{}-{}", settings.first_port, settings.last_port),
                }
            }
            Answer::Port(_) | Answer::None => {
                Error::unexpected("allocate a port", "the datapath has no settings")
            }
        })
    }

    /// Gives back a port that was reserved and not used.
    ///
    /// # Errors
    ///
    /// [`Error::NotReserved`].
    pub fn release(&self, allocation: &Allocation) -> Result<()> {
        if self.control.release(&[allocation.key()])?.first() == Some(&true) {
            return Ok(());
        }
        Err(Error::NotReserved(format!(
            "{} {} to {}",
            allocation.protocol.name(),
            allocation.local,
            allocation.remote
        )))
    }
}

/// Gives back a port that was reserved and not used.
///
/// # Errors
///
/// [`Error::NotLoaded`], [`Error::NotReserved`].
pub fn release(bpffs: &BpfFs, allocation: &Allocation) -> Result<()> {
    Allocator::open(bpffs)?.release(allocation)
}

fn key(protocol: Protocol, local: SocketAddr, remote: SocketAddr) -> ConnectionKey {
    ConnectionKey {
        local_address: from_ip(local.ip()),
        remote_address: from_ip(remote.ip()),
        local_port: local.port(),
        remote_port: remote.port(),
        protocol,
    }
}

fn written(request: &AllocateRequest) -> String {
    format!("{} {}", request.protocol.name(), request.remote)
}

fn in_use(request: &AllocateRequest, local: SocketAddr, holder: &str) -> Error {
    Error::AddressInUse {
        pattern: format!("{} {local} to {}", request.protocol.name(), request.remote),
        holder: holder.to_owned(),
    }
}

/// Refuses what no connection can be.
fn check(request: &AllocateRequest) -> Result<()> {
    let remote = &request.remote;
    let invalid = |reason: &str| {
        Err(Error::invalid(
            "remote endpoint",
            remote.to_string(),
            reason,
        ))
    };
    if remote.port() == 0 {
        return invalid("port 0 is no port to connect to");
    }
    let is_broadcast = matches!(remote.ip(), IpAddr::V4(address) if address.is_broadcast());
    if remote.ip().is_unspecified() || remote.ip().is_multicast() || is_broadcast {
        return invalid("it is not the address of one host");
    }
    if let Some(address) = request.address
        && (address.is_ipv4() != remote.is_ipv4() || address.is_unspecified())
    {
        return Err(Error::invalid(
            "local address",
            address.to_string(),
            "it is no address from which the remote can be reached",
        ));
    }
    if request.lifetime.is_zero() || request.lifetime > LONGEST_LIFETIME {
        return Err(Error::invalid(
            "time to live",
            format!("{:?}", request.lifetime),
            format!("it is 1 to {} seconds", LONGEST_LIFETIME.as_secs()),
        ));
    }
    Ok(())
}

/// An address that must be this host's own.
fn local(request: &AllocateRequest, address: IpAddr) -> Result<IpAddr> {
    let is_local = local_address::local_prefixes()?
        .iter()
        .any(|prefix| prefix.contains(&address));
    if is_local {
        Ok(address)
    } else {
        Err(Error::NoSource {
            remote: written(request),
            reason: format!("{address} is no address of this host"),
        })
    }
}

/// The address from which the kernel would send to the remote.
fn source(request: &AllocateRequest) -> Result<IpAddr> {
    let any: IpAddr = match request.remote {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a UDP socket sends nothing.
    UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect(request.remote).map(|()| socket))
        .and_then(|socket| socket.local_addr())
        .map(|local| local.ip())
        .map_err(|source| Error::NoSource {
            remote: written(request),
            reason: source.to_string(),
        })
}

/// A span of time in units of the table's clock; never none.
fn units(clock: &Clock, time: Duration) -> u32 {
    let units = time.as_nanos().div_ceil(u128::from(clock.unit_ns().max(1)));
    u32::try_from(units).unwrap_or(u32::MAX / 4).max(1)
}
