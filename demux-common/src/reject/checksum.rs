//! The Internet checksum (RFC 1071), and which checksums of arriving packets are good.
//!
//! Sums are of 16-bit words *in memory order*, whatever the processor's: the one's complement sum
//! does not mind, as long as the result is written in memory order too.
//!
//! A checksum at the transport layer is good if it is correct; or if it is the folded sum of the
//! pseudo header, not complemented, which is what a packet of a local sender shows before its device
//! has filled it in (CHECKSUM_PARTIAL in Linux; veth, tap and virtio show such); or if it is 0 for
//! UDP over IPv4, which means that there is none (RFC 768). UDP over IPv6 must have one (RFC 8200,
//! section 8.1).

use super::Rewrite;
use crate::{address::Family, parse::Parsed, protocol::Protocol, wire::ethernet};

/// What all words of a header or packet with a correct checksum add up to.
const GOOD: u16 = 0xffff;

/// Bytes of the fixed IPv6 header.
const IPV6_HEADER: usize = 40;

/// The furthest that a transport header may be from the start of a frame: behind Ethernet, two tags
/// and as many extension headers as the parser walks.
const FURTHEST: usize = 0x3fff;

/// The longest packet that is of interest.
const LONGEST: usize = 0xffff;

/// Where the checksum stands in the headers of TCP and UDP.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// A sum as 16 bits; the checksum is its complement.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    // Each step adds the halves; the last ones only what was carried.
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16 & 0xffff) + (sum >> 32) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// The sum of words.
#[inline(always)]
#[must_use]
pub fn sum_of(words: &[u32]) -> u64 {
    let mut sum = 0;
    for word in words {
        sum += *word as u64;
    }
    sum
}

/// The sum of both addresses of a packet, which is the same for the answer to it.
#[inline(always)]
#[must_use]
pub fn addresses(parsed: &Parsed) -> u64 {
    let key = &parsed.key;
    match parsed.family {
        Family::Ipv4 => {
            u32::from_ne_bytes(key.local_address.v4()) as u64
                + u32::from_ne_bytes(key.remote_address.v4()) as u64
        }
        Family::Ipv6 => {
            let [a, b] = key.local_address.words();
            let [c, d] = key.remote_address.words();
            halves(a) + halves(b) + halves(c) + halves(d)
        }
    }
}

#[inline(always)]
const fn halves(word: u64) -> u64 {
    (word >> 32) + (word & 0xffff_ffff)
}

/// The sum of a pseudo header with these addresses, and `length` bytes behind it (RFC 9293, section
/// 3.1; RFC 8200, section 8.1).
#[inline(always)]
#[must_use]
pub const fn pseudo(addresses: u64, protocol: u8, length: u32) -> u64 {
    addresses + (protocol as u32).to_be() as u64 + length.to_be() as u64
}

/// Fills in the checksum of a TCP segment or UDP datagram that shows the sum of its pseudo header, and
/// leaves every other as it is. `false` where not the whole packet is within reach, or it is damaged.
#[inline(always)]
pub fn complete<F: Rewrite>(frame: &mut F, parsed: &Parsed) -> bool {
    complete_within(frame, parsed).is_some()
}

#[inline(always)]
fn complete_within<F: Rewrite>(frame: &mut F, parsed: &Parsed) -> Option<()> {
    let network = ethernet::read(frame).ok()?.payload;
    let total = total(frame, parsed, network)?;
    let transport = transport(parsed) & FURTHEST;
    let (length, found) = shown(frame, parsed, network, total, transport)?;
    let pseudo = fold(pseudo(
        addresses(parsed),
        parsed.key.protocol.ip_number(),
        length as u32,
    ));
    if length > LONGEST {
        return None;
    }
    if found != pseudo {
        return Some(());
    }
    let sum = fold(u64::from(frame.sum(
        transport,
        length,
        u32::from(pseudo),
    )?));
    // Once in 65,536 packets the right checksum looks like that.
    if sum == GOOD {
        return Some(());
    }
    // The field itself was added too.
    let sum = !fold(u64::from(sum) + u64::from(!found));
    let sum = if sum == 0 { GOOD } else { sum };
    let field = match parsed.key.protocol {
        Protocol::Tcp => TCP_CHECKSUM,
        Protocol::Udp => UDP_CHECKSUM,
    };
    frame.put(transport + field, &sum);
    Some(())
}

/// Whether the checksums of a packet whose IP header is at `network` are good: the number of bytes
/// of the IP packet, or `None`.
#[inline(always)]
pub(super) fn verify<F: Rewrite>(frame: &F, parsed: &Parsed, network: usize) -> Option<usize> {
    if matches!(parsed.family, Family::Ipv4) {
        let [first, ..] = *frame.get::<4>(network)?;
        let header_len = usize::from(first & 0x0f) * 4;
        if fold(u64::from(frame.sum(network, header_len, 0)?)) != GOOD {
            return None;
        }
    }
    let total = total(frame, parsed, network)?;
    let transport = transport(parsed) & FURTHEST;
    let (length, found) = shown(frame, parsed, network, total, transport)?;
    if length > LONGEST {
        return None;
    }
    let is_udp = matches!(parsed.key.protocol, Protocol::Udp);
    if is_udp && found == 0 {
        return matches!(parsed.family, Family::Ipv4).then_some(total);
    }
    let pseudo = fold(pseudo(
        addresses(parsed),
        parsed.key.protocol.ip_number(),
        length as u32,
    ));
    if found == pseudo {
        return Some(total);
    }
    let sum = frame.sum(transport, length, u32::from(pseudo))?;
    (fold(u64::from(sum)) == GOOD).then_some(total)
}

/// How many bytes the IP packet at `network` has.
#[inline(always)]
fn total<F: Rewrite>(frame: &F, parsed: &Parsed, network: usize) -> Option<usize> {
    Some(match parsed.family {
        Family::Ipv4 => {
            let [_, _, high, low] = *frame.get::<4>(network)?;
            usize::from(u16::from_be_bytes([high, low]))
        }
        Family::Ipv6 => {
            let [_, _, _, _, high, low] = *frame.get::<6>(network)?;
            usize::from(u16::from_be_bytes([high, low])) + IPV6_HEADER
        }
    })
}

/// How many bytes the checksum of the transport header is for, and what it shows.
#[inline(always)]
fn shown<F: Rewrite>(
    frame: &F,
    parsed: &Parsed,
    network: usize,
    total: usize,
    transport: usize,
) -> Option<(usize, u16)> {
    Some(match parsed.key.protocol {
        Protocol::Tcp => {
            let [.., high, low] = *frame.get::<{ TCP_CHECKSUM + 2 }>(transport)?;
            let length = (network + total).wrapping_sub(transport);
            (length, u16::from_ne_bytes([high, low]))
        }
        Protocol::Udp => {
            let [_, _, _, _, a, b, high, low] = *frame.get::<{ UDP_CHECKSUM + 2 }>(transport)?;
            let length = usize::from(u16::from_be_bytes([a, b]));
            (length, u16::from_ne_bytes([high, low]))
        }
    })
}

/// Where the transport header begins.
#[inline(always)]
fn transport(parsed: &Parsed) -> usize {
    const UDP_HEADER: u32 = 8;
    let header_len = match parsed.key.protocol {
        Protocol::Tcp => parsed.segment.header_len,
        Protocol::Udp => UDP_HEADER,
    };
    parsed.headers_len.wrapping_sub(header_len) as usize
}
