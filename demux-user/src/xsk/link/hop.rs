//! Where a packet goes next, and the Ethernet header that it needs for that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use demux_common::wire::ethernet;

use super::device::Tag;

/// EtherTypes of the two versions of IP.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Bytes of a MAC address.
const MAC: usize = 6;

/// The next hop of a packet: what the routing tables and the devices say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The index of the interface of the set that frames leave by.
    pub interface: u32,
    /// The index of the device that the route names: the interface, or a VLAN above it.
    pub device: u32,
    /// The VLAN tags of its frames, the outermost first.
    pub tags: Vec<Tag>,
    /// The MAC address of the device, which frames come from.
    pub source: [u8; MAC],
    /// Who gets the frames.
    pub station: Station,
    /// The largest IP packet, in bytes.
    pub mtu: usize,
}

/// The station on the link that a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Station {
    /// Whoever has this address: the destination itself, or a gateway. The neighbour table knows its MAC
    /// address.
    Neighbour(IpAddr),
    /// A MAC address that follows from the destination: a group, everybody, or the loopback interface.
    Mac([u8; MAC]),
}

impl Station {
    /// Everybody on the link.
    pub(super) const BROADCAST: Self = Self::Mac([0xff; MAC]);

    /// The stations that listen to a multicast address (RFC 1112, section 6.4; RFC 2464, section 7).
    pub(super) fn multicast(group: IpAddr) -> Self {
        Self::Mac(match group {
            IpAddr::V4(group) => {
                let [_, b, c, d] = group.octets();
                [0x01, 0x00, 0x5e, b & 0x7f, c, d]
            }
            IpAddr::V6(group) => {
                let [.., a, b, c, d] = group.octets();
                [0x33, 0x33, a, b, c, d]
            }
        })
    }
}

impl Hop {
    /// Replaces what is in `frame` by the frame that takes `packet` to a station.
    pub(super) fn write(&self, frame: &mut Vec<u8>, station: [u8; MAC], packet: &[u8]) {
        frame.clear();
        frame.extend(station);
        frame.extend(self.source);
        for tag in &self.tags {
            frame.extend(tag.ether_type.to_be_bytes());
            frame.extend(tag.id.to_be_bytes());
        }
        frame.extend(ether_type(packet).unwrap_or_default().to_be_bytes());
        frame.extend(packet);
    }

    #[cfg(test)]
    pub(super) fn example() -> Self {
        Self {
            interface: 1,
            device: 1,
            tags: Vec::new(),
            source: [2, 0, 0, 0, 0, 1],
            station: Station::Neighbour([10, 0, 0, 1].into()),
            mtu: 1500,
        }
    }
}

/// The addresses of an IP packet, source first; `None` where it is none, or not as long as its header says.
pub(super) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let length = usize::from(u16::from_be_bytes(*packet.get(2..)?.first_chunk()?));
            let octets: &[u8; 8] = packet.get(12..)?.first_chunk()?;
            let [a, b, c, d, e, f, g, h] = *octets;
            let ends = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            (length == packet.len() && length >= 20).then_some((ends.0.into(), ends.1.into()))
        }
        6 => {
            let length = usize::from(u16::from_be_bytes(*packet.get(4..)?.first_chunk()?));
            let source: [u8; 16] = *packet.get(8..)?.first_chunk()?;
            let destination: [u8; 16] = *packet.get(24..)?.first_chunk()?;
            (length + 40 == packet.len()).then_some((
                Ipv6Addr::from(source).into(),
                Ipv6Addr::from(destination).into(),
            ))
        }
        _ => None,
    }
}

fn ether_type(packet: &[u8]) -> Option<u16> {
    match packet.first()? >> 4 {
        4 => Some(IPV4),
        6 => Some(IPV6),
        _ => None,
    }
}

