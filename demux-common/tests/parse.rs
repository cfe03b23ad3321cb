//! The parser on frames that etherparse makes, and on any bytes at all.

use demux_common::{
    address::{Address, Family},
    parse::{Parsed, parse},
    plain::{self, Plain},
    protocol::Protocol,
    reason::Reason,
    reject::checksum,
    tcp::{Flags, Kind, Seen},
    wire::ethernet::Station,
};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use proptest::{collection::vec, prelude::*};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_etherparse_writes_over_ipv4_is_read_back(
        from: [u8; 4],
        to: [u8; 4],
        transport in transports(),
    ) {
        prop_assume!(to[0] & 0xf0 != 0xe0 && to != [255; 4]);
        let frame = transport.frame(ethernet().ipv4(from, to, 64));
        let parsed = parse(&frame[..]).unwrap();
        prop_assert_eq!(parsed.family, Family::Ipv4);
        prop_assert_eq!(parsed.key.remote_address, Address::from_v4(from));
        prop_assert_eq!(parsed.key.local_address, Address::from_v4(to));
        transport.check(&parsed, &frame)?;
    }

    #[test]
    fn what_etherparse_writes_over_ipv6_is_read_back(
        from: [u8; 16],
        to: [u8; 16],
        transport in transports(),
    ) {
        prop_assume!(to[0] != 0xff);
        let frame = transport.frame(ethernet().ipv6(from, to, 64));
        let parsed = parse(&frame[..]).unwrap();
        prop_assert_eq!(parsed.family, Family::Ipv6);
        prop_assert_eq!(parsed.key.remote_address, Address::from_v6(from));
        prop_assert_eq!(parsed.key.local_address, Address::from_v6(to));
        transport.check(&parsed, &frame)?;
    }

    #[test]
    fn a_frame_cut_short_is_refused(transport in transports(), cut in 1_usize..100) {
        for frame in [
            transport.frame(ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)),
            transport.frame(ethernet().ipv6([1; 16], [2; 16], 64)),
        ] {
            // The length in the IP header does not fit what is left.
            prop_assert!(parse(&frame[..frame.len().saturating_sub(cut)]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in vec(any::<u8>(), 0..256)) {
        if let Ok(parsed) = parse(&bytes[..]) {
            prop_assert_eq!(parsed.frame_len as usize, bytes.len());
        }
    }

    #[test]
    fn any_bytes_behind_a_plausible_start_are_parsed_or_refused(
        ether_type in prop::sample::select(vec![0x0800_u16, 0x86dd, 0x8100, 0x88a8]),
        version in prop::sample::select(vec![0x45_u8, 0x46, 0x4f, 0x60]),
        bytes in vec(any::<u8>(), 0..256),
    ) {
        let frame = [&[2; 12][..], &ether_type.to_be_bytes(), &[version], &bytes].concat();
        match parse(&frame[..]) {
            Ok(parsed) => prop_assert_eq!(parsed.frame_len as usize, frame.len()),
            // The parser gives none of the reasons that only the tables can know.
            Err(reason) => prop_assert!((reason as u64) < Reason::OtherHost as u64),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_the_short_cut_takes_the_parser_reads_alike(
        from: [u8; 16],
        to: [u8; 16],
        is_v6: bool,
        acknowledgement: u32,
        transport in transports(),
        control in prop_oneof![3 => Just(0x10_u8), 1 => any::<u8>()],
        padding in prop_oneof![3 => Just(0), 1 => 0_usize..30],
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let ip = if is_v6 {
            ethernet().ipv6(from, to, 64)
        } else {
            let four = |address: [u8; 16]| [address[0], address[1], address[2], address[3]];
            ethernet().ipv4(four(from), four(to), 64)
        };
        let mut frame = transport.frame(ip);
        let header = 14 + 4 * transport.tags.len() + if is_v6 { 40 } else { 20 };
        if transport.is_tcp {
            frame[header + 8..][..4].copy_from_slice(&acknowledgement.to_be_bytes());
            frame[header + 13] = control;
        }
        let is_plain = transport.tags.is_empty()
            && (!transport.is_tcp || control & 0x17 == 0x10)
            && damage.is_empty();
        frame.resize(frame.len() + padding, 0xaa);
        for (place, byte) in &damage {
            // Most of what matters stands at the start.
            let place = place.index(frame.len().min(80));
            frame[place] = *byte;
        }
        let taken = check_short_cut(&frame)?;
        prop_assert_eq!(taken, taken || is_plain);
    }

    #[test]
    fn what_the_short_cut_takes_of_any_bytes_the_parser_reads_alike(
        ether_type in prop::sample::select(vec![0x0800_u16, 0x86dd]),
        start in prop::sample::select(vec![[0x45_u8, 0], [0x60, 0], [0x6f, 0xff]]),
        length in 0_u16..200,
        protocol in prop::sample::select(vec![6_u8, 17]),
        bytes in vec(any::<u8>(), 60..200),
    ) {
        let mut frame = [&[2; 12][..], &ether_type.to_be_bytes(), &start, &bytes].concat();
        let [length_at, protocol_at] = if ether_type == 0x0800 { [16, 23] } else { [18, 20] };
        frame[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        frame[protocol_at] = protocol;
        if ether_type == 0x0800 {
            frame[20..22].fill(0);
        }
        check_short_cut(&frame)?;
    }
}

/// Whether the short cut takes a frame; if so, the parser must have read the same in it.
fn check_short_cut(frame: &[u8]) -> Result<bool, TestCaseError> {
    let Some((station, ether_type)) = plain::ethernet(frame) else {
        return Ok(false);
    };
    // The addresses as they lie in memory, the remote's first, and what is carried.
    let taken: Option<(Vec<u8>, Plain)> = if ether_type == 0x0800_u16.to_be() {
        plain::ipv4(frame).map(|(addresses, plain)| (addresses.to_ne_bytes().to_vec(), plain))
    } else if ether_type == 0x86dd_u16.to_be() {
        plain::ipv6(frame).map(|(addresses, plain)| {
            let words = [addresses.remote, addresses.local].concat();
            let bytes = words.into_iter().flat_map(u64::to_ne_bytes).collect();
            (bytes, plain)
        })
    } else {
        None
    };
    let Some((addresses, plain)) = taken else {
        return Ok(false);
    };
    let mut parsed = Parsed::EMPTY;
    match demux_common::parse::parse_into(frame, &mut parsed) {
        Ok(()) => {}
        // No such addresses are in the connection table.
        Err(Reason::Multicast | Reason::Broadcast) => {}
        Err(Reason::BadIpv6Header)
            if parsed.key.local_address.is_mapped() || parsed.key.remote_address.is_mapped() =>
        {
            return Ok(true);
        }
        Err(reason) => {
            return Err(TestCaseError::fail(format!("refused: {}", reason.name())));
        }
    }
    let key = &parsed.key;
    prop_assert_eq!(key.protocol, plain.protocol());
    let expected = match parsed.family {
        Family::Ipv4 => [key.remote_address.v4(), key.local_address.v4()].concat(),
        Family::Ipv6 => [key.remote_address.bytes, key.local_address.bytes].concat(),
    };
    prop_assert_eq!(addresses, expected);
    prop_assert_eq!(station, parsed.station);
    prop_assert_eq!(
        station,
        Station::new([frame[0], frame[1], frame[2], frame[3], frame[4], frame[5]])
    );
    let seen = (key.protocol == Protocol::Tcp).then_some(Seen {
        kind: Kind::Ack,
        sequence: parsed.segment.sequence,
        acknowledgement: parsed.segment.acknowledgement,
        has_ack: true,
        length: parsed.segment.length,
    });
    if seen.is_some() {
        prop_assert_eq!(parsed.segment.flags.kind(), Some(Kind::Ack));
        prop_assert!(parsed.segment.flags.has(Flags::ACK));
    }
    let expected = Plain {
        ports: u32::from(key.local_port) | u32::from(key.remote_port) << 16,
        seen,
        bytes: parsed.frame_len,
    };
    prop_assert_eq!(plain, expected);
    check_checksum(frame, &parsed)?;
    Ok(true)
}

/// Whether the short cut sees, in a frame that it takes, if the checksum is still to come.
fn check_checksum(frame: &[u8], parsed: &Parsed) -> Result<(), TestCaseError> {
    let (transport, length_at) = match parsed.family {
        Family::Ipv4 => (34, 16),
        Family::Ipv6 => (54, 18),
    };
    let number = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let of_ip = number(length_at) - if parsed.family == Family::Ipv4 { 20 } else { 0 };
    let (length, field) = match parsed.key.protocol {
        Protocol::Tcp => (of_ip, transport + 16),
        Protocol::Udp => (number(transport + 4), transport + 6),
    };
    let protocol = parsed.key.protocol;
    let pseudo = checksum::fold(checksum::pseudo(
        checksum::addresses(parsed),
        protocol.ip_number(),
        u32::from(length),
    ));
    for shown in [
        pseudo,
        !pseudo,
        0,
        u16::from_ne_bytes([frame[field], frame[field + 1]]),
    ] {
        let mut frame = frame.to_vec();
        frame[field..field + 2].copy_from_slice(&shown.to_ne_bytes());
        let is_partial = match parsed.family {
            Family::Ipv4 => plain::is_partial_v4(&frame[..], protocol),
            Family::Ipv6 => plain::is_partial_v6(&frame[..], protocol),
        };
        prop_assert_eq!(is_partial, shown == pseudo);
    }
    Ok(())
}

#[derive(Clone, Debug)]
struct Transport {
    is_tcp: bool,
    source: u16,
    destination: u16,
    sequence: u32,
    data: Vec<u8>,
    tags: Vec<u16>,
}

fn transports() -> impl Strategy<Value = Transport> {
    (
        any::<(bool, u16, u16, u32)>(),
        vec(any::<u8>(), 0..64),
        vec(any::<u16>(), 0..3),
    )
        .prop_map(
            |((is_tcp, source, destination, sequence), data, tags)| Transport {
                is_tcp,
                source,
                destination,
                sequence,
                data,
                tags,
            },
        )
}

fn ethernet() -> PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2([2; 6], [4; 6])
}

impl Transport {
    fn frame(&self, ip: PacketBuilderStep<IpHeaders>) -> Vec<u8> {
        let mut frame = Vec::new();
        if self.is_tcp {
            ip.tcp(self.source, self.destination, self.sequence, 1000)
                .syn()
                .write(&mut frame, &self.data)
        } else {
            ip.udp(self.source, self.destination)
                .write(&mut frame, &self.data)
        }
        .unwrap();
        for tag in &self.tags {
            frame.splice(12..12, [&[0x81, 0][..], &tag.to_be_bytes()].concat());
        }
        frame
    }

    fn check(&self, parsed: &Parsed, frame: &[u8]) -> Result<(), TestCaseError> {
        let protocol = if self.is_tcp {
            Protocol::Tcp
        } else {
            Protocol::Udp
        };
        prop_assert_eq!(parsed.key.protocol, protocol);
        prop_assert_eq!(parsed.key.remote_port, self.source);
        prop_assert_eq!(parsed.key.local_port, self.destination);
        prop_assert_eq!(parsed.frame_len as usize, frame.len());
        // Every frame that is cut from this one has all of its headers.
        prop_assert_eq!(parsed.headers_len as usize, frame.len() - self.data.len());
        if self.is_tcp {
            prop_assert_eq!(parsed.segment.sequence, self.sequence);
            prop_assert_eq!(parsed.segment.length as usize, self.data.len() + 1);
        }
        Ok(())
    }
}
