//! Frames without anything unusual, read in a few wide loads: no VLAN tag, no option or extension in
//! the IP header, no fragment, and UDP, or TCP with the control bit ACK and none that opens or ends
//! anything.
//!
//! This is not a second parser but a short cut through [`crate::parse`]: what it takes, the parser
//! takes too and reads alike (a property test holds it to that), and what it does not take goes there.
//! Only what cannot be in the connection table is not looked for here, such as a multicast address.

use crate::{
    packet::Packet,
    protocol::Protocol,
    reject::checksum,
    table::Addresses,
    tcp::{Flags, Kind, Seen},
    wire::ethernet::Station,
};

/// A plain segment or datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The local port, and above it the remote one, as in [`crate::table::Line`].
    pub ports: u32,
    /// What the segment says; `None` for a datagram.
    pub seen: Option<Seen>,
    /// The length of the frame.
    pub bytes: u32,
}

impl Plain {
    /// TCP or UDP.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match self.seen {
            Some(_) => Protocol::Tcp,
            None => Protocol::Udp,
        }
    }
}

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
const UDP: usize = 8;
const TCP_NUMBER: u8 = 6;
const UDP_NUMBER: u8 = 17;

/// The station that the frame is addressed to, and the EtherType as it lies in memory.
#[inline(always)]
pub fn ethernet<P: Packet + ?Sized>(packet: &P) -> Option<(Station, u16)> {
    let frame = packet.get::<{ ETHERNET + IPV4 + UDP }>(0)?;
    let station = Station::from_word(u64::from_le_bytes(at(frame, 0)));
    Some((station, u16::from_ne_bytes(at(frame, 12))))
}

/// An IPv4 frame: both addresses as [`crate::table::Line`] has them, and what it carries.
#[inline(always)]
pub fn ipv4<P: Packet + ?Sized>(packet: &P) -> Option<(u64, Plain)> {
    /// Version and header length, and of the fragment field all but "don't fragment".
    const FIXED: u64 = u64::from_le_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]);
    const PLAIN: u64 = u64::from_le_bytes([0x45, 0, 0, 0, 0, 0, 0, 0]);
    const TRANSPORT: usize = ETHERNET + IPV4;
    let frame = packet.get::<{ TRANSPORT + UDP }>(0)?;
    let first = u64::from_le_bytes(at(frame, ETHERNET));
    if first & FIXED != PLAIN {
        return None;
    }
    let total = u32::from(u16::from_be_bytes(at(frame, ETHERNET + 2)));
    let bytes = packet.linear_len() as u32;
    if total + ETHERNET as u32 > bytes || total < IPV4 as u32 {
        return None;
    }
    let len = total - IPV4 as u32;
    let addresses = u64::from_le_bytes(at(frame, ETHERNET + 12));
    let plain = match frame[ETHERNET + 9] {
        TCP_NUMBER => segment(packet.get::<{ TRANSPORT + TCP }>(0)?, TRANSPORT, len, bytes)?,
        UDP_NUMBER => datagram(frame, TRANSPORT, len, bytes)?,
        _ => return None,
    };
    Some((addresses, plain))
}

/// An IPv6 frame: its addresses, and what it carries.
#[inline(always)]
pub fn ipv6<P: Packet + ?Sized>(packet: &P) -> Option<(Addresses, Plain)> {
    const TRANSPORT: usize = ETHERNET + IPV6;
    let frame = packet.get::<{ TRANSPORT + UDP }>(0)?;
    if frame[ETHERNET] >> 4 != 6 {
        return None;
    }
    let len = u32::from(u16::from_be_bytes(at(frame, ETHERNET + 4)));
    let bytes = packet.linear_len() as u32;
    if len + TRANSPORT as u32 > bytes {
        return None;
    }
    let word = |offset| u64::from_ne_bytes(at(frame, ETHERNET + offset));
    let addresses = Addresses {
        local: [word(24), word(32)],
        remote: [word(8), word(16)],
    };
    let plain = match frame[ETHERNET + 6] {
        TCP_NUMBER => segment(packet.get::<{ TRANSPORT + TCP }>(0)?, TRANSPORT, len, bytes)?,
        UDP_NUMBER => datagram(frame, TRANSPORT, len, bytes)?,
        _ => return None,
    };
    Some((addresses, plain))
}

