//! Comparing the connection table with the kernel's own sockets.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use demux_common::{
    config::Track,
    connection::{ConnectionKey, State},
    protocol::Protocol,
};

use crate::{
    Result,
    bindings::pattern::to_ip,
    local_address,
    sockets::{self, States},
    tables::{Tables, now},
};

/// A TCP connection of which the table and the kernel say different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// This host's side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
    /// The state in the table; `None` where the table has no row.
    pub state: Option<State>,
    /// The state of the kernel's socket; `None` where the kernel has none.
    pub kernel_state: Option<State>,
}

/// The TCP connections of which the table and the kernel say different things. A connection may
/// change while both are read, so only what differs twice is told.
///
/// Rows in state LISTEN are left out: the kernel has nothing to compare them with. So are
/// connections whose packets demux does not see: those within this host, unless its loopback
/// interface is loaded, and those of an address of an interface that is not.
///
/// # Errors
///
/// Where the maps or the kernel's sockets cannot be read.
pub fn verify(tables: &Tables) -> Result<Vec<Difference>> {
    let first: HashSet<ConnectionKey> = compare(tables)?.into_keys().collect();
    if first.is_empty() {
        return Ok(Vec::new());
    }
    let mut differences: Vec<(ConnectionKey, Both)> = compare(tables)?
        .into_iter()
        .filter(|(key, _)| first.contains(key))
        .collect();
    differences.sort_unstable_by_key(|(key, _)| {
        (
            key.local_address,
            key.local_port,
            key.remote_address,
            key.remote_port,
        )
    });
    Ok(differences
        .into_iter()
        .map(|(key, both)| Difference {
            local: SocketAddr::new(to_ip(&key.local_address), key.local_port),
            remote: SocketAddr::new(to_ip(&key.remote_address), key.remote_port),
            state: both.table,
            kernel_state: both.kernel,
        })
        .collect())
}

#[derive(Clone, Copy, Default)]
struct Both {
    table: Option<State>,
    kernel: Option<State>,
}

fn compare(tables: &Tables) -> Result<HashMap<ConnectionKey, Both>> {
    let config = tables.config()?;
    let now = config.clock.at(now());
    let scope = Scope::read(tables)?;
    let mut all: HashMap<ConnectionKey, Both> = HashMap::new();
    tables.for_each_connection(|key, connection| {
        if key.protocol == Protocol::Tcp
            && connection.state != State::Listen
            && !connection.is_expired(&config.lifetimes, now)
        {
            all.entry(key).or_default().table = Some(connection.state);
        }
        Ok(())
    })?;
    sockets::for_each(Protocol::Tcp, States::CONNECTED, |socket| {
        if let Some(key) = socket.key()
            && scope.includes(&key)
        {
            all.entry(key).or_default().kernel = socket.tcp_state();
        }
        Ok(())
    })?;
    // With track=bound most of the kernel's connections are to have no row.
    let tracks_all = config.track == Track::Local;
    all.retain(|_, both| both.table != both.kernel && (tracks_all || both.table.is_some()));
    Ok(all)
}

/// Which of the kernel's connections have packets that demux sees, as far as that can be told
/// without their packets: not those of an address that stands on an interface which is not loaded,
/// and those within this host only where its loopback interface is loaded.
pub(crate) struct Scope {
    own: HashSet<IpAddr>,
    elsewhere: HashSet<IpAddr>,
    has_loopback: bool,
}

/// The index of the loopback interface in every namespace (LOOPBACK_IFINDEX in the kernel).
const LOOPBACK: u32 = 1;

impl Scope {
    /// Reads the host's own addresses and the interfaces of the instance.
    pub(crate) fn read(tables: &Tables) -> Result<Self> {
        let loaded: HashSet<u32> = tables
            .interfaces()?
            .iter()
            .map(|(_, interface)| interface.ifindex)
            .collect();
        let addresses = local_address::by_interface()?;
        // Addresses of services stand on the loopback interface, and come in by any other.
        let elsewhere = addresses
            .iter()
            .filter(|(_, device)| *device != LOOPBACK && !loaded.contains(device))
            .map(|(address, _)| *address)
            .collect();
        Ok(Self {
            own: addresses.iter().map(|(address, _)| *address).collect(),
            elsewhere,
            has_loopback: loaded.contains(&LOOPBACK),
        })
    }

    /// Whether the packets of a connection may be seen.
    pub(crate) fn includes(&self, key: &ConnectionKey) -> bool {
        let (local, remote) = (to_ip(&key.local_address), to_ip(&key.remote_address));
        if remote.is_loopback() || self.own.contains(&remote) {
            return self.has_loopback;
        }
        !self.elsewhere.contains(&local)
    }
}
