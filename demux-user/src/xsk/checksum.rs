//! The checksums of arriving TCP segments and UDP datagrams.
//!
//! A driver or a card completes the checksum of what leaves by a wire. What a local sender hands over
//! without one (veth, tap, virtio) arrives as the kernel left it: the field holds the folded sum of the
//! pseudo header, not complemented (CHECKSUM_PARTIAL). The kernel remembers that beside the packet, but a
//! frame in an AF_XDP socket has only its bytes. So whoever verifies checksums has to complete such first.
//!
//! A complete checksum may by chance equal that sum, once in 65,535; such a packet is taken as good without
//! a look at its data, as demux does when it refuses packets.

use demux_common::{
    address::Family,
    parse::{self, Parsed},
    protocol::Protocol,
    reject::checksum::{addresses, fold, pseudo},
    wire::ethernet,
};

/// What all words of a packet and its pseudo header with a correct checksum add up to.
const GOOD: u16 = 0xffff;

/// Bytes of the fixed IPv6 header.
const IPV6_HEADER: usize = 40;

/// What the checksum at the transport layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It is right.
    Right,
    /// It is that of the pseudo header: the sender left the rest to its device.
    Partial,
    /// There is none: a UDP datagram over IPv4 may do without (RFC 768).
    None,
    /// It is wrong: the packet is damaged.
    Wrong,
    /// The frame is no TCP segment or UDP datagram that demux could parse, such as a fragment.
    Unknown,
}

/// What the checksum of an arrived frame, from its Ethernet header on, is.
pub fn check(frame: &[u8]) -> Checksum {
    Field::find(frame).map_or(Checksum::Unknown, |field| field.check(frame))
}

/// As [`check`], and replaces a partial checksum by the complete one. Returns what it found.
pub fn complete(frame: &mut [u8]) -> Checksum {
    let Some(field) = Field::find(frame) else {
        return Checksum::Unknown;
    };
    let found = field.check(frame);
    if found == Checksum::Partial {
        field.complete(frame);
    }
    found
}

/// Where a checksum stands, and what it is of.
struct Field {
    /// Where the field is in the frame.
    at: usize,
    /// What is summed up: from the transport header to the end of the packet.
    start: usize,
    end: usize,
    /// The folded sum of the pseudo header, in memory order.
    pseudo: u16,
    may_be_absent: bool,
}

impl Field {
    fn find(frame: &[u8]) -> Option<Self> {
        let parsed = parse::parse(frame).ok()?;
        let network = ethernet::read(frame).ok()?.payload;
        let (start, at, length) = match parsed.key.protocol {
            Protocol::Tcp => {
                let start = (parsed.headers_len - parsed.segment.header_len) as usize;
                let end = network + packet_length(frame, &parsed, network)?;
                (start, start + 16, end.checked_sub(start)?)
            }
            Protocol::Udp => {
                let start = parsed.headers_len as usize - 8;
                let length: [u8; 2] = *frame.get(start + 4..)?.first_chunk()?;
                (start, start + 6, usize::from(u16::from_be_bytes(length)))
            }
        };
        let end = start + length;
        // What the parser took, it has checked; a frame that is shorter all the same has no checksum.
        if end > frame.len() || at + 2 > end {
            return None;
        }
        let protocol = parsed.key.protocol.ip_number();
        Some(Self {
            at,
            start,
            end,
            pseudo: fold(pseudo(addresses(&parsed), protocol, length as u32)),
            may_be_absent: parsed.key.protocol == Protocol::Udp && parsed.family == Family::Ipv4,
        })
    }

    fn check(&self, frame: &[u8]) -> Checksum {
        let found = u16::from_ne_bytes([frame[self.at], frame[self.at + 1]]);
        if found == 0 && self.may_be_absent {
            return Checksum::None;
        }
        if found == self.pseudo {
            return Checksum::Partial;
        }
        if fold(u64::from(self.pseudo) + sum(&frame[self.start..self.end])) == GOOD {
            Checksum::Right
        } else {
            Checksum::Wrong
        }
    }

    /// The field holds the sum of the pseudo header already, so the sum of the packet is that of both.
    fn complete(&self, frame: &mut [u8]) {
        let checksum = match !fold(sum(&frame[self.start..self.end])) {
            // That would mean that there is none; in one's complement it is the same number.
            0 => 0xffff,
            checksum => checksum,
        };
        frame[self.at..self.at + 2].copy_from_slice(&checksum.to_ne_bytes());
    }
}

