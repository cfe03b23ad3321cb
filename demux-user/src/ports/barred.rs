//! Which ports are never handed out: reserved ones, bound ones, and those that sockets of the kernel
//! hold.

use demux_common::{
    binding::Binding,
    ports::{Barred, Ephemeral, SET_WORDS},
    protocol::Protocol,
};

use super::kernel;
use crate::{
    Result,
    bindings::Ports,
    sockets::{self, SocketState, States},
    tables::{PortSet, Tables},
};

/// Brings the range and the reserved ports up to date with the kernel's settings, where they follow
/// them, and returns the settings.
///
/// # Errors
///
/// Where the kernel's settings cannot be read or the maps cannot be written.
pub fn refresh(tables: &Tables) -> Result<Ephemeral> {
    let mut settings = tables.ephemeral()?;
    if settings.is_range_set == 0 {
        let range = kernel::range()?;
        if (settings.first_port, settings.last_port) != (range.first, range.last) {
            (settings.first_port, settings.last_port) = (range.first, range.last);
            tables.set_ephemeral(&settings)?;
        }
    }
    if settings.is_reserved_set == 0 {
        let reserved = kernel::reserved()?.set();
        for protocol in Protocol::ALL {
            tables.set_barred(Barred::Reserved, protocol, &reserved)?;
        }
    }
    Ok(settings)
}

/// Bars the ports that are bound. A binding to every port bars none: there would be no port left.
///
/// # Errors
///
/// Where the maps cannot be written.
pub fn bar_bound(tables: &Tables, bindings: &[(u16, Binding)]) -> Result<()> {
    for protocol in Protocol::ALL {
        let mut set: PortSet = [0; SET_WORDS];
        for (_, binding) in bindings.iter().filter(|(_, b)| b.protocol == protocol) {
            let ports = Ports {
                first: binding.first_port,
                last: binding.last_port,
            };
            if ports == Ports::ANY {
                continue;
            }
            for port in ports.first..=ports.last {
                insert(&mut set, port);
            }
        }
        tables.set_barred(Barred::Bound, protocol, &set)?;
    }
    Ok(())
}

/// Bars the ports that sockets of the kernel hold now. What is left of connections in TIME-WAIT holds
/// its four-tuple only, and the connection table knows it.
///
/// # Errors
///
/// Where sock_diag fails or the maps cannot be written.
pub(super) fn bar_held(tables: &Tables, protocol: Protocol) -> Result<PortSet> {
    let mut set: PortSet = [0; SET_WORDS];
    sockets::for_each(protocol, States::ALL, |socket| {
        if socket.state != SocketState::TimeWait {
            insert(&mut set, socket.local.port());
        }
        Ok(())
    })?;
    tables.set_barred(Barred::Held, protocol, &set)?;
    Ok(set)
}

/// Whether a port is in a set.
pub(super) fn contains(set: &PortSet, port: u16) -> bool {
    set[usize::from(port >> 6)] >> (port & 63) & 1 != 0
}

fn insert(set: &mut PortSet, port: u16) {
    set[usize::from(port >> 6)] |= 1 << (port & 63);
}
