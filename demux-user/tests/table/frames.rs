//! Frames to test with: sound ones, made by etherparse, which are then edited byte by byte.

use std::net::{IpAddr, SocketAddr};

use demux_common::protocol::Protocol;
use etherparse::{PacketBuilder, TcpHeader, ether_type};

/// The station that the tests play the host of.
pub const HOST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// The station that sends.
pub const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// A station that is neither.
pub const OTHER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x03];

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// The sequence number of segments for which none was chosen.
pub const SEQUENCE: u32 = 1000;

/// The acknowledgement number of segments for which none was chosen.
pub const ACKNOWLEDGED: u32 = 5000;

/// Where the MAC addresses end and tags are put in.
const MACS: usize = 12;

/// A frame, and where its headers are.
#[derive(Clone, Debug)]
pub struct Frame {
    pub bytes: Vec<u8>,
    /// Where the IP header starts.
    pub network: usize,
    /// Where the transport header starts.
    pub transport: usize,
    /// What the transport header is of, where it is TCP or UDP.
    pub protocol: Option<Protocol>,
}

/// A SYN from `remote` to `local`.
pub fn tcp(remote: &str, local: &str) -> Frame {
    segment(remote, local, SYN, SEQUENCE, &[])
}

/// A datagram from `remote` to `local`.
pub fn udp(remote: &str, local: &str) -> Frame {
    datagram(remote, local, b"demux")
}

/// A SYN or a datagram.
pub fn packet(protocol: Protocol, remote: &str, local: &str) -> Frame {
    match protocol {
        Protocol::Tcp => tcp(remote, local),
        Protocol::Udp => udp(remote, local),
    }
}

pub fn segment(remote: &str, local: &str, flags: u8, sequence: u32, data: &[u8]) -> Frame {
    let (remote, local) = (socket(remote), socket(local));
    let mut header = TcpHeader::new(remote.port(), local.port(), sequence, 64_240);
    header.fin = flags & FIN != 0;
    header.syn = flags & SYN != 0;
    header.rst = flags & RST != 0;
    header.psh = flags & PSH != 0;
    header.ack = flags & ACK != 0;
    header.urg = flags & URG != 0;
    header.ece = flags & ECE != 0;
    header.cwr = flags & CWR != 0;
    if header.ack {
        header.acknowledgment_number = ACKNOWLEDGED;
    }
    let mut bytes = Vec::new();
    addressed(remote, local)
        .tcp_header(header)
        .write(&mut bytes, data)
        .expect("a segment");
    Frame::new(bytes, remote, Protocol::Tcp)
}

pub fn datagram(remote: &str, local: &str, data: &[u8]) -> Frame {
    let (remote, local) = (socket(remote), socket(local));
    let mut bytes = Vec::new();
    addressed(remote, local)
        .udp(remote.port(), local.port())
        .write(&mut bytes, data)
        .expect("a datagram");
    Frame::new(bytes, remote, Protocol::Udp)
}

/// An IP packet from `remote` to `local` of any protocol.
pub fn raw_ip(remote: &str, local: &str, protocol: u8, data: &[u8]) -> Frame {
    let mut frame = datagram(&with_port(remote), &with_port(local), data);
    frame.bytes.drain(frame.transport..frame.transport + 8);
    let length = (frame.bytes.len() - frame.network) as u16;
    if frame.is_v4() {
        frame = frame.ip(9, &[protocol]).ip(2, &length.to_be_bytes());
        frame.sum_header();
        frame
    } else {
        frame.ip(6, &[protocol]).ip(4, &(length - 40).to_be_bytes())
    }
}

/// A frame of any EtherType, or, below 1536, of a length.
pub fn ethernet(destination: [u8; 6], ether_type: u16, data: &[u8]) -> Frame {
    let bytes = [&destination[..], &PEER_MAC, &ether_type.to_be_bytes(), data].concat();
    Frame {
        bytes,
        network: 14,
        transport: 14,
        protocol: None,
    }
}

/// An IPv6 extension header of 8 bytes and `more` units behind them; its first byte, the next header,
/// is filled in where it is put to use.
pub fn extension(more: u8, unit: usize) -> Vec<u8> {
    let mut bytes = vec![0; 8 + usize::from(more) * unit];
    bytes[1] = more;
    // One option that fills the header: PadN.
    bytes[2] = 1;
    bytes[3] = 4;
    bytes
}

/// A fragment header with this offset in bytes.
pub fn fragment(offset: u16, more: bool) -> Vec<u8> {
    let word = offset | u16::from(more);
    [&[0, 0][..], &word.to_be_bytes(), &[0, 0, 0, 7]].concat()
}

/// A routing header of the given type.
pub fn routing(kind: u8, segments_left: u8, addresses: u8) -> Vec<u8> {
    let mut bytes = vec![0; 8 + usize::from(addresses) * 16];
    bytes[1] = addresses * 2;
    bytes[2] = kind;
    bytes[3] = segments_left;
    bytes
}

/// An authentication header with this many words of four bytes of integrity check.
pub fn authentication(words: u8) -> Vec<u8> {
    let mut bytes = vec![0; 12 + usize::from(words) * 4];
    bytes[1] = words + 1;
    bytes
}

pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const ESP: u8 = 50;
pub const AUTHENTICATION: u8 = 51;
pub const NO_NEXT_HEADER: u8 = 59;
pub const DESTINATION_OPTIONS: u8 = 60;
pub const MOBILITY: u8 = 135;

impl Frame {
    fn new(bytes: Vec<u8>, remote: SocketAddr, protocol: Protocol) -> Self {
        Self {
            bytes,
            network: 14,
            transport: if remote.is_ipv4() { 34 } else { 54 },
            protocol: Some(protocol),
        }
    }

