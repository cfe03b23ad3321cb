//! Ending connections: their sockets, or in the name of those they have lost; and their rows.

mod reset;

use std::{collections::HashMap, net::SocketAddr};

use demux_common::{
    command::Command,
    connection::{ConnectionKey, State},
    protocol::Protocol,
};

use self::reset::{Numbers, Sender};
use crate::{
    Error, Result,
    bpffs::BpfFs,
    capability::{self, Capability},
    connections::Reader,
    filter::Filter,
    netns::NetworkNamespace,
    sockets::{
        self, Socket, States,
        destroy::{Destroyed, Destroyer},
    },
    state::{Instance, Lock, Paths},
    tables::{Access, Control, Tables},
};

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// End the connections and remove their rows.
    End,
    /// Remove their rows only.
    Forget,
    /// Do nothing, and say what [`Extent::End`] would do.
    DryRun,
}

/// What is done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The kernel has ended its socket.
    Destroyed,
    /// No socket of the kernel stood for it, and the remote was sent a reset.
    Reset,
    /// It was a port that was allocated for a connection to come.
    Released,
    /// Its row was removed, and nothing else was done.
    Forgotten(Reason),
    /// It had ended by itself when its turn came.
    Gone,
}

/// Why nothing is done about a connection but to remove its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// That was asked for.
    Asked,
    /// UDP: no socket is connected to this remote. One that takes datagrams of any remote is left alone.
    NoSocketOfItsOwn,
    /// TCP: the kernel has no socket for it, and it is over on both sides.
    Over,
    /// TCP: the kernel has no socket for it, and what the remote waits for was never seen.
    UnknownNumbers,
}

impl Action {
    /// The name that users read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Destroyed => "destroyed",
            Self::Reset => "reset",
            Self::Released => "released",
            Self::Forgotten(_) => "forgotten",
            Self::Gone => "gone",
        }
    }
}

impl Reason {
    /// The reason as users read it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Asked => "asked for",
            Self::NoSocketOfItsOwn => "no socket is connected to this remote alone",
            Self::Over => "it is over on both sides",
            Self::UnknownNumbers => "no socket, and its sequence numbers were not seen",
        }
    }
}

/// A connection that was to be ended.
#[derive(Debug)]
pub struct Killed {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// This host's side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
    /// The state it was in.
    pub state: State,
    /// What was done; where it failed, the row is as it was.
    pub outcome: Result<Action>,
}

/// Ends the connections that a filter matches. A socket of the kernel is ended only where it has exactly
/// the connection's four-tuple: never a listener, nor one that takes datagrams of any remote.
///
/// Instances are opened to share, as packets change the table too: commands that write wait for this one,
/// and those that read do not.
///
/// # Errors
///
/// [`Error::InvalidArgument`] for an empty filter, [`Error::NotLoaded`], [`Error::ConnectionNotFound`]
/// where nothing matches, [`Error::MissingCapability`] without CAP_NET_ADMIN, or without CAP_NET_RAW
/// where a reset is to be sent; [`Error::Unsupported`] where the kernel cannot end sockets. Nothing has
/// been done then. What fails later is told of each connection.
pub fn kill(bpffs: &BpfFs, filter: &Filter, extent: Extent) -> Result<Vec<Killed>> {
    if filter.is_empty() {
        return Err(Error::invalid(
            "kill filter",
            "",
            "an empty one would end every connection",
        ));
    }
    if extent == Extent::End {
        capability::require("end connections", &[Capability::NetAdmin])?;
    }
    let namespace = NetworkNamespace::current()?;
    let instance = Instance::open(bpffs, namespace.cookie(), Lock::Shared)?;
    let tables = Tables::open(&instance, Access::ReadOnly)?;
    let mut targets = targets(&tables, filter)?;
    if targets.is_empty() {
        return Err(Error::ConnectionNotFound);
    }
    if extent == Extent::Forget {
        for target in &mut targets {
            target.way = Way::Forget(Reason::Asked);
        }
    } else {
        find_sockets(&mut targets)?;
    }
    if extent == Extent::DryRun {
        return Ok(targets
            .into_iter()
            .map(|target| {
                let action = target.way.action();
                target.killed(Ok(action))
            })
            .collect());
    }
    let mut killer = Killer::new(instance.paths(), &targets)?;
    Ok(targets
        .into_iter()
        .map(|target| {
            let outcome = killer.end(&target);
            target.killed(outcome)
        })
        .collect())
}

/// A connection that is to be ended.
struct Target {
    key: ConnectionKey,
    local: SocketAddr,
    remote: SocketAddr,
    state: State,
    /// What a reset would carry, for TCP.
    resets: Vec<Numbers>,
    way: Way,
}

/// How it is to be ended.
enum Way {
    Destroy(Vec<Socket>),
    Reset,
    Release,
    Forget(Reason),
}

impl Way {
    const fn action(&self) -> Action {
        match self {
            Self::Destroy(_) => Action::Destroyed,
            Self::Reset => Action::Reset,
            Self::Release => Action::Released,
            Self::Forget(reason) => Action::Forgotten(*reason),
        }
    }
}

