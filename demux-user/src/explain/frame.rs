//! A frame as a packet between two endpoints would have it.

use std::net::{IpAddr, SocketAddr};

use demux_common::protocol::Protocol;
use etherparse::PacketBuilder;

use crate::{Error, Result};

/// The station that made-up frames come from: locally administered, so that nobody's card has it.
const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

const HOP_LIMIT: u8 = 64;
const WINDOW: u16 = 64_240;

/// Flags of a TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

/// Their names, in the order of their bits.
const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

impl Flags {
    /// SYN alone.
    pub const SYN: Self = Self(1 << 1);

    /// Reads names with commas between them, such as `syn,ack`, or `none`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a name that no flag has.
    pub fn parse(text: &str) -> Result<Self> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self::default());
        }
        text.split(',').try_fold(Self::default(), |flags, name| {
            let bit = NAMES
                .iter()
                .position(|known| known.eq_ignore_ascii_case(name));
            let bit = bit.ok_or_else(|| {
                let reason = format!("a flag is one of {}; or none", NAMES.join(", "));
                Error::invalid("TCP flags", text, reason)
            })?;
            Ok(Self(flags.0 | 1 << bit))
        })
    }

    fn has(self, name: &str) -> bool {
        let bit = NAMES.iter().position(|known| *known == name);
        bit.is_some_and(|bit| self.0 & (1 << bit) != 0)
    }
}

/// The frame of a packet between two endpoints of one IP version, to the station `destination`.
///
/// # Errors
///
/// [`Error::InvalidArgument`] where the endpoints are of different IP versions.
pub fn build(
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
    flags: Flags,
    destination: [u8; 6],
) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2(SOURCE, destination);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), HOP_LIMIT),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), HOP_LIMIT),
        _ => {
            return Err(Error::invalid(
                "endpoints",
                format!("{from} and {to}"),
                "both are IPv4, or both are IPv6",
            ));
        }
    };
    let mut frame = Vec::new();
    let written = match protocol {
        Protocol::Udp => ip
            .udp(from.port(), to.port())
            .write(&mut frame, b"demux explain"),
        Protocol::Tcp => {
            let mut segment = ip.tcp(from.port(), to.port(), 1, WINDOW);
            if flags.has("fin") {
                segment = segment.fin();
            }
            if flags.has("syn") {
                segment = segment.syn();
            }
            if flags.has("rst") {
                segment = segment.rst();
            }
            if flags.has("psh") {
                segment = segment.psh();
            }
            if flags.has("ack") {
                segment = segment.ack(1);
            }
            if flags.has("urg") {
                segment = segment.urg(0);
            }
            if flags.has("ece") {
                segment = segment.ece();
            }
            if flags.has("cwr") {
                segment = segment.cwr();
            }
            segment.write(&mut frame, &[])
        }
    };
    written.map_err(|error| Error::unexpected("build the packet", error.to_string()))?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use demux_common::{parse::parse, tcp::Kind};

    use super::*;

    const STATION: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

    fn built(protocol: Protocol, from: &str, to: &str, flags: &str) -> Vec<u8> {
        let flags = Flags::parse(flags).unwrap();
        build(
            protocol,
            from.parse().unwrap(),
            to.parse().unwrap(),
            flags,
            STATION,
        )
        .unwrap()
    }

    #[test]
    fn a_frame_parses_to_its_endpoints() {
        for protocol in Protocol::ALL {
            for (from, to) in [
                ("10.0.0.9:40000", "10.0.0.2:80"),
                ("[2001:db8::9]:40000", "[2001:db8::2]:80"),
            ] {
                let frame = built(protocol, from, to, "syn");
                let parsed = parse(&frame[..]).unwrap();
                let address = crate::bindings::pattern::to_ip;
                let key = parsed.key;
                assert_eq!(key.protocol, protocol);
                assert_eq!(
                    SocketAddr::new(address(&key.local_address), key.local_port),
                    to.parse().unwrap()
                );
                assert_eq!(
                    SocketAddr::new(address(&key.remote_address), key.remote_port),
                    from.parse().unwrap()
                );
            }
        }
    }

    #[test]
    fn flags_reach_the_segment() {
        let kind = |flags| {
            let frame = built(Protocol::Tcp, "10.0.0.9:40000", "10.0.0.2:80", flags);
            parse(&frame[..]).unwrap().segment.flags.kind()
        };
        assert_eq!(kind("syn"), Some(Kind::Syn));
        assert_eq!(kind("SYN,ACK"), Some(Kind::SynAck));
        assert_eq!(kind("ack,psh"), Some(Kind::Ack));
        assert_eq!(kind("fin,ack"), Some(Kind::Fin));
        assert_eq!(kind("rst"), Some(Kind::Reset));
        assert_eq!(kind("none"), None);
        assert!(Flags::parse("syn,bogus").is_err());
        assert!(Flags::parse("").is_err());
    }

    #[test]
    fn the_versions_of_ip_must_agree() {
        let error = build(
            Protocol::Udp,
            "10.0.0.9:1".parse().unwrap(),
            "[::1]:2".parse().unwrap(),
            Flags::SYN,
            STATION,
        );
        assert_eq!(error.unwrap_err().exit_status(), 2);
    }
}
