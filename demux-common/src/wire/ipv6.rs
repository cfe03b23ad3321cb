//! IPv6 (RFC 8200), with its extension headers.

use network_types::ip::{IpProto, Ipv6Hdr};

use super::{Header as _, Payload};
use crate::{address::Address, connection::ConnectionKey, packet::Packet, reason::Reason};

/// How many extension headers are walked; a packet with more is the kernel's to judge.
pub const MAX_EXTENSION_HEADERS: usize = 6;

/// The largest payload length that the header can tell.
const MAX_PAYLOAD: usize = u16::MAX as usize;

const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
const ROUTING: u8 = IpProto::Ipv6Route as u8;
pub(super) const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const AUTHENTICATION: u8 = IpProto::Ah as u8;
const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
const MOBILITY: u8 = IpProto::MobilityHeader as u8;
const ENCRYPTED: u8 = IpProto::Esp as u8;
const NO_NEXT_HEADER: u8 = IpProto::Ipv6NoNxt as u8;

/// Reads the IPv6 header at `offset` of a frame of `frame_len` bytes, and its addresses into `key` (the destination is local),
/// and walks its extension headers.
///
/// # Errors
///
/// [`Reason::Truncated`], [`Reason::BadIpv6Header`] where a length contradicts the frame
/// or an address is IPv4-mapped,
/// [`Reason::Fragment`] (but an atomic fragment, RFC 6946, is a whole packet),
/// [`Reason::SourceRouted`] where this host would be but a stop on the way,
/// [`Reason::Ipv6Extension`] where the transport header is hidden or too far away.
#[inline(always)]
pub fn read<P: Packet + ?Sized>(
    packet: &P,
    frame_len: usize,
    offset: usize,
    key: &mut ConnectionKey,
) -> Result<Payload, Reason> {
    let Some(header) = Ipv6Hdr::read(packet, offset) else {
        return Err(Reason::Truncated);
    };
    if header.vcf[0] >> 4 != 6 {
        return Err(Reason::BadIpv6Header);
    }
    // Such an address would stand for an IPv4 conversation in the tables.
    key.local_address = Address::from_v6(header.dst_addr);
    key.remote_address = Address::from_v6(header.src_addr);
    if key.local_address.is_mapped() || key.remote_address.is_mapped() {
        return Err(Reason::BadIpv6Header);
    }
    let present = frame_len.saturating_sub(offset + Ipv6Hdr::LEN);
    let mut payload_len = usize::from(u16::from_be_bytes(header.payload_len));
    // BIG TCP and jumbograms (RFC 2675): the length does not fit the field, which is then 0.
    if payload_len == 0 && present > MAX_PAYLOAD {
        payload_len = present;
    }
    if payload_len > present {
        return Err(Reason::BadIpv6Header);
    }

    let mut next = header.next_hdr;
    // Bytes of extension headers so far.
    let mut walked = 0usize;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(next) {
            break;
        }
        let Some(extension) = packet.get::<8>(offset + Ipv6Hdr::LEN + walked) else {
            return Err(Reason::Truncated);
        };
        let [following, length, third, fourth, ..] = *extension;
        let bytes = match next {
            FRAGMENT => {
                // Offset and More Fragments; the two bits between them are reserved.
                if u16::from_be_bytes([third, fourth]) & 0xfff9 != 0 {
                    return Err(Reason::Fragment);
                }
                8
            }
            ROUTING if fourth != 0 => return Err(Reason::SourceRouted),
            _ => extension_len(next, length),
        };
        walked += bytes;
        next = following;
    }
    if is_extension(next) || next == ENCRYPTED || next == NO_NEXT_HEADER {
        return Err(Reason::Ipv6Extension);
    }
    if walked > payload_len {
        return Err(Reason::BadIpv6Header);
    }
    Ok(Payload {
        protocol: next,
        offset: offset + Ipv6Hdr::LEN + walked,
        len: payload_len - walked,
    })
}

/// Bytes of an extension header, by its type and its field for the length.
#[inline(always)]
pub(super) const fn extension_len(next_header: u8, length: u8) -> usize {
    match next_header {
        // Counted in words of four bytes, not of eight (RFC 4302, section 2.2).
        AUTHENTICATION => (length as usize + 2) * 4,
        _ => (length as usize + 1) * 8,
    }
}

#[inline(always)]
pub(super) const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY
    )
}