/// Replaces what is in `frame` by the frame that takes `packet` back to where `received` came from: with its
/// MAC addresses swapped, and with the same VLAN tags. No table is asked, so this is what a server does that
/// only ever answers.
///
/// Returns `false`, and leaves nothing in `frame`, where there is no such frame: `received` has no whole
/// Ethernet header or more than two tags, came from or was for a group of stations, or `packet` is no IP
/// packet.
#[must_use]
pub fn reply_like(received: &[u8], packet: &[u8], frame: &mut Vec<u8>) -> bool {
    frame.clear();
    let (Ok(header), Some(ether_type)) = (ethernet::read(received), ether_type(packet)) else {
        return false;
    };
    let (stations, rest) = received.split_at(2 * MAC);
    let (destination, source) = stations.split_at(MAC);
    if destination[0] & 1 != 0 || source[0] & 1 != 0 {
        return false;
    }
    // Tags stand between the addresses and the EtherType of the packet.
    let tags = &rest[..header.payload - 2 * MAC - 2];
    frame.extend(source);
    frame.extend(destination);
    frame.extend(tags);
    frame.extend(ether_type.to_be_bytes());
    frame.extend(packet);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [u8; MAC] = [2, 0, 0, 0, 0, 1];
    const TWO: [u8; MAC] = [2, 0, 0, 0, 0, 2];

    #[test]
    fn tags_stand_in_a_frame_from_the_outermost_to_the_innermost() {
        let mut hop = Hop::example();
        for (ether_type, id) in [(0x88a8, 100), (0x8100, 200)] {
            hop.tags.push(Tag { ether_type, id });
        }
        let mut frame = vec![9; 3];
        hop.write(&mut frame, TWO, &[0x45, 0]);
        let expected = [
            &TWO[..],
            &ONE,
            &[0x88, 0xa8, 0, 100, 0x81, 0x00, 0, 200, 0x08, 0x00],
            &[0x45, 0],
        ];
        assert_eq!(frame, expected.concat());
    }

    #[test]
    fn a_reply_goes_back_with_the_tags_of_what_it_answers() {
        for tags in [
            &[][..],
            &[0x81, 0, 0x60, 5],
            &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5],
        ] {
            let received = [&ONE[..], &TWO, tags, &[0x08, 0x00], &[0x45, 1, 2]].concat();
            let mut reply = Vec::new();
            assert!(reply_like(&received, &[0x60, 3], &mut reply));
            assert_eq!(
                reply,
                [&TWO[..], &ONE, tags, &[0x86, 0xdd], &[0x60, 3]].concat()
            );
        }
    }

    #[test]
    fn there_is_no_reply_to_groups_nor_to_damage() {
        let packet = [0x45, 0];
        let group = [&[1, 0, 0, 0, 0, 1][..], &TWO, &[8, 0]].concat();
        let short = [&ONE[..], &TWO, &[8]].concat();
        let deep = [&ONE[..], &TWO, &[0x81, 0, 0, 1].repeat(3), &[8, 0]].concat();
        for received in [group, short, deep] {
            assert!(!reply_like(&received, &packet, &mut vec![1]));
        }
        let sound = [&ONE[..], &TWO, &[8, 0]].concat();
        assert!(!reply_like(&sound, &[0x15], &mut Vec::new()));
        assert!(!reply_like(&sound, &[], &mut Vec::new()));
    }

    #[test]
    fn multicast_addresses_map_to_groups_of_stations() {
        let mac = |group: &str| Station::multicast(group.parse().unwrap());
        assert_eq!(mac("224.129.2.3"), Station::Mac([1, 0, 0x5e, 1, 2, 3]));
        assert_eq!(
            mac("ff02::1:ff00:7"),
            Station::Mac([0x33, 0x33, 0xff, 0, 0, 7])
        );
    }

    #[test]
    fn only_whole_packets_have_addresses() {
        let mut v4 = [0; 21];
        v4[0] = 0x45;
        v4[3] = 21;
        v4[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let ends = addresses(&v4).unwrap();
        assert_eq!(ends, ([10, 0, 0, 1].into(), [10, 0, 0, 2].into()));
        assert_eq!(addresses(&v4[..20]), None);
        let mut v6 = [0; 41];
        v6[0] = 0x60;
        v6[5] = 1;
        v6[39] = 1;
        let (_, destination) = addresses(&v6).unwrap();
        assert_eq!(destination, "::1".parse::<IpAddr>().unwrap());
        assert_eq!(addresses(&v6[..40]), None);
        assert_eq!(addresses(&[]), None);
    }
}
