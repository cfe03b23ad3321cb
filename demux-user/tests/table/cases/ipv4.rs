//! IPv4: options, lengths that lie, fragments, addresses, other protocols.

use demux_common::reason::{Reason, Stage};

use super::{dropped_fragment, judged, unjudged};
use crate::table::{
    check::Case,
    frames::{Frame, datagram, raw_ip, segment, tcp, udp},
    world::{hostile, passing},
};

pub fn cases() -> Vec<Case> {
    let syn = || tcp("10.0.0.1:40000", "10.0.0.2:80");
    let query = || udp("10.0.0.1:40000", "10.0.0.2:80");
    let to = |address: &str| udp("10.0.0.1:40000", &format!("{address}:80"));
    let from = |address: &str| tcp(&format!("{address}:40000"), "10.0.0.2:80");
    let mut cases = vec![
        judged("options of 4 bytes", syn().options(&[1; 4])),
        judged("options of 40 bytes", syn().options(&[1; 40])),
        judged("options before UDP", query().options(&[0x94, 4, 0, 0])),
        judged("options in a VLAN", query().options(&[1; 8]).tag(0x8100, 5)),
        judged("a wrong header checksum", syn().ip(10, &[0, 0])),
        judged("a TTL of 0", syn().ip(8, &[0])),
        judged("congestion experienced", syn().ip(1, &[3])),
        judged("do not fragment", syn().ip(6, &[0x40, 0])),
        judged("may be fragmented", syn().ip(6, &[0, 0])),
        judged("the reserved flag", syn().ip(6, &[0x80, 0])),
        unjudged(
            "a header length of 4 words",
            syn().ip(0, &[0x44]),
            Reason::BadIpv4Header,
        ),
        unjudged(
            "a header length of 0",
            syn().ip(0, &[0x40]),
            Reason::BadIpv4Header,
        ),
        unjudged(
            "version 6 behind the EtherType of 4",
            syn().ip(0, &[0x65]),
            Reason::BadIpv4Header,
        ),
        unjudged("version 0", syn().ip(0, &[0x05]), Reason::BadIpv4Header),
        unjudged(
            "a total length beyond the frame",
            syn().ip(2, &[0, 41]),
            Reason::BadIpv4Header,
        ),
        unjudged(
            "the largest total length in a short frame",
            syn().ip(2, &[0xff, 0xff]),
            Reason::BadIpv4Header,
        ),
        unjudged(
            "a total length of 0",
            syn().ip(2, &[0, 0]),
            Reason::BadIpv4Header,
        ),
        unjudged(
            "a total length below the header's own",
            syn().ip(2, &[0, 19]),
            Reason::BadIpv4Header,
        ),
        unjudged(
            "a total length within the options",
            syn().options(&[1; 8]).ip(2, &[0, 24]),
            Reason::BadIpv4Header,
        ),
        unjudged(
            "a header length beyond the frame",
            syn().ip(0, &[0x4f]).ip(2, &[0, 40]),
            Reason::BadIpv4Header,
        ),
        unjudged(
            "a total length that leaves TCP no room",
            syn().ip(2, &[0, 39]),
            Reason::BadTcpHeader,
        ),
        unjudged(
            "a total length that leaves UDP no room",
            query().ip(2, &[0, 27]),
            Reason::BadUdpHeader,
        ),
        unjudged(
            "nothing behind the header, for TCP",
            syn().ip(2, &[0, 20]),
            Reason::BadTcpHeader,
        ),
        unjudged(
            "nothing behind the header, for UDP",
            query().ip(2, &[0, 20]),
            Reason::BadUdpHeader,
        ),
        unjudged(
            "a header cut in the middle",
            syn().cut(33),
            Reason::Truncated,
        ),
        unjudged(
            "a segment cut in its header",
            syn().cut(53),
            Reason::BadIpv4Header,
        ),
        dropped_fragment("a first fragment", syn().ip(6, &[0x20, 0]).ip(4, &[0, 7])),
        dropped_fragment(
            "a first fragment of a datagram",
            query().ip(6, &[0x20, 0]).ip(4, &[0, 7]),
        ),
        unjudged(
            "a fragment in the middle",
            syn().ip(6, &[0x20, 10]),
            Reason::Fragment,
        ),
        unjudged("a last fragment", syn().ip(6, &[0, 10]), Reason::Fragment),
        unjudged(
            "a last fragment of a datagram",
            query().ip(6, &[0, 10]),
            Reason::Fragment,
        ),
        unjudged(
            "a last fragment at the highest offset",
            syn().ip(6, &[0x1f, 0xff]),
            Reason::Fragment,
        ),
        dropped_fragment(
            "a fragment that forbids fragments",
            syn().ip(6, &[0x60, 0]).ip(4, &[0, 7]),
        ),
        unjudged(
            "a fragment with options",
            query().options(&[1; 4]).ip(6, &[0, 10]),
            Reason::Fragment,
        ),
        unjudged(
            "a last fragment shorter than a TCP header",
            raw_ip("10.0.0.1", "10.0.0.2", 6, &[0; 8]).ip(6, &[0, 10]),
            Reason::Fragment,
        ),
        unjudged("a multicast group", to("224.0.0.251"), Reason::Multicast),
        unjudged(
            "the highest multicast group",
            to("239.255.255.255"),
            Reason::Multicast,
        ),
        unjudged(
            "a multicast group for TCP",
            tcp("10.0.0.1:40000", "224.0.0.1:80"),
            Reason::Multicast,
        ),
        unjudged(
            "a multicast group in a multicast frame",
            to("224.0.0.251").station([0x01, 0, 0x5e, 0, 0, 0xfb]),
            Reason::Multicast,
        ),
        unjudged(
            "the limited broadcast",
            to("255.255.255.255"),
            Reason::Broadcast,
        ),
        unjudged(
            "the limited broadcast in a broadcast frame",
            to("255.255.255.255").station([0xff; 6]),
            Reason::Broadcast,
        ),
        not_local("the broadcast address of the network", to("10.0.0.255")),
        not_local("an address of class E", to("240.0.0.1")),
        not_local("the unspecified destination", to("0.0.0.0")),
        not_local("an address the host does not have", to("10.0.0.99")),
        judged("a loopback address", tcp("10.0.0.1:40000", "127.0.0.1:80")),
        judged("the highest loopback address", to("127.255.255.254")),
        judged("a source of class E", from("240.0.0.1")),
        judged(
            "a multicast source, where drop is asked for",
            from("224.0.0.1"),
        ),
        judged(
            "an unspecified source, where drop is asked for",
            from("0.0.0.0"),
        ),
        judged("a loopback source", from("127.0.0.1")),
    ];
    let protocols = [
        ("ICMP echo", 1, vec![8, 0, 0xf7, 0xff, 0, 0, 0, 0]),
        ("IGMP", 2, vec![0x11, 0, 0, 0, 224, 0, 0, 1]),
        ("IP within IP", 4, syn().bytes[14..].to_vec()),
        ("GRE", 47, vec![0, 0, 8, 0]),
        ("ESP", 50, vec![0; 16]),
        (
            "AH, which IPv4 does not look behind",
            51,
            vec![6, 4, 0, 0, 0, 0, 0, 1],
        ),
        ("OSPF", 89, vec![2, 1, 0, 44]),
        ("SCTP", 132, vec![0x9c, 0x40, 0, 80, 0, 0, 0, 0]),
        ("UDP-Lite", 136, vec![0x9c, 0x40, 0, 80, 0, 8, 0, 0]),
        ("a protocol with no payload", 255, vec![]),
        ("protocol 0", 0, vec![0; 20]),
    ];
    for (name, number, data) in protocols {
        let frame = raw_ip("10.0.0.1", "10.0.0.2", number, &data);
        cases.push(unjudged(name, frame, Reason::OtherProtocol));
    }
    let quoted = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &syn().bytes[14..]].concat();
    cases.push(unjudged(
        "ICMP port unreachable that quotes a segment",
        raw_ip("10.0.0.1", "10.0.0.2", 1, &quoted),
        Reason::OtherProtocol,
    ));
    let big = segment("10.0.0.1:40000", "10.0.0.2:80", 0x10, 1, &vec![0; 65_495]);
    cases.push(judged("the largest packet", big.clone()));
    cases.push(judged(
        "a packet too large for its length field",
        big.padded(100).ip(2, &[0, 0]),
    ));
    cases.push(judged(
        "a datagram in several buffers",
        datagram("10.0.0.1:40000", "10.0.0.2:80", &[7; 8000]),
    ));
    // A source that cannot be answered gets no row.
    for (name, address) in [
        ("a multicast source", "224.0.0.1"),
        ("an unspecified source", "0.0.0.0"),
        ("a source of network 0", "0.1.2.3"),
        ("the limited broadcast as source", "255.255.255.255"),
    ] {
        cases.push(Case::pass(
            format!("{name} makes no row"),
            passing(),
            from(address),
            Stage::Default,
            Reason::Unbound,
        ));
    }
    cases
}

/// A packet that is not for this host, which nothing may drop.
fn not_local(name: &str, frame: Frame) -> Case {
    Case::pass(name, hostile(), frame, Stage::Binding, Reason::NotLocal)
}
