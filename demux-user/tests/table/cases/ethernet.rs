//! Ethernet: tags, runts, other protocols, stations.

use demux_common::reason::Reason;

use super::{judged, unjudged};
use crate::table::{
    check::Case,
    frames::{HOST_MAC, OTHER_MAC, ethernet, tcp, udp},
};

const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;
const BROADCAST: [u8; 6] = [0xff; 6];

pub fn cases() -> Vec<Case> {
    let v4 = || tcp("10.0.0.1:40000", "10.0.0.2:80");
    let v6 = || tcp("[2001:db8::1]:40000", "[2001:db8::2]:80");
    let datagram = || udp("10.0.0.1:40000", "10.0.0.2:80");
    vec![
        judged("no tag", v4()),
        judged("an 802.1Q tag", v4().tag(DOT1Q, 5)),
        judged("an 802.1Q tag over IPv6", v6().tag(DOT1Q, 5)),
        judged("an 802.1Q tag over UDP", datagram().tag(DOT1Q, 5)),
        judged(
            "an 802.1Q tag that says priority only",
            v4().tag(DOT1Q, 0xe000),
        ),
        judged("an 802.1ad tag", v4().tag(DOT1AD, 5)),
        judged(
            "802.1ad outside, 802.1Q inside",
            v4().tag(DOT1Q, 5).tag(DOT1AD, 6),
        ),
        judged(
            "802.1Q outside, 802.1ad inside",
            v4().tag(DOT1AD, 5).tag(DOT1Q, 6),
        ),
        judged("two 802.1Q tags", v4().tag(DOT1Q, 5).tag(DOT1Q, 6)),
        judged(
            "two 802.1ad tags over IPv6",
            v6().tag(DOT1AD, 5).tag(DOT1AD, 6),
        ),
        unjudged(
            "three 802.1Q tags",
            v4().tag(DOT1Q, 5).tag(DOT1Q, 6).tag(DOT1Q, 7),
            Reason::VlanDepth,
        ),
        unjudged(
            "an 802.1ad tag within two others",
            v4().tag(DOT1AD, 5).tag(DOT1Q, 6).tag(DOT1AD, 7),
            Reason::VlanDepth,
        ),
        unjudged(
            "0x9100, which is no tag of a standard",
            v4().tag(0x9100, 5),
            Reason::NotIp,
        ),
        unjudged(
            "0x9100 within an 802.1Q tag",
            v4().tag(0x9100, 5).tag(DOT1Q, 6),
            Reason::NotIp,
        ),
        unjudged("a header without payload", v4().cut(14), Reason::Truncated),
        unjudged("one byte of payload", v4().cut(15), Reason::Truncated),
        unjudged(
            "a tag without payload",
            v4().tag(DOT1Q, 5).cut(14),
            Reason::Truncated,
        ),
        unjudged(
            "a tag cut in the middle",
            v4().tag(DOT1Q, 5).cut(17),
            Reason::Truncated,
        ),
        unjudged(
            "a tag with nothing behind it",
            v4().tag(DOT1Q, 5).cut(18),
            Reason::Truncated,
        ),
        unjudged(
            "a second tag cut in the middle",
            v4().tag(DOT1Q, 5).tag(DOT1AD, 6).cut(21),
            Reason::Truncated,
        ),
        unjudged("an ARP request", arp(BROADCAST), Reason::NotIp),
        unjudged("an ARP reply", arp(HOST_MAC), Reason::NotIp),
        unjudged(
            "an ARP request in a VLAN",
            arp(BROADCAST).tag(DOT1Q, 5),
            Reason::NotIp,
        ),
        unjudged(
            "LLDP",
            ethernet(
                [0x01, 0x80, 0xc2, 0, 0, 0x0e],
                0x88cc,
                &[2, 7, 4, 2, 0, 0, 0, 0, 1],
            ),
            Reason::NotIp,
        ),
        unjudged(
            "a length instead of an EtherType, as spanning tree has it",
            ethernet([0x01, 0x80, 0xc2, 0, 0, 0], 38, &[0x42, 0x42, 3, 0, 0]).padded(33),
            Reason::NotIp,
        ),
        unjudged(
            "a length that is as small as can be",
            ethernet(HOST_MAC, 3, &[0xaa, 0xaa, 3]),
            Reason::NotIp,
        ),
        unjudged("MPLS", ethernet(HOST_MAC, 0x8847, &[0; 50]), Reason::NotIp),
        unjudged("PPPoE", ethernet(HOST_MAC, 0x8864, &[0; 50]), Reason::NotIp),
        unjudged(
            "a frame to another station",
            v4().station(OTHER_MAC),
            Reason::OtherHost,
        ),
        unjudged(
            "an IPv6 frame to another station",
            v6().station(OTHER_MAC),
            Reason::OtherHost,
        ),
        unjudged(
            "a frame to no station",
            v4().station([0; 6]),
            Reason::OtherHost,
        ),
        unjudged(
            "TCP in a broadcast frame",
            v4().station(BROADCAST),
            Reason::Broadcast,
        ),
        unjudged(
            "UDP in a broadcast frame",
            datagram().station(BROADCAST),
            Reason::Broadcast,
        ),
        unjudged(
            "IPv6 in a broadcast frame",
            v6().station(BROADCAST),
            Reason::Broadcast,
        ),
        unjudged(
            "a unicast packet in a multicast frame",
            v4().station([0x01, 0, 0x5e, 0, 0, 1]),
            Reason::Multicast,
        ),
        unjudged(
            "a unicast IPv6 packet in a multicast frame",
            v6().station([0x33, 0x33, 0, 0, 0, 1]),
            Reason::Multicast,
        ),
        judged("padding behind a short packet", v4().padded(6)),
        judged("padding behind a short IPv6 packet", v6().padded(46)),
        judged("padding behind a datagram", datagram().padded(13)),
    ]
}

fn arp(destination: [u8; 6]) -> crate::table::frames::Frame {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1];
    body.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
    body.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    ethernet(destination, 0x0806, &body)
}
