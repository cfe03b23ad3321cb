//! The parser on frames that etherparse makes, and on any bytes at all.

use demux_common::{
    address::{Address, Family},
    parse::{Parsed, parse},
    protocol::Protocol,
    reason::Reason,
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
        if self.is_tcp {
            prop_assert_eq!(parsed.segment.sequence, self.sequence);
            prop_assert_eq!(parsed.segment.length as usize, self.data.len() + 1);
        }
        Ok(())
    }
}
