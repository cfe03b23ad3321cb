//! Entering the connections that exist already, so that the table shows what the kernel has.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use demux_common::{
    command::{BATCH, Command},
    config::{Config, Track},
    connection::{ConnectionKey, State},
    protocol::Protocol,
    table::Flags,
    tcp::Marks,
    udp,
};

use crate::{
    Result,
    sockets::{self, Socket, SocketState, States, Timer},
    state::Paths,
    tables::{Control, Outcome, Tables},
    verify::Scope,
};

/// What became of the kernel's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Imported {
    /// Those that were entered.
    pub(super) entered: u64,
    /// Those that found no room.
    pub(super) full: u64,
}

/// Enters the kernel's connections into the table: all TCP connections and connected UDP sockets of
/// this namespace that are not there yet. Those within this host count only where its loopback
/// interface is loaded, because their packets are seen nowhere else.
///
/// To be called once everything is attached: what begins after that is entered by its packets.
pub(super) fn import(paths: &Paths, tables: &Tables) -> Result<Imported> {
    let config = tables.config()?;
    if config.track == Track::Bound {
        // What is bound is for the packets to find out.
        return Ok(Imported::default());
    }
    let scope = Scope::read(tables)?;
    let listeners = Listeners::read()?;
    let control = Control::open(paths)?;
    let mut imported = Imported::default();
    let mut commands = Vec::with_capacity(BATCH);
    for protocol in Protocol::ALL {
        sockets::for_each(protocol, States::CONNECTED, |socket| {
            let Some(key) = socket.key() else {
                return Ok(());
            };
            if !scope.includes(&key) {
                return Ok(());
            }
            let Some(command) = command(&socket, key, &listeners, &config) else {
                return Ok(());
            };
            commands.push(command);
            if commands.len() == BATCH {
                imported.add(&control.execute(&commands)?);
                commands.clear();
            }
            Ok(())
        })?;
    }
    imported.add(&control.execute(&commands)?);
    Ok(imported)
}

impl Imported {
    fn add(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            self.entered += u64::from(*outcome == Outcome::Done);
            self.full += u64::from(*outcome == Outcome::Full);
        }
    }
}

fn command(
    socket: &Socket,
    key: ConnectionKey,
    listeners: &Listeners,
    config: &Config,
) -> Option<Command> {
    let (state, marks) = match key.protocol {
        Protocol::Tcp => {
            let state = socket.tcp_state()?;
            (state, marks(state))
        }
        Protocol::Udp => (State::Assured, udp::REMOTE_SENT | udp::ANSWERED),
    };
    let direction = if listeners.take(key.protocol, socket.local) {
        0
    } else {
        Flags::OUT
    };
    let confirmed = match state {
        State::SynSent | State::SynReceived => 0,
        _ => Flags::CONFIRMED,
    };
    let mut command = Command::enter(key, state, Flags(marks | direction | confirmed));
    if socket.timer == Timer::TimeWait {
        let lifetime = u64::from(config.timeouts.of(state)) * 1000;
        let left = socket.expires.as_millis() as u64;
        let unit_ns = config.clock.unit_ns().max(1);
        command.idle = (lifetime.saturating_sub(left) * 1_000_000 / unit_ns) as u32;
    }
    Some(command)
}

/// What a state says of the two sides, although no segment of theirs was seen.
fn marks(state: State) -> u8 {
    let local = match state {
        State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck | State::TimeWait => {
            Marks::LOCAL_FIN
        }
        _ => 0,
    };
    let remote = match state {
        State::CloseWait | State::Closing | State::LastAck | State::TimeWait => Marks::REMOTE_FIN,
        _ => 0,
    };
    local | remote
}

/// Where this host listens: a connection there was opened by the remote, most likely.
struct Listeners(HashSet<(Protocol, Option<IpAddr>, u16)>);

impl Listeners {
    fn read() -> Result<Self> {
        let mut listeners = HashSet::new();
        for (protocol, state) in [
            (Protocol::Tcp, SocketState::Listen),
            (Protocol::Udp, SocketState::Unconnected),
        ] {
            sockets::for_each(protocol, States::of(&[state]), |socket| {
                let address = socket.local.ip();
                let address = (!address.is_unspecified()).then_some(address);
                listeners.insert((protocol, address, socket.local.port()));
                Ok(())
            })?;
        }
        Ok(Self(listeners))
    }

    fn take(&self, protocol: Protocol, local: SocketAddr) -> bool {
        let has = |address| self.0.contains(&(protocol, address, local.port()));
        has(None) || has(Some(local.ip()))
    }
}
