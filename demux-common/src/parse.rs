//! From a frame to a four-tuple: the only parser.

use network_types::eth::EtherType;

use crate::{
    address::{ANY_V6, Family},
    connection::ConnectionKey,
    packet::Packet,
    protocol::Protocol,
    reason::Reason,
    tcp::Flags,
    wire::{
        ethernet::{self, Station},
        ipv4, ipv6, tcp, udp,
    },
};

/// Bytes of a UDP header.
const UDP_HEADER: u32 = 8;

/// A TCP segment or UDP datagram that was parsed without doubt.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
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
    /// The length of all its headers in bytes: what each segment has that is cut from it.
    pub headers_len: u32,
}

/// Parses an arriving frame.
///
/// # Errors
///
/// The reason why the packet is none that demux may judge; it then passes to the kernel.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Result<Parsed, Reason> {
    let mut parsed = Parsed::EMPTY;
    parse_into(packet, &mut parsed)?;
    Ok(parsed)
}

/// As [`parse`], in place: the kernel program has no stack to spare for copies.
/// On an error what was written means nothing, but for the length of the frame.
///
/// # Errors
///
/// As [`parse`].
#[inline(always)]
pub fn parse_into<P: Packet + ?Sized>(packet: &P, parsed: &mut Parsed) -> Result<(), Reason> {
    let frame_len = packet.frame_len();
    parsed.frame_len = frame_len as u32;
    let frame = ethernet::read(packet)?;
    let payload;
    if frame.ether_type == EtherType::Ipv4 as u16 {
        parsed.family = Family::Ipv4;
        payload = ipv4::read(packet, frame_len, frame.payload, &mut parsed.key)?;
    } else if frame.ether_type == EtherType::Ipv6 as u16 {
        parsed.family = Family::Ipv6;
        payload = ipv6::read(packet, frame_len, frame.payload, &mut parsed.key)?;
    } else {
        return Err(Reason::NotIp);
    }
    parsed.station = frame.destination;

    if payload.protocol == Protocol::Tcp.ip_number() {
        tcp::read(packet, &payload, &mut parsed.segment, &mut parsed.key)?;
        parsed.key.protocol = Protocol::Tcp;
        parsed.headers_len = payload.offset as u32 + parsed.segment.header_len;
    } else if payload.protocol == Protocol::Udp.ip_number() {
        let ports = udp::read(packet, &payload)?;
        parsed.key.protocol = Protocol::Udp;
        parsed.key.local_port = ports.destination_port;
        parsed.key.remote_port = ports.source_port;
        parsed.headers_len = payload.offset as u32 + UDP_HEADER;
    } else {
        return Err(Reason::OtherProtocol);
    }

    // Only the kernel can deliver these to every listener, so no table may claim them.
    let destination = &parsed.key.local_address;
    if destination.is_limited_broadcast(parsed.family) {
        return Err(Reason::Broadcast);
    }
    if destination.is_multicast(parsed.family) {
        return Err(Reason::Multicast);
    }
    if frame.destination.is_group() {
        return Err(if frame.destination == Station::BROADCAST {
            Reason::Broadcast
        } else {
            Reason::Multicast
        });
    }
    Ok(())
}

impl Parsed {
    /// All zero.
    pub const EMPTY: Self = Self {
        key: ConnectionKey {
            local_address: ANY_V6,
            remote_address: ANY_V6,
            local_port: 0,
            remote_port: 0,
            protocol: Protocol::Tcp,
        },
        segment: tcp::Segment {
            flags: Flags(0),
            sequence: 0,
            acknowledgement: 0,
            length: 0,
            header_len: 0,
        },
        station: Station::new([0; 6]),
        family: Family::Ipv4,
        frame_len: 0,
        headers_len: 0,
    };

    /// Sees the frame from the other side: it leaves, so its source is local.
    #[inline(always)]
    pub fn turn(&mut self) {
        let key = &mut self.key;
        core::mem::swap(&mut key.local_address, &mut key.remote_address);
        core::mem::swap(&mut key.local_port, &mut key.remote_port);
    }

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
