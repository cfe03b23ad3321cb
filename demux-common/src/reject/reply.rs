//! What a refusal looks like.
//!
//! Replies have no options, a time to live of 64, and for IPv4 the flag DF and therefore no
//! identification (RFC 6864). VLAN tags stay as they are.

use super::{
    Rewrite,
    checksum::{addresses, fold, pseudo, sum_of},
};
use crate::{
    address::{Address, Family},
    parse::Parsed,
    protocol::Protocol,
    tcp::Flags,
};

const TTL: u32 = 64;

/// Bytes of headers without options.
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
const ICMP: usize = 8;

/// The longest ICMP error that every host takes (RFC 1812, section 4.3.2.3), and the longest of
/// ICMPv6 (RFC 4443, section 3.1), both with their IP header.
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;

/// What Ethernet pads shorter frames to, without the checksum behind it.
const SHORTEST_FRAME: usize = 60;

/// Ethernet with two VLAN tags: what is read of a frame to be turned round, tags or not.
const LONGEST_ETHERNET: usize = 22;

const ICMP_PROTOCOL: u8 = 1;
const ICMPV6_PROTOCOL: u8 = 58;

/// Type and code of port unreachable (RFC 792; RFC 4443, section 3.1).
const PORT_UNREACHABLE_V4: u32 = 0x0303_0000;
const PORT_UNREACHABLE_V6: u32 = 0x0104_0000;

/// Headers in memory order. On the stack of a kernel program they must be aligned.
#[repr(C, align(8))]
struct Words<const N: usize>([u32; N]);

/// The reset that answers a segment, written over it; `false` where the frame cannot be changed.
#[inline(always)]
pub(super) fn reset<F: Rewrite>(frame: &mut F, parsed: &Parsed, network: usize) -> bool {
    let ip = match parsed.family {
        Family::Ipv4 => IPV4,
        Family::Ipv6 => IPV6,
    };
    let length = network + ip + TCP;
    let is_padded = length < SHORTEST_FRAME && frame.frame_len() >= SHORTEST_FRAME;
    let frame_len = if is_padded { SHORTEST_FRAME } else { length };
    if !frame.reshape(0, frame_len) {
        return false;
    }
    if is_padded {
        frame.put(SHORTEST_FRAME - 6, &[0u16; 3]);
    }
    turn_ethernet(frame, 0);
    let sum = addresses(parsed);
    let tcp = tcp(parsed, sum);
    match parsed.family {
        Family::Ipv4 => {
            let [a, b, c, d, e] = ipv4(parsed, Protocol::Tcp.ip_number(), TCP, sum);
            let [f, g, h, i, j] = tcp;
            frame.put(network, &Words([a, b, c, d, e, f, g, h, i, j]).0);
        }
        Family::Ipv6 => {
            let [a, b, c, d, e, f, g, h, i, j] = ipv6(parsed, Protocol::Tcp.ip_number(), TCP);
            let [k, l, m, n, o] = tcp;
            frame.put(
                network,
                &Words([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o]).0,
            );
        }
    }
    true
}

/// The port unreachable that answers a datagram, put before it; `total` is the length of its IP
/// packet. `false` where the frame cannot be changed.
#[inline(always)]
pub(super) fn unreachable<F: Rewrite>(
    frame: &mut F,
    parsed: &Parsed,
    network: usize,
    total: usize,
) -> bool {
    let (ip, longest) = match parsed.family {
        Family::Ipv4 => (IPV4, LONGEST_V4),
        Family::Ipv6 => (IPV6, LONGEST_V6),
    };
    let front = ip + ICMP;
    let quoted = if total < longest - front {
        total
    } else {
        longest - front
    };
    if !frame.reshape(front, network + front + quoted) {
        return false;
    }
    turn_ethernet(frame, front);
    let Some(quotation) = frame.sum(network + front, quoted, 0) else {
        return false;
    };
    let message = (ICMP + quoted) as u32;
    let sum = addresses(parsed);
    match parsed.family {
        Family::Ipv4 => {
            let [a, b, c, d, e] = ipv4(parsed, ICMP_PROTOCOL, message as usize, sum);
            let first = PORT_UNREACHABLE_V4.to_be();
            let checksum = !fold(u64::from(quotation) + u64::from(first));
            frame.put(
                network,
                &Words([a, b, c, d, e, first | at_2(checksum), 0]).0,
            );
        }
        Family::Ipv6 => {
            let [a, b, c, d, e, f, g, h, i, j] = ipv6(parsed, ICMPV6_PROTOCOL, message as usize);
            let first = PORT_UNREACHABLE_V6.to_be();
            let pseudo = pseudo(sum, ICMPV6_PROTOCOL, message);
            let checksum = !fold(u64::from(quotation) + u64::from(first) + pseudo);
            frame.put(
                network,
                &Words([a, b, c, d, e, f, g, h, i, j, first | at_2(checksum), 0]).0,
            );
        }
    }
    true
}

