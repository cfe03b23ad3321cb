//! The frames that are measured: the shortest that there are, with padding as on a cable.

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};

use crate::common::pair::Family;

/// Without the checksum, which no program sees.
const SHORTEST: usize = 60;

/// The numbers of a segment. What does not fit a connection is looked at more closely.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
}

/// What makes frames from the peer to the host.
#[derive(Clone, Copy)]
pub(crate) struct Frames {
    /// The stations of the host and of its peer.
    pub(crate) stations: [[u8; 6]; 2],
}

impl Frames {
    /// An acknowledgement without data.
    pub(crate) fn ack(
        self,
        family: Family,
        remote_port: u16,
        port: u16,
        numbers: Numbers,
    ) -> Vec<u8> {
        let mut header = TcpHeader::new(remote_port, port, numbers.sequence, 64_240);
        header.ack = true;
        header.acknowledgment_number = numbers.acknowledgement;
        self.segment(family, header)
    }

    /// The beginning of a connection.
    pub(crate) fn syn(self, family: Family, remote_port: u16, port: u16) -> Vec<u8> {
        let mut header = TcpHeader::new(remote_port, port, 1000, 64_240);
        header.syn = true;
        self.segment(family, header)
    }

    /// A datagram.
    pub(crate) fn datagram(self, family: Family, remote_port: u16, port: u16) -> Vec<u8> {
        self.datagram_of(family, remote_port, port, b"demux")
    }

    /// A datagram with this data.
    pub(crate) fn datagram_of(
        self,
        family: Family,
        remote_port: u16,
        port: u16,
        data: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.ip(family)
            .udp(remote_port, port)
            .write(&mut bytes, data)
            .expect("a datagram");
        padded(bytes)
    }

    /// A question who has an address.
    pub(crate) fn arp(self) -> Vec<u8> {
        let [_, peer] = self.stations;
        let mut bytes = [&[0xff; 6][..], &peer, &[0x08, 0x06]].concat();
        bytes.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
        padded(bytes)
    }

    fn segment(self, family: Family, header: TcpHeader) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.ip(family)
            .tcp_header(header)
            .write(&mut bytes, &[])
            .expect("a segment");
        padded(bytes)
    }

    fn ip(self, family: Family) -> PacketBuilderStep<etherparse::IpHeaders> {
        let [host, peer] = self.stations;
        let ethernet = PacketBuilder::ethernet2(peer, host);
        match (family.peer(), family.host()) {
            (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
                ethernet.ipv4(from.octets(), to.octets(), 64)
            }
            (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => {
                ethernet.ipv6(from.octets(), to.octets(), 64)
            }
            _ => unreachable!("both are of one family"),
        }
    }
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().max(SHORTEST), 0);
    bytes
}
