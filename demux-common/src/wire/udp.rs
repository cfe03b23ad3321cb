//! The UDP header (RFC 768).

use network_types::udp::UdpHdr;

use super::{Header as _, Payload};
use crate::{packet::Packet, reason::Reason};

/// The ports of a UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Port of the sender.
    pub source_port: u16,
    /// Port of the receiver.
    pub destination_port: u16,
}

/// Reads the UDP header of an IP packet.
///
/// # Errors
///
/// [`Reason::BadUdpHeader`] where the length is below the header's own or beyond the IP payload,
/// [`Reason::Truncated`] where the header is not within reach.
#[inline(always)]
pub fn read<P: Packet + ?Sized>(packet: &P, payload: &Payload) -> Result<Ports, Reason> {
    if payload.len < UdpHdr::LEN {
        return Err(Reason::BadUdpHeader);
    }
    let Some(header) = UdpHdr::read(packet, payload.offset) else {
        return Err(Reason::Truncated);
    };
    let length = usize::from(u16::from_be_bytes(header.len));
    if length < UdpHdr::LEN || length > payload.len {
        return Err(Reason::BadUdpHeader);
    }
    Ok(Ports {
        source_port: u16::from_be_bytes(header.src),
        destination_port: u16::from_be_bytes(header.dst),
    })
}
