//! Resets in the name of connections that no socket of the kernel stands for.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use demux_common::{
    connection::{Connection, State},
    tcp::Marks,
};
use etherparse::{PacketBuilder, TcpHeader};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use crate::{Error, Result, capability::Capability, local_address};

/// What Linux gives a packet unless it is told otherwise (`net.ipv4.ip_default_ttl`).
const HOPS: u8 = 64;

/// The numbers of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    sequence: u32,
    acknowledgement: Option<u32>,
}

/// The resets that the remote of a row may believe; none where its numbers are not known.
///
/// The remote believes exactly the number that it waits for (RFC 5961, section 3.2). That is what
/// this host has sent, or, where some of that is lost or was not seen, what the remote has
/// acknowledged.
pub(super) fn numbers(row: &Connection) -> Vec<Numbers> {
    let marks = Marks(row.flags.0);
    let is_local_known = marks.has(Marks::LOCAL_SEEN);
    let is_remote_known = marks.has(Marks::REMOTE_SEEN);
    let acknowledgement = is_remote_known.then_some(row.remote.next);
    let mut sequences = Vec::with_capacity(2);
    if is_local_known {
        sequences.push(row.local.next);
    }
    match row.state {
        // Its SYN has no answer: a reset that acknowledges it is believed whatever its number is
        // (RFC 9293, section 3.10.7.3).
        State::Listen if !is_local_known && is_remote_known => sequences.push(0),
        // Before the first acknowledgement there stands the number of this host's SYN.
        State::Listen | State::SynSent | State::SynReceived => {}
        _ if is_remote_known && !sequences.contains(&row.remote.ack) => {
            sequences.push(row.remote.ack);
        }
        _ => {}
    }
    sequences
        .into_iter()
        .map(|sequence| Numbers {
            sequence,
            acknowledgement,
        })
        .collect()
}

/// Sockets that send whole packets, each opened when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Sender {
    v4: Option<OwnedFd>,
    v6: Option<OwnedFd>,
    /// The interfaces of this host's link-local addresses, which packets to their like need.
    devices: Option<HashMap<IpAddr, u32>>,
}

impl Sender {
    /// Opens the socket for packets to a remote.
    ///
    /// # Errors
    ///
    /// [`Error::MissingCapability`] without CAP_NET_RAW.
    pub(super) fn prepare(&mut self, remote: IpAddr) -> Result<&OwnedFd> {
        let (socket, family) = match remote {
            IpAddr::V4(_) => (&mut self.v4, AddressFamily::INET),
            IpAddr::V6(_) => (&mut self.v6, AddressFamily::INET6),
        };
        match socket {
            Some(socket) => Ok(socket),
            empty => Ok(empty.insert(raw_socket(family)?)),
        }
    }

    /// Sends a reset of this host's side to the other one.
    ///
    /// # Errors
    ///
    /// As [`Sender::prepare`]; and where the packet finds no way.
    pub(super) fn send(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        numbers: Numbers,
    ) -> Result<()> {
        let failed =
            |source: io::Error| Error::io(format!("send a reset from {local} to {remote}"), source);
        let packet = packet(local, remote, numbers).map_err(failed)?;
        let mut to = remote;
        // Where there is a port, the kernel takes it for a protocol.
        to.set_port(0);
        if let SocketAddr::V6(to) = &mut to
            && to.ip().is_unicast_link_local()
        {
            to.set_scope_id(self.device(local.ip())?);
        }
        let socket = self.prepare(remote.ip())?;
        sendto(socket, &packet, SendFlags::empty(), &to)
            .map_err(|errno| failed(errno.into()))
            .map(drop)
    }

    /// The interface with an address of this host; 0 where there is none.
    fn device(&mut self, address: IpAddr) -> Result<u32> {
        let devices = match &mut self.devices {
            Some(devices) => devices,
            empty => empty.insert(local_address::by_interface()?.into_iter().collect()),
        };
        Ok(devices.get(&address).copied().unwrap_or_default())
    }
}

