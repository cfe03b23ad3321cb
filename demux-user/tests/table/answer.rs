//! Frames that are turned into the answer to them, and what an answer must be.

use demux_common::{packet::Packet, reject::Rewrite};
use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, Ipv4Header, Ipv6Header, PacketHeaders,
    TcpHeader, TransportHeader, icmpv4, icmpv6,
};

/// The linear part of a frame, as a program may change it, what is behind that, and how long the whole is.
pub struct Buffer {
    pub bytes: Vec<u8>,
    /// What is in other buffers.
    pub rest: Vec<u8>,
    whole: usize,
}

impl Buffer {
    pub fn of<P: Packet + ?Sized>(packet: &P) -> Self {
        let byte = |at| {
            let [byte] = *packet.get::<1>(at).expect("a byte within reach");
            byte
        };
        Self {
            bytes: (0..packet.linear_len()).map(byte).collect(),
            rest: Vec::new(),
            whole: packet.frame_len(),
        }
    }
}

impl Packet for Buffer {
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.bytes.get(offset..)?.first_chunk()
    }

    fn frame_len(&self) -> usize {
        self.whole
    }

    fn linear_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Rewrite for Buffer {
    fn sum(&self, offset: usize, length: usize, sum: u32) -> Option<u32> {
        let joined;
        let bytes = if offset + length <= self.bytes.len() {
            &self.bytes
        } else {
            joined = [&self.bytes[..], &self.rest].concat();
            &joined
        };
        let bytes = bytes.get(offset..offset + length)?;
        let words = bytes.chunks(2).map(|pair| {
            let second = pair.get(1).copied().unwrap_or(0);
            u64::from(u16::from_ne_bytes([pair[0], second]))
        });
        let sum = u64::from(sum) + words.sum::<u64>();
        Some((sum & 0xffff_ffff) as u32 + (sum >> 32) as u32)
    }

    fn put<T: Copy>(&mut self, offset: usize, value: &T) {
        if offset + size_of::<T>() <= self.bytes.len() {
            let to = self.bytes[offset..].as_mut_ptr();
            // SAFETY: just checked that there are as many bytes, and what is written are integers.
            unsafe { to.cast::<T>().write_unaligned(*value) };
        }
    }

    fn reshape(&mut self, front: usize, length: usize) -> bool {
        self.bytes.splice(0..0, std::iter::repeat_n(0xee, front));
        assert!(length <= self.bytes.len());
        self.bytes.truncate(length);
        self.rest.clear();
        self.whole = length;
        true
    }
}

/// Where the IP header of a frame begins, past up to two VLAN tags.
pub fn network(frame: &[u8]) -> usize {
    let is_tag = |at: usize| matches!(frame[at..at + 2], [0x81, 0] | [0x88, 0xa8]);
    match (is_tag(12), is_tag(16)) {
        (false, _) => 14,
        (true, false) => 18,
        (true, true) => 22,
    }
}

