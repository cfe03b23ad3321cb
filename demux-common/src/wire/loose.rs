//! IP headers read without trust in their lengths: those of fragments, and those that an ICMP error
//! quotes, where the frame ends early.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::{Header as _, ipv6};
use crate::{
    address::{ANY_V6, Address},
    packet::Packet,
    protocol::Protocol,
};

/// What such a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Loose {
    /// Who has sent the packet.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// Where the transport header would start, from the start of the frame.
    pub offset: u32,
    /// What the fragments of one packet have in common.
    pub id: u32,
    /// The protocol number, behind any extension headers.
    pub protocol: u32,
    /// 1 where this is the beginning of the packet, whole or not; else 0.
    pub is_first: u32,
}

const _: () = assert!(size_of::<Loose>() == 48);

/// The furthest that a header is looked for: behind two IP headers with as many extensions as are
/// walked. A power of two less one, which the verifier sees as a bound.
const FURTHEST: usize = 0x7fff;

impl Loose {
    /// All zero.
    pub const EMPTY: Self = Self {
        source: ANY_V6,
        destination: ANY_V6,
        offset: 0,
        id: 0,
        protocol: 0,
        is_first: 0,
    };

    /// TCP or UDP; `None` for anything else.
    #[inline(always)]
    #[must_use]
    pub fn transport_protocol(&self) -> Option<Protocol> {
        if self.protocol == u32::from(Protocol::Tcp.ip_number()) {
            Some(Protocol::Tcp)
        } else if self.protocol == u32::from(Protocol::Udp.ip_number()) {
            Some(Protocol::Udp)
        } else {
            None
        }
    }

    /// Where the transport header would start.
    #[inline(always)]
    #[must_use]
    pub const fn transport(&self) -> usize {
        self.offset as usize & FURTHEST
    }
}

/// Reads an IPv4 or IPv6 header, whichever its first four bits say, and walks extension headers.
/// `false` where it is not within reach, or hides its transport header.
#[inline(always)]
pub fn read<P: Packet + ?Sized>(packet: &P, offset: usize, header: &mut Loose) -> bool {
    read_either(packet, offset & FURTHEST, header).is_some()
}

#[inline(always)]
fn read_either<P: Packet + ?Sized>(packet: &P, offset: usize, header: &mut Loose) -> Option<()> {
    // The shorter of the two headers: the verifier learns nothing from a look at a single byte.
    let [first, ..] = *packet.get::<{ Ipv4Hdr::LEN }>(offset)?;
    match first >> 4 {
        4 => read_v4(packet, offset, header),
        6 => read_v6(packet, offset, header),
        _ => None,
    }
}

#[inline(always)]
fn read_v4<P: Packet + ?Sized>(packet: &P, offset: usize, loose: &mut Loose) -> Option<()> {
    let header = Ipv4Hdr::read(packet, offset)?;
    let ihl = usize::from(header.vihl & 0x0f) * 4;
    if ihl < Ipv4Hdr::LEN {
        return None;
    }
    loose.source = Address::from_v4(header.src_addr);
    loose.destination = Address::from_v4(header.dst_addr);
    loose.offset = (offset + ihl) as u32;
    loose.id = u32::from(u16::from_be_bytes(header.id));
    loose.protocol = u32::from(header.proto);
    loose.is_first = u32::from(u16::from_be_bytes(header.frags) & 0x1fff == 0);
    Some(())
}

#[inline(always)]
fn read_v6<P: Packet + ?Sized>(packet: &P, offset: usize, loose: &mut Loose) -> Option<()> {
    let header = Ipv6Hdr::read(packet, offset)?;
    loose.source = Address::from_v6(header.src_addr);
    loose.destination = Address::from_v6(header.dst_addr);
    if loose.source.is_mapped() || loose.destination.is_mapped() {
        return None;
    }
    let mut next = header.next_hdr;
    let mut at = offset + Ipv6Hdr::LEN;
    loose.id = 0;
    loose.is_first = 1;
    for _ in 0..ipv6::MAX_EXTENSION_HEADERS {
        if !ipv6::is_extension(next) || loose.is_first == 0 {
            break;
        }
        let [following, length, third, fourth, id @ ..] = *packet.get::<8>(at & FURTHEST)?;
        if next == ipv6::FRAGMENT {
            loose.is_first = u32::from(u16::from_be_bytes([third, fourth]) & 0xfff8 == 0);
            loose.id = u32::from_be_bytes(id);
            at += 8;
        } else {
            at += ipv6::extension_len(next, length);
        }
        next = following;
    }
    loose.protocol = u32::from(next);
    loose.offset = at as u32;
    Some(())
}