/// A socket that sends packets with the headers they have, and receives none.
fn raw_socket(family: AddressFamily) -> Result<OwnedFd> {
    socket_with(
        family,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::RAW),
    )
    .map_err(|errno| Error::privileged("open a raw socket", errno, Capability::NetRaw))
}

/// The reset with its IP header; both addresses are of one version.
fn packet(local: SocketAddr, remote: SocketAddr, numbers: Numbers) -> io::Result<Vec<u8>> {
    let ip = match (local.ip(), remote.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), HOPS),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), HOPS),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let mut header = TcpHeader::new(local.port(), remote.port(), numbers.sequence, 0);
    header.rst = true;
    if let Some(acknowledgement) = numbers.acknowledgement {
        header.ack = true;
        header.acknowledgment_number = acknowledgement;
    }
    let mut packet = Vec::new();
    ip.tcp_header(header)
        .write(&mut packet, &[])
        .map_err(io::Error::other)?;
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use demux_common::{table::Flags, tcp::Half};

    use super::*;

    fn row(state: State, marks: u8) -> Connection {
        Connection {
            rx_packets: 1,
            rx_bytes: 60,
            tx_packets: 1,
            tx_bytes: 60,
            created: 0,
            last_seen: 0,
            remote: Half {
                next: 5000,
                ack: 700,
            },
            local: Half {
                next: 900,
                ack: 5000,
            },
            epoch: 0,
            binding: 0,
            state,
            flags: Flags(marks),
        }
    }

    #[test]
    fn a_reset_has_the_numbers_that_the_remote_waits_for() {
        const BOTH: u8 = Marks::LOCAL_SEEN | Marks::REMOTE_SEEN;
        for (state, marks, sequences, acknowledgement) in [
            (State::Established, BOTH, &[900, 700][..], Some(5000)),
            (State::CloseWait, BOTH, &[900, 700], Some(5000)),
            (State::Established, Marks::REMOTE_SEEN, &[700], Some(5000)),
            (State::Established, Marks::LOCAL_SEEN, &[900], None),
            (State::Established, 0, &[], None),
            (State::SynSent, Marks::LOCAL_SEEN, &[900], None),
            (State::SynReceived, BOTH, &[900], Some(5000)),
            (State::Listen, Marks::REMOTE_SEEN, &[0], Some(5000)),
            (State::Listen, 0, &[], None),
        ] {
            let expected: Vec<Numbers> = sequences
                .iter()
                .map(|&sequence| Numbers {
                    sequence,
                    acknowledgement,
                })
                .collect();
            assert_eq!(numbers(&row(state, marks)), expected, "{state:?} {marks}");
        }
    }

    #[test]
    fn what_is_all_acknowledged_needs_one_reset() {
        let mut row = row(State::Established, Marks::LOCAL_SEEN | Marks::REMOTE_SEEN);
        row.remote.ack = row.local.next;
        assert_eq!(numbers(&row).len(), 1);
    }

    #[test]
    fn a_reset_is_a_packet_of_its_connection() {
        for (local, remote) in [
            ("10.0.0.2:80", "10.0.0.1:4000"),
            ("[fd00::2]:80", "[fd00::1]:4000"),
        ] {
            let numbers = Numbers {
                sequence: 7,
                acknowledgement: Some(9),
            };
            let packet = packet(local.parse().unwrap(), remote.parse().unwrap(), numbers).unwrap();
            let parsed = etherparse::PacketHeaders::from_ip_slice(&packet).unwrap();
            let tcp = parsed.transport.unwrap().tcp().unwrap();
            assert_eq!((tcp.source_port, tcp.destination_port), (80, 4000));
            assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (7, 9));
            assert!(tcp.rst && tcp.ack && !tcp.syn && !tcp.fin);
        }
        let (v4, v6) = ("10.0.0.2:80".parse().unwrap(), "[::1]:1".parse().unwrap());
        let numbers = Numbers {
            sequence: 7,
            acknowledgement: None,
        };
        assert!(packet(v4, v6, numbers).is_err());
    }
}