/// Copies the Ethernet header at `from` to the front with its stations exchanged, and some bytes
/// behind it that are written anew.
#[inline(always)]
fn turn_ethernet<F: Rewrite>(frame: &mut F, from: usize) {
    #[repr(C, align(8))]
    struct Halves([u16; LONGEST_ETHERNET / 2]);

    let Some(bytes) = frame.get::<LONGEST_ETHERNET>(from) else {
        return;
    };
    let half = |index: usize| u16::from_ne_bytes([bytes[2 * index], bytes[2 * index + 1]]);
    let halves = Halves([
        half(3),
        half(4),
        half(5),
        half(0),
        half(1),
        half(2),
        half(6),
        half(7),
        half(8),
        half(9),
        half(10),
    ]);
    frame.put(0, &halves.0);
}

/// An IPv4 header for the way back, before `payload` bytes (RFC 791).
#[inline(always)]
fn ipv4(parsed: &Parsed, protocol: u8, payload: usize, addresses: u64) -> [u32; 5] {
    const DONT_FRAGMENT: u32 = 0x4000;
    let first = (0x4500 << 16 | (IPV4 + payload) as u32).to_be();
    let second = DONT_FRAGMENT.to_be();
    let third = (TTL << 24 | u32::from(protocol) << 16).to_be();
    let checksum = !fold(sum_of(&[first, second, third]) + addresses);
    [
        first,
        second,
        third | at_2(checksum),
        v4_word(&parsed.key.local_address),
        v4_word(&parsed.key.remote_address),
    ]
}

/// An IPv6 header for the way back, before `payload` bytes (RFC 8200).
#[inline(always)]
fn ipv6(parsed: &Parsed, protocol: u8, payload: usize) -> [u32; 10] {
    let [a, b, c, d] = v6_words(&parsed.key.local_address);
    let [e, f, g, h] = v6_words(&parsed.key.remote_address);
    [
        0x6000_0000_u32.to_be(),
        ((payload as u32) << 16 | u32::from(protocol) << 8 | TTL).to_be(),
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
    ]
}

/// The header of the reset (RFC 9293, section 3.10.7.1).
#[inline(always)]
fn tcp(parsed: &Parsed, addresses: u64) -> [u32; 5] {
    const FIVE_WORDS: u32 = 5 << 28;
    let segment = &parsed.segment;
    let (sequence, acknowledgement, flags) = if segment.flags.has(Flags::ACK) {
        (segment.acknowledgement, 0, Flags::RST)
    } else {
        let next = segment.sequence.wrapping_add(segment.length);
        (0, next, Flags::RST | Flags::ACK)
    };
    let ports = u32::from(parsed.key.local_port) << 16 | u32::from(parsed.key.remote_port);
    let words = [
        ports.to_be(),
        sequence.to_be(),
        acknowledgement.to_be(),
        (FIVE_WORDS | flags << 16).to_be(),
    ];
    let pseudo = pseudo(addresses, Protocol::Tcp.ip_number(), TCP as u32);
    let checksum = !fold(sum_of(&words) + pseudo);
    let [a, b, c, d] = words;
    [a, b, c, d, at_0(checksum)]
}

/// A checksum at the start of a word.
#[inline(always)]
const fn at_0(checksum: u16) -> u32 {
    let [a, b] = checksum.to_ne_bytes();
    u32::from_ne_bytes([a, b, 0, 0])
}

/// A checksum at the end of a word.
#[inline(always)]
const fn at_2(checksum: u16) -> u32 {
    let [a, b] = checksum.to_ne_bytes();
    u32::from_ne_bytes([0, 0, a, b])
}

#[inline(always)]
const fn v4_word(address: &Address) -> u32 {
    u32::from_ne_bytes(address.v4())
}

#[inline(always)]
const fn v6_words(address: &Address) -> [u32; 4] {
    let [high, low] = address.words();
    let [a, b] = split(high);
    let [c, d] = split(low);
    [a, b, c, d]
}

/// The halves of a word in memory order.
#[inline(always)]
const fn split(word: u64) -> [u32; 2] {
    if cfg!(target_endian = "little") {
        [word as u32, (word >> 32) as u32]
    } else {
        [(word >> 32) as u32, word as u32]
    }
}