/// Bytes of the IP packet, by its own header.
fn packet_length(frame: &[u8], parsed: &Parsed, network: usize) -> Option<usize> {
    let field = |at: usize| {
        let bytes: [u8; 2] = *frame.get(network + at..)?.first_chunk()?;
        Some(usize::from(u16::from_be_bytes(bytes)))
    };
    match parsed.family {
        Family::Ipv4 => field(2),
        Family::Ipv6 => Some(field(4)? + IPV6_HEADER),
    }
}

/// The sum of the words of `bytes` in memory order; a last odd byte counts as if a zero followed.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    // At most 2^16 / 4 words of 32 bits, so that nothing overflows.
    words
        .iter()
        .chain([&last])
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum()
}

#[cfg(test)]
mod tests {
    use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};

    use super::*;

    const ONE: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const TWO: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn v6(last: u8) -> [u8; 16] {
        let mut address = [0; 16];
        (address[0], address[15]) = (0xfd, last);
        address
    }

    /// Frames with right checksums: TCP and UDP over both families, with and without a tag, with payloads
    /// of even and odd lengths.
    fn frames() -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for length in [0, 1, 2, 3, 1400, 8001] {
            let payload: Vec<u8> = (0..length).map(|byte: u32| (byte * 7 + 3) as u8).collect();
            let ethernet = || PacketBuilder::ethernet2(ONE, TWO);
            let tagged = || ethernet().single_vlan(etherparse::VlanId::try_new(5).unwrap());
            let over_ip: [&dyn Fn() -> PacketBuilderStep<IpHeaders>; 4] = [
                &|| ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
                &|| tagged().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
                &|| ethernet().ipv6(v6(1), v6(2), 64),
                &|| tagged().ipv6(v6(1), v6(2), 64),
            ];
            for builder in over_ip {
                let mut frame = Vec::new();
                let tcp = builder().tcp(40_000, 80, 1, 1000).ack(7);
                tcp.write(&mut frame, &payload).unwrap();
                frames.push(frame);
                let mut frame = Vec::new();
                let udp = builder().udp(40_000, 53);
                udp.write(&mut frame, &payload).unwrap();
                frames.push(frame);
            }
        }
        frames
    }

    /// The frame as a local sender hands it over.
    fn partial(frame: &[u8]) -> Vec<u8> {
        let field = Field::find(frame).expect("a checksum");
        let mut frame = frame.to_vec();
        frame[field.at..field.at + 2].copy_from_slice(&field.pseudo.to_ne_bytes());
        frame
    }

    #[test]
    fn right_and_wrong_ones_are_told_apart() {
        for frame in frames() {
            assert_eq!(check(&frame), Checksum::Right);
            for byte in [frame.len() - 1, Field::find(&frame).unwrap().at] {
                let mut damaged = frame.clone();
                damaged[byte] ^= 0x10;
                assert_eq!(complete(&mut damaged), Checksum::Wrong);
            }
        }
    }

    #[test]
    fn a_partial_one_is_completed_to_the_right_one() {
        for frame in frames() {
            let mut completed = partial(&frame);
            assert_eq!(complete(&mut completed), Checksum::Partial);
            assert_eq!(completed, frame);
        }
    }

    #[test]
    fn padding_behind_the_packet_does_not_count() {
        for frame in frames() {
            let mut padded = partial(&frame);
            padded.extend([0xa5; 9]);
            assert_eq!(complete(&mut padded), Checksum::Partial);
            assert_eq!(padded[..frame.len()], frame);
            assert_eq!(check(&padded), Checksum::Right);
        }
    }

    #[test]
    fn only_a_datagram_over_ipv4_may_have_none() {
        for frame in frames() {
            let field = Field::find(&frame).unwrap();
            let mut without = frame.clone();
            without[field.at..field.at + 2].fill(0);
            let expected = if field.may_be_absent {
                Checksum::None
            } else {
                Checksum::Wrong
            };
            assert_eq!(check(&without), expected);
        }
    }

    #[test]
    fn what_is_no_segment_or_datagram_is_unknown() {
        let mut frame = frames().remove(0);
        // More fragments follow.
        frame[20] |= 0x20;
        assert_eq!(complete(&mut frame), Checksum::Unknown);
        assert_eq!(check(&frame[..13]), Checksum::Unknown);
        assert_eq!(check(&[]), Checksum::Unknown);
    }
}