impl Target {
    /// How it is to be ended where the kernel has no socket of its own for it.
    fn way_without_socket(&self) -> Way {
        match self.key.protocol {
            _ if self.state == State::Reserved => Way::Release,
            Protocol::Udp => Way::Forget(Reason::NoSocketOfItsOwn),
            Protocol::Tcp if self.state == State::TimeWait => Way::Forget(Reason::Over),
            Protocol::Tcp if self.resets.is_empty() => Way::Forget(Reason::UnknownNumbers),
            Protocol::Tcp => Way::Reset,
        }
    }

    fn killed(self, outcome: Result<Action>) -> Killed {
        Killed {
            protocol: self.key.protocol,
            local: self.local,
            remote: self.remote,
            state: self.state,
            outcome,
        }
    }
}

/// The rows that a filter matches, as if the kernel had no sockets.
fn targets(tables: &Tables, filter: &Filter) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    Reader::new(tables)?.for_each_with_parts(|row, key, connection| {
        if filter.matches(&row) {
            let mut target = Target {
                key: *key,
                local: row.local,
                remote: row.remote,
                state: row.state,
                resets: match row.protocol {
                    Protocol::Tcp => reset::numbers(connection),
                    Protocol::Udp => Vec::new(),
                },
                way: Way::Release,
            };
            target.way = target.way_without_socket();
            targets.push(target);
        }
        Ok(())
    })?;
    Ok(targets)
}

/// Finds the kernel's sockets of connections. Several may have one four-tuple, on different devices.
fn find_sockets(targets: &mut [Target]) -> Result<()> {
    let places: HashMap<ConnectionKey, usize> = targets
        .iter()
        .enumerate()
        .filter(|(_, target)| target.state != State::Reserved)
        .map(|(place, target)| (target.key, place))
        .collect();
    for protocol in Protocol::ALL {
        if !places.keys().any(|key| key.protocol == protocol) {
            continue;
        }
        sockets::for_each(protocol, States::CONNECTED, |socket| {
            let place = socket.key().and_then(|key| places.get(&key));
            let Some(target) = place.and_then(|&place| targets.get_mut(place)) else {
                return Ok(());
            };
            match &mut target.way {
                Way::Destroy(known) => {
                    match known.iter_mut().find(|other| other.cookie == socket.cookie) {
                        Some(known) => *known = socket,
                        None => known.push(socket),
                    }
                }
                way => *way = Way::Destroy(vec![socket]),
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// What connections are ended with.
struct Killer {
    control: Control,
    destroyer: Option<Destroyer>,
    sender: Sender,
}

impl Killer {
    /// Opens what these connections need, so that what is missing is told before anything is done.
    fn new(paths: &Paths, targets: &[Target]) -> Result<Self> {
        let control = Control::open(paths)?;
        let mut destroyer = None;
        let mut sender = Sender::default();
        for protocol in Protocol::ALL {
            let needs_destroyer = |target: &Target| {
                target.key.protocol == protocol && matches!(target.way, Way::Destroy(_))
            };
            if targets.iter().any(needs_destroyer) {
                let destroyer = match &mut destroyer {
                    Some(destroyer) => destroyer,
                    empty => empty.insert(Destroyer::open()?),
                };
                destroyer.check(protocol)?;
            }
        }
        for target in targets
            .iter()
            .filter(|target| matches!(target.way, Way::Reset))
        {
            sender.prepare(target.remote.ip())?;
        }
        Ok(Self {
            control,
            destroyer,
            sender,
        })
    }

    /// Ends a connection, then removes its row.
    fn end(&mut self, target: &Target) -> Result<Action> {
        match &target.way {
            Way::Destroy(sockets) => {
                if !self.destroy(sockets)? {
                    return self.end_without_socket(target);
                }
            }
            Way::Reset => self.reset(target)?,
            Way::Release | Way::Forget(_) => {}
        }
        self.remove(target)?;
        Ok(target.way.action())
    }

    /// Ends a connection whose socket has ended since it was looked for.
    fn end_without_socket(&mut self, target: &Target) -> Result<Action> {
        if !self.remove(target)? {
            return Ok(Action::Gone);
        }
        let way = target.way_without_socket();
        if let Way::Reset = way {
            self.reset(target)?;
        }
        Ok(way.action())
    }

    /// Ends sockets with one four-tuple; returns whether any was still there.
    fn destroy(&mut self, sockets: &[Socket]) -> Result<bool> {
        let destroyer = match &mut self.destroyer {
            Some(destroyer) => destroyer,
            empty => empty.insert(Destroyer::open()?),
        };
        let mut any = false;
        let mut left: Vec<&Socket> = sockets.iter().collect();
        // The kernel finds one socket for a four-tuple, and the next one once that is gone.
        loop {
            let mut missed = Vec::new();
            for &socket in &left {
                match destroyer.destroy(socket)? {
                    Destroyed::Done => any = true,
                    Destroyed::Gone => missed.push(socket),
                }
            }
            if missed.is_empty() || missed.len() == left.len() {
                return Ok(any);
            }
            left = missed;
        }
    }

    fn reset(&mut self, target: &Target) -> Result<()> {
        for &numbers in &target.resets {
            self.sender.send(target.local, target.remote, numbers)?;
        }
        Ok(())
    }

    /// Removes the row, if the end of the connection has not done it; returns whether it was there.
    fn remove(&self, target: &Target) -> Result<bool> {
        let outcomes = self.control.execute(&[Command::remove(target.key)])?;
        Ok(outcomes == [crate::tables::Outcome::Done])
    }
}