/// Complains where `answer` is not the refusal that a host sends for `arrived`.
pub fn check(arrived: &[u8], answer: &[u8]) -> Result<(), String> {
    let ip = network(arrived);
    let is_v4 = arrived[ip] >> 4 == 4;
    let claim = |holds: bool, what: &str| {
        if holds {
            Ok(())
        } else {
            Err(format!("{what}: {answer:02x?} answers {arrived:02x?}"))
        }
    };
    claim(answer.len() >= ip + 40, "length")?;
    claim(answer[..6] == arrived[6..12], "destination station")?;
    claim(answer[6..12] == arrived[..6], "source station")?;
    claim(answer[12..ip] == arrived[12..ip], "tags and type")?;
    let field = |at: usize| usize::from(u16::from_be_bytes([arrived[at], arrived[at + 1]]));
    let total = if is_v4 {
        field(ip + 2)
    } else {
        field(ip + 4) + 40
    };
    let packet = &arrived[ip..ip + total];
    let headers = PacketHeaders::from_ip_slice(packet).map_err(|error| error.to_string())?;
    let transport = headers.transport.expect("a transport header");

    let (protocol, payload, addresses) = if is_v4 {
        let (header, rest) = Ipv4Header::from_slice(&answer[ip..]).map_err(|e| e.to_string())?;
        claim(
            header.header_checksum == header.calc_header_checksum(),
            "IPv4 checksum",
        )?;
        claim(header.dont_fragment && !header.more_fragments, "flags")?;
        claim(
            header.identification == 0 && header.options.is_empty(),
            "id, options",
        )?;
        claim(header.time_to_live == 64, "TTL")?;
        claim(header.source[..] == packet[16..20], "source")?;
        claim(header.destination[..] == packet[12..16], "destination")?;
        let length = usize::from(header.total_len);
        claim(length >= 20 && ip + length <= answer.len(), "total length")?;
        (header.protocol.0, &rest[..length - 20], None)
    } else {
        let (header, rest) = Ipv6Header::from_slice(&answer[ip..]).map_err(|e| e.to_string())?;
        claim(header.hop_limit == 64, "hop limit")?;
        claim(header.source[..] == packet[24..40], "source")?;
        claim(header.destination[..] == packet[8..24], "destination")?;
        let length = usize::from(header.payload_length);
        claim(ip + 40 + length <= answer.len(), "payload length")?;
        let pair = (header.source, header.destination);
        (header.next_header.0, &rest[..length], Some(pair))
    };
    let behind = &answer[ip + if is_v4 { 20 } else { 40 } + payload.len()..];
    claim(behind.iter().all(|byte| *byte == 0), "padding")?;
    let without_padding = answer.len() - behind.len();
    // As long as Ethernet asks for, where the frame that it answers was.
    let shortest = if arrived.len() < 60 { 0 } else { 60 };
    let shortest = without_padding.max(shortest);
    claim(answer.len() == shortest, "length of the frame")?;

    match transport {
        TransportHeader::Tcp(segment) => {
            claim(
                protocol == 6 && payload.len() == 20,
                "a segment without data",
            )?;
            let (reset, _) = TcpHeader::from_slice(payload).map_err(|e| e.to_string())?;
            let checksum = match addresses {
                None => {
                    let (from, to) = (&packet[16..20], &packet[12..16]);
                    let [from, to] = [from, to].map(|part| part.try_into().expect("four"));
                    reset.calc_checksum_ipv4_raw(from, to, &[])
                }
                Some((from, to)) => reset.calc_checksum_ipv6_raw(from, to, &[]),
            };
            claim(Ok(reset.checksum) == checksum, "TCP checksum")?;
            let expected = TcpHeader {
                source_port: segment.destination_port,
                destination_port: segment.source_port,
                rst: true,
                ack: !segment.ack,
                sequence_number: if segment.ack {
                    segment.acknowledgment_number
                } else {
                    0
                },
                acknowledgment_number: if segment.ack {
                    0
                } else {
                    let data = packet.len() - data_at(packet, is_v4, segment.header_len());
                    segment
                        .sequence_number
                        .wrapping_add(data as u32)
                        .wrapping_add(u32::from(segment.syn) + u32::from(segment.fin))
                },
                checksum: reset.checksum,
                ..TcpHeader::default()
            };
            claim(reset == expected, "the reset")
        }
        TransportHeader::Udp(_) => {
            let longest = if is_v4 { 576 - 28 } else { 1280 - 48 };
            let quoted = &packet[..packet.len().min(longest)];
            claim(payload.len() >= 8 && payload[8..] == *quoted, "quotation")?;
            let expected = match addresses {
                None => {
                    claim(protocol == 1, "ICMP")?;
                    let kind =
                        Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
                    Icmpv4Header::with_checksum(kind, quoted)
                        .to_bytes()
                        .to_vec()
                }
                Some((from, to)) => {
                    claim(protocol == 58, "ICMPv6")?;
                    let kind =
                        Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port);
                    let header = Icmpv6Header::with_checksum(kind, from, to, quoted);
                    header.map_err(|e| e.to_string())?.to_bytes().to_vec()
                }
            };
            claim(payload[..8] == expected, "the error")
        }
        _ => Err(format!("nobody answers {arrived:02x?}")),
    }
}

/// Where the data of a segment begins in its packet.
fn data_at(packet: &[u8], is_v4: bool, tcp: usize) -> usize {
    if is_v4 {
        return usize::from(packet[0] & 15) * 4 + tcp;
    }
    let (headers, _, _) =
        etherparse::Ipv6Extensions::from_slice(etherparse::IpNumber(packet[6]), &packet[40..])
            .expect("extension headers");
    40 + headers.header_len() + tcp
}
