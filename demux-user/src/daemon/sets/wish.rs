//! What an owner wishes for, checked.

use crate::{
    Error, Result,
    daemon::{peer::Peer, protocol::Open},
    interface::{self, Interface},
    process::Process,
    xsk::{
        queue::{Place, QueueId, receive_queues},
        region::Shape,
    },
};

/// Who owns a set, so that it is known again.
pub(super) fn owner(peer: &Peer) -> Result<Process> {
    Process::find(peer.pid)
        .map_err(|source| Error::io(format!("find the process {}", peer.pid), source))
}

/// The shape of each region: as many chunks for what arrives as for what leaves.
pub(super) fn shape(wish: &Open) -> Result<Shape> {
    let shape = Shape {
        chunk_size: wish.chunk_size,
        chunks: wish.ring_size.saturating_mul(2),
        ring_size: wish.ring_size,
    };
    if !matches!(wish.chunk_size, 2048 | 4096) {
        return Err(Error::invalid(
            "size of a chunk",
            wish.chunk_size.to_string(),
            "it has 2048 or 4096 bytes",
        ));
    }
    if !shape.is_sound() {
        return Err(Error::invalid(
            "size of a ring",
            wish.ring_size.to_string(),
            "it is a power of two up to 32768",
        ));
    }
    Ok(shape)
}

/// The interfaces with these names, and how many receive queues each has.
pub(super) fn interfaces(names: &[String]) -> Result<Vec<(Interface, u16)>> {
    let mut interfaces: Vec<(Interface, u16)> = Vec::new();
    if names.len() > demux_common::steering::MAX_INTERFACES {
        return Err(Error::invalid(
            "number of interfaces",
            names.len().to_string(),
            format!(
                "a set has at most {}",
                demux_common::steering::MAX_INTERFACES
            ),
        ));
    }
    for name in names {
        let interface = interface::by_name(name)?;
        if interfaces
            .iter()
            .any(|(known, _)| known.index == interface.index)
        {
            return Err(Error::invalid(
                "interface",
                name.clone(),
                "it is named twice",
            ));
        }
        let queues = receive_queues(&interface);
        interfaces.push((interface, queues));
    }
    Ok(interfaces)
}

pub(super) fn places(interfaces: &[(Interface, u16)]) -> Vec<Place> {
    interfaces
        .iter()
        .flat_map(|(interface, queues)| {
            (0..u32::from(*queues)).map(|queue| Place {
                id: QueueId {
                    ifindex: interface.index,
                    queue,
                },
                interface: interface.name.clone(),
            })
        })
        .collect()
}
