//! IPv6: extension headers of each kind, lengths that lie, fragments, addresses, other protocols.

use demux_common::reason::{Reason, Stage};

use super::{dropped_fragment, judged, unjudged};
use crate::table::{
    check::Case,
    frames::{
        AUTHENTICATION, DESTINATION_OPTIONS, ESP, FRAGMENT, Frame, HOP_BY_HOP, MOBILITY,
        NO_NEXT_HEADER, ROUTING, authentication, extension, fragment, raw_ip, routing, segment,
        tcp, udp,
    },
    world::{hostile, passing},
};

pub fn cases() -> Vec<Case> {
    let syn = || tcp("[2001:db8::1]:40000", "[2001:db8::2]:80");
    let query = || udp("[2001:db8::1]:40000", "[2001:db8::2]:80");
    let to = |address: &str| udp("[2001:db8::1]:40000", &format!("[{address}]:80"));
    let from = |address: &str| tcp(&format!("[{address}]:40000"), "[2001:db8::2]:80");
    let options = |more| (DESTINATION_OPTIONS, extension(more, 8));
    let in_order = || {
        vec![
            (HOP_BY_HOP, extension(0, 8)),
            options(0),
            (ROUTING, routing(0, 0, 1)),
            (FRAGMENT, fragment(0, false)),
            (AUTHENTICATION, authentication(3)),
            options(1),
        ]
    };
    let mut cases = vec![
        judged("no extension header", syn()),
        judged(
            "hop-by-hop options",
            syn().extensions(&[(HOP_BY_HOP, extension(0, 8))]),
        ),
        judged(
            "long hop-by-hop options",
            query().extensions(&[(HOP_BY_HOP, extension(3, 8))]),
        ),
        judged("destination options", syn().extensions(&[options(0)])),
        judged(
            "the longest destination options",
            query().extensions(&[options(255)]),
        ),
        judged(
            "a routing header at its end",
            syn().extensions(&[(ROUTING, routing(0, 0, 1))]),
        ),
        judged(
            "a segment routing header at its end",
            query().extensions(&[(ROUTING, routing(4, 0, 2))]),
        ),
        judged(
            "an atomic fragment",
            syn().extensions(&[(FRAGMENT, fragment(0, false))]),
        ),
        judged(
            "an atomic fragment of a datagram",
            query().extensions(&[(FRAGMENT, fragment(0, false))]),
        ),
        judged(
            "an atomic fragment with reserved bits",
            syn().extensions(&[(FRAGMENT, vec![0, 0xff, 0, 6, 0, 0, 0, 7])]),
        ),
        judged(
            "an authentication header",
            syn().extensions(&[(AUTHENTICATION, authentication(3))]),
        ),
        judged(
            "an authentication header of an odd number of words",
            query().extensions(&[(AUTHENTICATION, authentication(2))]),
        ),
        judged(
            "the shortest authentication header",
            query().extensions(&[(AUTHENTICATION, authentication(0))]),
        ),
        judged(
            "a mobility header",
            syn().extensions(&[(MOBILITY, extension(1, 8))]),
        ),
        judged("six extension headers", syn().extensions(&in_order())),
        judged(
            "six extension headers before UDP",
            query().extensions(&in_order()),
        ),
        judged(
            "six destination options",
            syn().extensions(&vec![options(0); 6]),
        ),
        judged(
            "extension headers against the order",
            syn().extensions(&[
                (AUTHENTICATION, authentication(1)),
                options(0),
                (HOP_BY_HOP, extension(0, 8)),
            ]),
        ),
        judged(
            "extension headers in a VLAN",
            syn().extensions(&in_order()).tag(0x8100, 5),
        ),
        judged(
            "a traffic class and a flow label",
            syn().ip(0, &[0x6f, 0xff, 0xff, 0xff]),
        ),
        judged("a hop limit of 0", syn().ip(7, &[0])),
        unjudged(
            "seven extension headers",
            syn().extensions(&vec![options(0); 7]),
            Reason::Ipv6Extension,
        ),
        unjudged(
            "seven extension headers of all kinds",
            query().extensions(&[in_order(), vec![options(0)]].concat()),
            Reason::Ipv6Extension,
        ),
        unjudged(
            "a routing header with a stop to go",
            syn().extensions(&[(ROUTING, routing(0, 1, 1))]),
            Reason::SourceRouted,
        ),
        unjudged(
            "a segment routing header with stops to go",
            query().extensions(&[(HOP_BY_HOP, extension(0, 8)), (ROUTING, routing(4, 2, 2))]),
            Reason::SourceRouted,
        ),
        dropped_fragment(
            "a first fragment over IPv6",
            syn().extensions(&[(FRAGMENT, fragment(0, true))]),
        ),
        dropped_fragment(
            "a first fragment of a datagram over IPv6",
            query().extensions(&[(FRAGMENT, fragment(0, true))]),
        ),
        unjudged(
            "a fragment in the middle over IPv6",
            syn().extensions(&[(FRAGMENT, fragment(80, true))]),
            Reason::Fragment,
        ),
        unjudged(
            "a last fragment over IPv6",
            syn().extensions(&[(FRAGMENT, fragment(80, false))]),
            Reason::Fragment,
        ),
        unjudged(
            "a last fragment at the highest offset over IPv6",
            query().extensions(&[(FRAGMENT, fragment(0xfff8, false))]),
            Reason::Fragment,
        ),
        unjudged(
            "a fragment behind destination options",
            query().extensions(&[options(0), (FRAGMENT, fragment(80, true))]),
            Reason::Fragment,
        ),
        unjudged(
            "ESP over IPv6",
            syn().extensions(&[(ESP, extension(0, 8))]),
            Reason::Ipv6Extension,
        ),
        unjudged(
            "ESP behind hop-by-hop options",
            syn().extensions(&[(HOP_BY_HOP, extension(0, 8)), (ESP, extension(0, 8))]),
            Reason::Ipv6Extension,
        ),
        unjudged(
            "no next header",
            syn().ip(6, &[NO_NEXT_HEADER]),
            Reason::Ipv6Extension,
        ),
        unjudged(
            "no next header behind a mobility header",
            raw_ip("2001:db8::1", "2001:db8::2", NO_NEXT_HEADER, &[])
                .extensions(&[(MOBILITY, extension(0, 8))]),
            Reason::Ipv6Extension,
        ),
        unjudged(
            "version 4 behind the EtherType of 6",
            syn().ip(0, &[0x40]),
            Reason::BadIpv6Header,
        ),
        unjudged("version 15", syn().ip(0, &[0xf0]), Reason::BadIpv6Header),
        unjudged(
            "a payload length beyond the frame",
            syn().ip(4, &[0, 21]),
            Reason::BadIpv6Header,
        ),
        unjudged(
            "the largest payload length in a short frame",
            syn().ip(4, &[0xff, 0xff]),
            Reason::BadIpv6Header,
        ),
        unjudged(
            "a payload length of 0, for TCP",
            syn().ip(4, &[0, 0]),
            Reason::BadTcpHeader,
        ),
        unjudged(
            "a payload length of 0, for UDP",
            query().ip(4, &[0, 0]),
            Reason::BadUdpHeader,
        ),
        unjudged(
            "a payload length of 0 with a jumbo option in a short frame",
            syn()
                .extensions(&[(HOP_BY_HOP, vec![0, 0, 0xc2, 4, 0, 1, 0, 0])])
                .ip(4, &[0, 0]),
            Reason::BadIpv6Header,
        ),
        unjudged(
            "a payload length that leaves TCP no room",
            syn().ip(4, &[0, 19]),
            Reason::BadTcpHeader,
        ),
        unjudged(
            "a payload length that leaves UDP no room",
            query().ip(4, &[0, 7]),
            Reason::BadUdpHeader,
        ),
        unjudged(
            "a payload length within the extension headers",
            syn().extensions(&[options(2)]).ip(4, &[0, 23]),
            Reason::BadIpv6Header,
        ),
        unjudged(
            "an IPv6 header cut in the middle",
            syn().cut(53),
            Reason::Truncated,
        ),
        unjudged(
            "an IPv6 segment cut in its header",
            syn().cut(73),
            Reason::BadIpv6Header,
        ),
        unjudged(
            "an extension header cut in the middle",
            syn().extensions(&[options(0)]).cut(58).ip(4, &[0, 4]),
            Reason::Truncated,
        ),
        unjudged(
            "an extension header whose length reaches beyond the payload",
            syn().extensions(&[options(0)]).at(55, &[9]),
            Reason::BadIpv6Header,
        ),
        unjudged(
            "an extension header beyond the end of the frame",
            syn().extensions(&[options(0), options(0)]).at(55, &[9]),
            Reason::Truncated,
        ),
        unjudged(
            "an IPv4-mapped destination on the wire",
            to("::ffff:10.0.0.2"),
            Reason::BadIpv6Header,
        ),
        unjudged(
            "an IPv4-mapped source on the wire",
            from("::ffff:10.0.0.1"),
            Reason::BadIpv6Header,
        ),
        unjudged(
            "a multicast group over IPv6",
            to("ff02::fb"),
            Reason::Multicast,
        ),
        unjudged(
            "a multicast group over IPv6 in a multicast frame",
            to("ff02::1").station([0x33, 0x33, 0, 0, 0, 1]),
            Reason::Multicast,
        ),
        unjudged(
            "a multicast group over IPv6 for TCP",
            tcp("[2001:db8::1]:40000", "[ff0e::1]:80"),
            Reason::Multicast,
        ),
        not_local(
            "the loopback address of IPv6, which no interface but lo has",
            to("::1"),
        ),
        not_local("the unspecified destination of IPv6", to("::")),
        not_local("an IPv6 address the host does not have", to("2001:db8::99")),
        not_local("an IPv4-compatible destination", to("::10.0.0.2")),
        not_local(
            "a link-local address the host does not have",
            to("fe80::99"),
        ),
        judged(
            "a multicast source over IPv6, where drop is asked for",
            from("ff02::1"),
        ),
        judged("a link-local source", from("fe80::1")),
        judged("an IPv4-compatible source", from("::10.0.0.1")),
    ];
    let echo = vec![128, 0, 0, 0, 0, 0, 0, 0];
    for (name, number, data) in [
        ("ICMPv6 echo", 58, echo.clone()),
        (
            "a neighbour solicitation",
            58,
            [&[135, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat(),
        ),
        ("IPv6 within IPv6", 41, syn().bytes[14..].to_vec()),
        ("SCTP over IPv6", 132, vec![0x9c, 0x40, 0, 80, 0, 0, 0, 0]),
        ("GRE over IPv6", 47, vec![0, 0, 0x86, 0xdd]),
    ] {
        let frame = raw_ip("2001:db8::1", "2001:db8::2", number, &data);
        cases.push(unjudged(name, frame, Reason::OtherProtocol));
    }
    let quoted = [&[1, 4, 0, 0, 0, 0, 0, 0][..], &syn().bytes[14..]].concat();
    cases.push(unjudged(
        "ICMPv6 port unreachable that quotes a segment",
        raw_ip("2001:db8::1", "2001:db8::2", 58, &quoted),
        Reason::OtherProtocol,
    ));
    cases.push(unjudged(
        "ICMPv6 behind hop-by-hop options, as a multicast listener report",
        raw_ip("fe80::1", "ff02::16", 58, &[143, 0, 0, 0, 0, 0, 0, 0])
            .extensions(&[(HOP_BY_HOP, vec![0, 0, 5, 2, 0, 0, 1, 0])]),
        Reason::OtherProtocol,
    ));
    let big = segment(
        "[2001:db8::1]:40000",
        "[2001:db8::2]:80",
        0x10,
        1,
        &vec![0; 65_515],
    );
    cases.push(judged("the largest IPv6 packet", big.clone()));
    cases.push(judged(
        "an IPv6 packet too large for its length field",
        big.clone().padded(100).ip(4, &[0, 0]),
    ));
    cases.push(judged(
        "a jumbogram",
        big.extensions(&[(HOP_BY_HOP, vec![0, 0, 0xc2, 4, 0, 1, 0, 8])])
            .ip(4, &[0, 0]),
    ));
    cases.push(unjudged(
        "extension headers that push the segment out of reach",
        syn().extensions(&[options(255), options(255)]),
        Reason::Truncated,
    ));
    for (name, address) in [
        ("a multicast source over IPv6", "ff02::1"),
        ("an unspecified source over IPv6", "::"),
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