/// The TCP header at an offset, of a segment of `len` bytes.
#[inline(always)]
fn segment<const N: usize>(frame: &[u8; N], offset: usize, len: u32, bytes: u32) -> Option<Plain> {
    const ENDS: u8 = (Flags::FIN | Flags::SYN | Flags::RST | Flags::ACK) as u8;
    let header = u32::from(frame[offset + 12] >> 4) * 4;
    if frame[offset + 13] & ENDS != Flags::ACK as u8 || header < TCP as u32 || len < header {
        return None;
    }
    Some(Plain {
        ports: ports(frame, offset),
        seen: Some(Seen {
            kind: Kind::Ack,
            sequence: u32::from_be_bytes(at(frame, offset + 4)),
            acknowledgement: u32::from_be_bytes(at(frame, offset + 8)),
            has_ack: true,
            length: len - header,
        }),
        bytes,
    })
}

/// The UDP header at an offset, in `len` bytes.
#[inline(always)]
fn datagram<const N: usize>(frame: &[u8; N], offset: usize, len: u32, bytes: u32) -> Option<Plain> {
    let length = u32::from(u16::from_be_bytes(at(frame, offset + 4)));
    if length < UDP as u32 || length > len {
        return None;
    }
    Some(Plain {
        ports: ports(frame, offset),
        seen: None,
        bytes,
    })
}

#[inline(always)]
fn ports<const N: usize>(frame: &[u8; N], offset: usize) -> u32 {
    // The remote port comes first on the wire, and so it is the high half of a number.
    u32::from_be_bytes(at(frame, offset))
}

/// Whether a frame that [`ipv4`] takes may show the sum of its pseudo header in place of a checksum: see
/// [`checksum`].
#[inline(always)]
pub fn is_partial_v4<P: Packet + ?Sized>(packet: &P, protocol: Protocol) -> bool {
    const TRANSPORT: usize = ETHERNET + IPV4;
    let Some(frame) = packet.get::<{ TRANSPORT + UDP }>(0) else {
        return true;
    };
    let word = |offset| u64::from(u32::from_ne_bytes(at(frame, ETHERNET + offset)));
    let len = u32::from(u16::from_be_bytes(at(frame, ETHERNET + 2))).wrapping_sub(IPV4 as u32);
    shows::<P, { TRANSPORT + UDP }, { TRANSPORT + TCP }>(
        packet,
        TRANSPORT,
        protocol,
        len,
        word(12) + word(16),
    )
}

/// As [`is_partial_v4`], of a frame that [`ipv6`] takes.
#[inline(always)]
pub fn is_partial_v6<P: Packet + ?Sized>(packet: &P, protocol: Protocol) -> bool {
    const TRANSPORT: usize = ETHERNET + IPV6;
    let Some(frame) = packet.get::<{ TRANSPORT + UDP }>(0) else {
        return true;
    };
    let mut addresses = 0;
    for offset in (8..IPV6).step_by(4) {
        addresses += u64::from(u32::from_ne_bytes(at(frame, ETHERNET + offset)));
    }
    let len = u32::from(u16::from_be_bytes(at(frame, ETHERNET + 4)));
    shows::<P, { TRANSPORT + UDP }, { TRANSPORT + TCP }>(
        packet, TRANSPORT, protocol, len, addresses,
    )
}

/// Whether the checksum of a transport header, behind which a datagram's headers end at `WITH_UDP` and
/// a segment's at `WITH_TCP`, is the sum of a pseudo header with these addresses.
#[inline(always)]
fn shows<P: Packet + ?Sized, const WITH_UDP: usize, const WITH_TCP: usize>(
    packet: &P,
    transport: usize,
    protocol: Protocol,
    len: u32,
    addresses: u64,
) -> bool {
    let (found, length) = match protocol {
        Protocol::Tcp => match packet.get::<WITH_TCP>(0) {
            Some(frame) => (at(frame, transport + 16), len),
            None => return true,
        },
        Protocol::Udp => match packet.get::<WITH_UDP>(0) {
            Some(frame) => (
                at(frame, transport + 6),
                u32::from(u16::from_be_bytes(at(frame, transport + 4))),
            ),
            None => return true,
        },
    };
    let pseudo = checksum::pseudo(addresses, protocol.ip_number(), length);
    u16::from_ne_bytes(found) == checksum::fold(pseudo)
}

/// `N` bytes at an offset that lies within the array.
#[inline(always)]
fn at<const N: usize, const ALL: usize>(frame: &[u8; ALL], offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&frame[offset..offset + N]);
    bytes
}