    pub fn is_v4(&self) -> bool {
        self.bytes[self.network - 2..self.network] == ether_type::IPV4.0.to_be_bytes()
    }

    /// Acknowledges this.
    pub fn acknowledging(self, number: u32) -> Self {
        self.transport(8, &number.to_be_bytes())
    }

    /// Overwrites bytes from the start of the frame on.
    pub fn at(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Overwrites bytes of the IP header.
    pub fn ip(self, offset: usize, bytes: &[u8]) -> Self {
        let network = self.network;
        self.at(network + offset, bytes)
    }

    /// Overwrites bytes of the transport header.
    pub fn transport(self, offset: usize, bytes: &[u8]) -> Self {
        let transport = self.transport;
        self.at(transport + offset, bytes)
    }

    /// Addresses the frame to another station.
    pub fn station(self, mac: [u8; 6]) -> Self {
        self.at(0, &mac)
    }

    /// Puts a VLAN tag before all others.
    pub fn tag(mut self, ether_type: u16, vlan: u16) -> Self {
        let tag = [ether_type.to_be_bytes(), vlan.to_be_bytes()].concat();
        self.bytes.splice(MACS..MACS, tag);
        self.network += 4;
        self.transport += 4;
        self
    }

    /// Puts options behind the IPv4 header; their length is a multiple of 4.
    pub fn options(mut self, options: &[u8]) -> Self {
        let end = self.network + 20;
        self.bytes.splice(end..end, options.iter().copied());
        self.transport += options.len();
        self.bytes[self.network] += (options.len() / 4) as u8;
        self.lengthen(2, options.len());
        self.sum_header();
        self
    }

    /// Puts extension headers behind the IPv6 header, each given with its number.
    pub fn extensions(mut self, headers: &[(u8, Vec<u8>)]) -> Self {
        let mut following = self.bytes[self.network + 6];
        for (kind, header) in headers.iter().rev() {
            let mut header = header.clone();
            header[0] = following;
            following = *kind;
            let start = self.network + 40;
            self.transport += header.len();
            self.lengthen(4, header.len());
            self.bytes.splice(start..start, header);
        }
        self.ip(6, &[following])
    }

    /// Puts zeros behind the packet, as Ethernet does with short ones.
    pub fn padded(mut self, length: usize) -> Self {
        self.bytes.resize(self.bytes.len() + length, 0);
        self
    }

    /// Cuts the frame.
    pub fn cut(mut self, length: usize) -> Self {
        self.bytes.truncate(length);
        self
    }

    /// Makes the checksum of the transport header right, whatever was done to the packet.
    pub fn summed(self) -> Self {
        let (pseudo, field) = self.unsummed();
        let mut frame = self.transport(field, &[0, 0]);
        let transport = &frame.bytes[frame.transport..frame.end()];
        let checksum = match !ones_complement(pseudo, transport) {
            // 0 would mean that there is none.
            0 if frame.protocol == Some(Protocol::Udp) => 0xffff,
            checksum => checksum,
        };
        frame = frame.transport(field, &checksum.to_be_bytes());
        frame
    }

    /// The checksum as a sender leaves it that has its device fill it in: the sum of the pseudo header.
    pub fn partially_summed(self) -> Self {
        let (pseudo, field) = self.unsummed();
        let checksum = ones_complement(pseudo, &[]);
        self.transport(field, &checksum.to_be_bytes())
    }

    /// A checksum that is wrong in one bit.
    pub fn wrongly_summed(self) -> Self {
        let mut frame = self.summed();
        let (_, field) = frame.unsummed();
        let at = frame.transport + field;
        frame.bytes[at] ^= 0x10;
        frame
    }

    /// The sum of the pseudo header, and where the checksum stands in the transport header.
    fn unsummed(&self) -> (u32, usize) {
        let length = self.end() - self.transport;
        let (number, field) = match self.protocol.expect("TCP or UDP") {
            Protocol::Tcp => (6, 16),
            Protocol::Udp => (17, 6),
        };
        let addresses = if self.is_v4() { 12..20 } else { 8..40 };
        let addresses = &self.bytes[self.network..][addresses];
        let sum = ones_complement((length as u32) + number, addresses);
        (u32::from(sum), field)
    }

    /// Where the datagram of UDP ends, or the packet, as it tells itself.
    fn end(&self) -> usize {
        let field =
            |at: usize| usize::from(u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]));
        match self.protocol {
            Some(Protocol::Udp) => self.transport + field(self.transport + 4),
            _ if self.is_v4() => self.network + field(self.network + 2),
            _ => self.network + 40 + field(self.network + 4),
        }
    }

    fn lengthen(&mut self, offset: usize, by: usize) {
        let field = &mut self.bytes[self.network + offset..][..2];
        let length = u16::from_be_bytes([field[0], field[1]]);
        field.copy_from_slice(&(length.wrapping_add(by as u16)).to_be_bytes());
    }

    /// Makes the checksum of the IPv4 header right.
    pub fn sum_header(&mut self) {
        let header_len = usize::from(self.bytes[self.network] & 15) * 4;
        let header = &mut self.bytes[self.network..][..header_len];
        header[10..12].fill(0);
        let sum: u32 = header
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
}

/// The one's complement sum of big-endian words, added to another.
fn ones_complement(sum: u32, bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let second = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], second]))
    });
    let mut sum = sum + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn addressed(
    remote: SocketAddr,
    local: SocketAddr,
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(PEER_MAC, HOST_MAC);
    match (remote.ip(), local.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("{remote} and {local} are of two families"),
    }
}

pub fn socket(text: &str) -> SocketAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is not an endpoint"))
}

fn with_port(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]:0")
    } else {
        format!("{address}:0")
    }
}
