//! Comparing the connection table with the kernel's own sockets.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use demux_common::{
    address::Address,
    connection::{ConnectionKey, State},
    protocol::Protocol,
};

use crate::{
    Result,
    bindings::pattern::to_ip,
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
/// connections within this host, unless its loopback interface is loaded.
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
    all.retain(|_, both| both.table != both.kernel);
    Ok(all)
}

/// Which of the kernel's connections have packets that demux sees.
pub(crate) struct Scope {
    own: HashSet<Address>,
    has_loopback: bool,
}

/// The index of the loopback interface in every namespace (LOOPBACK_IFINDEX in the kernel).
const LOOPBACK_IFINDEX: u32 = 1;

impl Scope {
    /// Reads the host's own addresses and the interfaces of the instance.
    pub(crate) fn read(tables: &Tables) -> Result<Self> {
        Ok(Self {
            own: tables.locals()?.into_iter().collect(),
            has_loopback: tables
                .interfaces()?
                .iter()
                .any(|(_, interface)| interface.ifindex == LOOPBACK_IFINDEX),
        })
    }

    /// Whether the packets of a connection may be seen: those within this host are seen on its
    /// loopback interface only.
    pub(crate) fn includes(&self, key: &ConnectionKey) -> bool {
        let is_within =
            to_ip(&key.remote_address).is_loopback() || self.own.contains(&key.remote_address);
        self.has_loopback || !is_within
    }
}
