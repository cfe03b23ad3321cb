//! IPv4 (RFC 791), with options.

use network_types::ip::Ipv4Hdr;

use super::{Header as _, Payload};
use crate::{address::Address, connection::ConnectionKey, packet::Packet, reason::Reason};

/// The smallest IPv4 header, without options.
const MIN_HEADER: usize = Ipv4Hdr::LEN;

/// More Fragments, and the offset of a fragment (RFC 791, section 3.1).
const FRAGMENTED: u16 = 0x3fff;

/// The largest total length that the header can tell.
const MAX_TOTAL: usize = u16::MAX as usize;

/// Reads the IPv4 header at `offset` of a frame of `frame_len` bytes, and its addresses into `key`: the destination is local.
///
/// # Errors
///
/// [`Reason::Truncated`], [`Reason::BadIpv4Header`] where a length contradicts the frame,
/// [`Reason::Fragment`] for every fragment, the first included.
#[inline(always)]
pub fn read<P: Packet + ?Sized>(
    packet: &P,
    frame_len: usize,
    offset: usize,
    key: &mut ConnectionKey,
) -> Result<Payload, Reason> {
    let Some(header) = Ipv4Hdr::read(packet, offset) else {
        return Err(Reason::Truncated);
    };
    let ihl = usize::from(header.vihl & 0x0f) * 4;
    if header.vihl >> 4 != 4 || ihl < MIN_HEADER {
        return Err(Reason::BadIpv4Header);
    }
    let present = frame_len.saturating_sub(offset);
    let mut total = usize::from(u16::from_be_bytes(header.tot_len));
    // BIG TCP: the length of a super-packet does not fit the field, which is then 0.
    if total == 0 && present > MAX_TOTAL {
        total = present;
    }
    if total < ihl || total > present {
        return Err(Reason::BadIpv4Header);
    }
    if u16::from_be_bytes(header.frags) & FRAGMENTED != 0 {
        return Err(Reason::Fragment);
    }
    key.local_address = Address::from_v4(header.dst_addr);
    key.remote_address = Address::from_v4(header.src_addr);
    Ok(Payload {
        protocol: header.proto,
        offset: offset + ihl,
        len: total - ihl,
    })
}
