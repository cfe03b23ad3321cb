//! The frames that are sent: the shortest that there are.

use std::net::IpAddr;

use demux_common::protocol::Protocol;
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};

use crate::{case::Case, common::pair::Family, flows::FIRST_PORT};

/// Without the checksum, which no program sees.
const SHORTEST: usize = 60;

/// Where the remote's numbers begin, and this host's.
pub(crate) const SEQUENCE: u32 = 1000;
pub(crate) const OWN_SEQUENCE: u32 = 5000;

/// The stations of the receiver and of the sender.
#[derive(Clone, Copy)]
pub(crate) struct Stations {
    pub(crate) to: [u8; 6],
    pub(crate) from: [u8; 6],
}

/// The first packet of a flow.
pub(crate) fn opening(case: Case, stations: Stations) -> Vec<u8> {
    let mut syn = header(case, SEQUENCE);
    syn.syn = true;
    frame(case, stations, syn)
}

/// Every further one, which changes nothing: a datagram, or a segment without data.
pub(crate) fn steady(case: Case, stations: Stations) -> Vec<u8> {
    let mut ack = header(case, SEQUENCE + 1);
    ack.ack = true;
    ack.acknowledgment_number = OWN_SEQUENCE + 1;
    frame(case, stations, ack)
}

fn header(case: Case, sequence: u32) -> TcpHeader {
    TcpHeader::new(FIRST_PORT, case.target.port(), sequence, 64_240)
}

fn frame(case: Case, stations: Stations, header: TcpHeader) -> Vec<u8> {
    const DATA: [u8; 16] = [0x64; 16];
    let mut bytes = Vec::new();
    let ip = ip(case.family, stations);
    let written = match case.protocol {
        Protocol::Tcp => ip.tcp_header(header).write(&mut bytes, &[]),
        Protocol::Udp => ip
            .udp(header.source_port, header.destination_port)
            .write(&mut bytes, &DATA),
    };
    written.expect("a frame");
    bytes.resize(bytes.len().max(SHORTEST), 0);
    bytes
}

fn ip(family: Family, stations: Stations) -> PacketBuilderStep<etherparse::IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(stations.from, stations.to);
    match (family.peer(), family.host()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!("both are of one family"),
    }
}
