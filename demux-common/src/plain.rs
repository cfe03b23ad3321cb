//! Frames without anything unusual, read in a few wide loads: no VLAN tag, no option or extension in
//! the IP header, no fragment, TCP with the control bit ACK and none that opens or ends anything.
//!
//! This is not a second parser but a short cut through [`crate::parse`]: what it takes, the parser
//! takes too and reads alike (a property test holds it to that), and what it does not take goes there.
//! Only what cannot be in the connection table is not looked for here, such as a multicast address.

use crate::{
    packet::Packet,
    table::Addresses,
    tcp::{Flags, Kind, Seen},
    wire::ethernet::Station,
};

/// A plain segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The local port, and above it the remote one, as in [`crate::table::Line`].
    pub ports: u32,
    /// What the segment says.
    pub seen: Seen,
    /// The length of the frame.
    pub bytes: u32,
}

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
const TCP_NUMBER: u8 = 6;

/// The station that the frame is addressed to, and the EtherType as it lies in memory.
#[inline(always)]
pub fn ethernet<P: Packet + ?Sized>(packet: &P) -> Option<(Station, u16)> {
    let frame = packet.get::<{ ETHERNET + IPV4 + TCP }>(0)?;
    let station = Station::from_word(u64::from_le_bytes(at(frame, 0)));
    Some((station, u16::from_ne_bytes(at(frame, 12))))
}

/// An IPv4 frame: both addresses as [`crate::table::Line`] has them, and the segment.
#[inline(always)]
pub fn ipv4<P: Packet + ?Sized>(packet: &P) -> Option<(u64, Segment)> {
    /// Version and header length, and of the fragment field all but "don't fragment".
    const FIXED: u64 = u64::from_le_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]);
    const PLAIN: u64 = u64::from_le_bytes([0x45, 0, 0, 0, 0, 0, 0, 0]);
    const TRANSPORT: usize = ETHERNET + IPV4;
    let frame = packet.get::<{ TRANSPORT + TCP }>(0)?;
    let first = u64::from_le_bytes(at(frame, ETHERNET));
    if first & FIXED != PLAIN || frame[ETHERNET + 9] != TCP_NUMBER {
        return None;
    }
    let total = u32::from(u16::from_be_bytes(at(frame, ETHERNET + 2)));
    let bytes = packet.linear_len() as u32;
    if total + ETHERNET as u32 > bytes || total < IPV4 as u32 {
        return None;
    }
    let addresses = u64::from_le_bytes(at(frame, ETHERNET + 12));
    let segment = segment(frame, TRANSPORT, total - IPV4 as u32, bytes)?;
    Some((addresses, segment))
}

/// An IPv6 frame: its addresses, and the segment.
#[inline(always)]
pub fn ipv6<P: Packet + ?Sized>(packet: &P) -> Option<(Addresses, Segment)> {
    const TRANSPORT: usize = ETHERNET + IPV6;
    let frame = packet.get::<{ TRANSPORT + TCP }>(0)?;
    if frame[ETHERNET] >> 4 != 6 || frame[ETHERNET + 6] != TCP_NUMBER {
        return None;
    }
    let payload = u32::from(u16::from_be_bytes(at(frame, ETHERNET + 4)));
    let bytes = packet.linear_len() as u32;
    if payload + TRANSPORT as u32 > bytes {
        return None;
    }
    let word = |offset| u64::from_ne_bytes(at(frame, ETHERNET + offset));
    let addresses = Addresses {
        local: [word(24), word(32)],
        remote: [word(8), word(16)],
    };
    let segment = segment(frame, TRANSPORT, payload, bytes)?;
    Some((addresses, segment))
}

/// The TCP header at an offset, of a segment of `len` bytes.
#[inline(always)]
fn segment<const N: usize>(
    frame: &[u8; N],
    offset: usize,
    len: u32,
    bytes: u32,
) -> Option<Segment> {
    const ENDS: u8 = (Flags::FIN | Flags::SYN | Flags::RST | Flags::ACK) as u8;
    let header = u32::from(frame[offset + 12] >> 4) * 4;
    if frame[offset + 13] & ENDS != Flags::ACK as u8 || header < TCP as u32 || len < header {
        return None;
    }
    Some(Segment {
        // The remote port comes first on the wire, and so it is the high half of a number.
        ports: u32::from_be_bytes(at(frame, offset)),
        seen: Seen {
            kind: Kind::Ack,
            sequence: u32::from_be_bytes(at(frame, offset + 4)),
            acknowledgement: u32::from_be_bytes(at(frame, offset + 8)),
            has_ack: true,
            length: len - header,
        },
        bytes,
    })
}

/// `N` bytes at an offset that lies within the array.
#[inline(always)]
fn at<const N: usize, const ALL: usize>(frame: &[u8; ALL], offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&frame[offset..offset + N]);
    bytes
}
