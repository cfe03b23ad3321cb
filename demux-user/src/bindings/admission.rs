//! Who may bind what: the questions that the kernel asks at bind(2), asked before anything is changed.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    net::{IpAddr, SocketAddr},
};

use demux_common::{
    binding::Binding,
    overlap::{Endpoint, overlaps},
    protocol::Protocol,
};
use ipnet::IpNet;
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with},
};

use super::{LocalAddress, Pattern, conflict};
use crate::{
    Error, Result,
    bindings::pattern::from_ip,
    capability::{self, Capability},
    local_address,
    sockets::{self, Socket, SocketState, States, owner::Owners},
};

/// What has to be known of the host, read once for several bindings.
#[derive(Debug)]
pub(crate) struct Host {
    local: BTreeSet<IpNet>,
    first_unprivileged_port: u16,
}

impl Host {
    /// Reads it from the present network namespace.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    pub(crate) fn read() -> Result<Self> {
        Ok(Self {
            local: local_address::local_prefixes()?,
            first_unprivileged_port: first_unprivileged_port()?,
        })
    }

    /// Refuses what bind(2) would refuse to a caller, whoever else has the endpoints.
    ///
    /// # Errors
    ///
    /// [`Error::MissingCapability`] for a privileged port, [`Error::AddressNotAvailable`].
    pub(super) fn admit(&self, pattern: &Pattern, is_free: bool) -> Result<()> {
        // Port 0 is no port to bind(2).
        let has_privileged =
            pattern.ports.first.max(1) < self.first_unprivileged_port && pattern.ports.last != 0;
        if has_privileged {
            let operation = format!(
                "bind {}, as ports below {} are privileged",
                written(pattern),
                self.first_unprivileged_port
            );
            capability::require(&operation, &[Capability::NetBindService])?;
        }
        match pattern.address {
            LocalAddress::Exact(address) if !is_free && !self.has(address)? => {
                Err(Error::AddressNotAvailable {
                    pattern: written(pattern),
                    address,
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether an address is one of this host's, or the kernel would let a socket have it.
    pub(crate) fn has(&self, address: IpAddr) -> Result<bool> {
        if address.is_multicast() || self.local.iter().any(|net| net.contains(&address)) {
            return Ok(true);
        }
        // Broadcast addresses, and any address by the sysctl ip_nonlocal_bind.
        let failed = |errno: Errno| Error::io(format!("ask the kernel for {address}"), errno);
        let family = match address {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = match socket_with(
            family,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(ipproto::UDP),
        ) {
            Ok(socket) => socket,
            // A kernel without IPv6.
            Err(Errno::AFNOSUPPORT) => return Ok(false),
            Err(errno) => return Err(failed(errno)),
        };
        match bind(&socket, &SocketAddr::new(address, 0)) {
            // Where all ports are taken, there are ports to take.
            Ok(()) | Err(Errno::ADDRINUSE) => Ok(true),
            // Of a link-local address without a device the kernel says that it is invalid.
            Err(Errno::ADDRNOTAVAIL | Errno::INVAL) => Ok(false),
            Err(errno) => Err(failed(errno)),
        }
    }
}

/// From how many bindings on all sockets are read at once.
const MANY: usize = 8;

/// As [`check_sockets`], for several bindings.
///
/// # Errors
///
/// As [`check_sockets`].
pub(crate) fn check_all_sockets<'b>(bindings: impl Iterator<Item = &'b Binding>) -> Result<()> {
    let takers: Vec<&Binding> = bindings
        .filter(|binding| !binding.target.is_kernel() && conflict::bindable(binding).is_some())
        .collect();
    if takers.len() < MANY {
        return takers.into_iter().try_for_each(check_sockets);
    }
    for protocol in Protocol::ALL {
        let takers = takers.iter().filter(|binding| binding.protocol == protocol);
        let mut ports: HashMap<u16, Vec<Socket>> = HashMap::new();
        for binding in takers.clone() {
            ports.entry(binding.first_port).or_default();
        }
        if ports.is_empty() {
            continue;
        }
        for socket in sockets::all(protocol, States::ALL)? {
            if let Some(at) = ports.get_mut(&socket.local.port()) {
                at.push(socket);
            }
        }
        for binding in takers {
            check_against(binding, &ports[&binding.first_port])?;
        }
    }
    Ok(())
}

/// Refuses endpoints that a socket of the kernel has, where `binding` would take packets from it.
///
/// The kernel does not tell by which flags a socket may share its port, and one whose packets are taken
/// away cannot share them: it conflicts whatever the flags.
///
/// Before Linux 6.8 the kernel does not list TCP sockets that neither listen nor connect.
///
/// # Errors
///
/// [`Error::SocketInUse`], and where sock_diag cannot be asked.
pub(super) fn check_sockets(binding: &Binding) -> Result<()> {
    if binding.target.is_kernel() || conflict::bindable(binding).is_none() {
        return Ok(());
    }
    let sockets = sockets::at_port(binding.protocol, binding.first_port)?;
    check_against(binding, &sockets)
}

/// Refuses a binding that would take packets from one of these sockets of its port.
fn check_against(binding: &Binding, sockets: &[Socket]) -> Result<()> {
    let Some(endpoint) = conflict::bindable(binding) else {
        return Ok(());
    };
    let in_the_way = sockets
        .iter()
        .filter(|socket| has_port(socket) && overlaps(&endpoint, &endpoint_of(socket)))
        .min_by_key(|socket| (socket.state.is_connected(), socket.inode == 0));
    let Some(socket) = in_the_way else {
        return Ok(());
    };
    let holder = if socket.inode == 0 {
        "the kernel".to_owned()
    } else {
        // Who cannot read /proc sees nobody.
        match Owners::read().unwrap_or_default().of(socket.inode) {
            Some(owner) => format!("process {} ({})", owner.pid, owner.process),
            None => "a process that cannot be seen from here".to_owned(),
        }
    };
    let remote = if socket.state.is_connected() {
        format!(" to {}", socket.remote)
    } else {
        String::new()
    };
    Err(Error::SocketInUse {
        pattern: written(&Pattern::of(binding)),
        holder,
        socket: format!("{} {}{remote}", socket.state.name(), socket.local),
    })
}

/// Whether the socket itself holds its port: a handshake that its listener has not finished does not.
fn has_port(socket: &Socket) -> bool {
    socket.state != SocketState::SynReceived || socket.inode != 0
}

fn endpoint_of(socket: &Socket) -> Endpoint {
    Endpoint {
        address: from_ip(socket.local.ip()),
        ifindex: socket.ifindex,
        v6_only: socket.v6_only == Some(true),
    }
}

/// A pattern with its protocol.
pub(super) fn written(pattern: &Pattern) -> String {
    format!("{} {pattern}", pattern.protocol.name())
}

/// The first port that everybody may bind, of the namespace of this thread.
fn first_unprivileged_port() -> Result<u16> {
    const PATH: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let failed = |source| Error::io(format!("read {PATH}"), source);
    let text = fs::read_to_string(PATH).map_err(failed)?;
    text.trim()
        .parse()
        .map_err(|_| failed(io::ErrorKind::InvalidData.into()))
}
