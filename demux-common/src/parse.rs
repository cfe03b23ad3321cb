//! From a frame to a four-tuple: the only parser.

use network_types::eth::EtherType;

use crate::{
    address::Family,
    connection::ConnectionKey,
    packet::Packet,
    protocol::Protocol,
    reason::Reason,
    wire::{
        ethernet::{self, Station},
        ipv4, ipv6, tcp, udp,
    },
};

/// A TCP segment or UDP datagram that was parsed without doubt.
#[derive(Clone, Copy, Debug)]
pub struct Parsed {
    /// The four-tuple, local side first: on ingress the destination.
    pub key: ConnectionKey,
    /// The TCP header; all zero for UDP.
    pub segment: tcp::Segment,
    /// The station that the frame is addressed to.
    pub station: Station,
    /// The version of IP.
    pub family: Family,
    /// The length of the frame in bytes.
    pub frame_len: u32,
}

/// Parses an arriving frame.
///
/// # Errors
///
/// The reason why the packet is none that demux may judge; it then passes to the kernel.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Result<Parsed, Reason> {
    let frame = ethernet::read(packet)?;
    let (family, datagram) = if frame.ether_type == EtherType::Ipv4 as u16 {
        (Family::Ipv4, ipv4::read(packet, frame.payload)?)
    } else if frame.ether_type == EtherType::Ipv6 as u16 {
        (Family::Ipv6, ipv6::read(packet, frame.payload)?)
    } else {
        return Err(Reason::NotIp);
    };

    let mut segment = tcp::Segment::default();
    let (protocol, source_port, destination_port);
    if datagram.protocol == Protocol::Tcp.ip_number() {
        segment = tcp::read(packet, &datagram)?;
        protocol = Protocol::Tcp;
        source_port = segment.source_port;
        destination_port = segment.destination_port;
    } else if datagram.protocol == Protocol::Udp.ip_number() {
        let ports = udp::read(packet, &datagram)?;
        protocol = Protocol::Udp;
        source_port = ports.source_port;
        destination_port = ports.destination_port;
    } else {
        return Err(Reason::OtherProtocol);
    }

    // Only the kernel can deliver these to every listener, so no table may claim them.
    if datagram.destination.is_limited_broadcast(family) {
        return Err(Reason::Broadcast);
    }
    if datagram.destination.is_multicast(family) {
        return Err(Reason::Multicast);
    }
    if frame.destination.is_group() {
        return Err(if frame.destination == Station::BROADCAST {
            Reason::Broadcast
        } else {
            Reason::Multicast
        });
    }

    Ok(Parsed {
        key: ConnectionKey {
            local_address: datagram.destination,
            remote_address: datagram.source,
            local_port: destination_port,
            remote_port: source_port,
            protocol,
        },
        segment,
        station: frame.destination,
        family,
        frame_len: packet.frame_len() as u32,
    })
}

impl Parsed {
    /// Whether a row may be made for this packet at all: a remote that could be answered,
    /// and not a packet that claims to come from its own destination (the "land" attack).
    #[inline(always)]
    #[must_use]
    pub fn may_be_tracked(&self) -> bool {
        let key = &self.key;
        let remote = &key.remote_address;
        if remote.is_multicast(self.family)
            || remote.is_limited_broadcast(self.family)
            || remote.is_unspecified(self.family)
        {
            return false;
        }
        key.local_port != key.remote_port || key.local_address != key.remote_address
    }
}
