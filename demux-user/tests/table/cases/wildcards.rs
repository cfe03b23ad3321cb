//! The wildcard of IPv4, that of IPv6 and that of both, and the edges of patterns.

use demux_common::{
    protocol::Protocol,
    reason::{Reason, Stage},
};

use super::REMOTE;
use crate::table::{
    check::Case,
    frames::packet,
    world::{Bound, dropping},
};

pub fn cases() -> Vec<Case> {
    Protocol::ALL.into_iter().flat_map(of).collect()
}

fn of(protocol: Protocol) -> Vec<Case> {
    let bound = |local: &str| Bound::new(protocol, local);
    let v4 = |port: u16| packet(protocol, REMOTE[0], &format!("10.0.0.2:{port}"));
    let v6 = |port: u16| packet(protocol, REMOTE[1], &format!("[2001:db8::2]:{port}"));
    let decided = |name: &str, bindings: [Bound; 2], winner: u16, frame| {
        Case::drop(
            format!("{}: {name}", protocol.name()),
            dropping().with(bindings),
            frame,
            Stage::Binding,
            Reason::Bound,
        )
        .of_binding(winner)
    };
    let alone = |name: &str, bound: Bound, frame| {
        decided(name, [bound.drop(), Bound::new(protocol, "*:1")], 1, frame)
    };
    vec![
        decided(
            "the IPv4 wildcard before the dual-stack one",
            [bound("*:80"), bound("0.0.0.0:80").drop()],
            2,
            v4(80),
        ),
        decided(
            "the dual-stack wildcard takes IPv6 where there is one of IPv4",
            [bound("*:80").drop(), bound("0.0.0.0:80")],
            1,
            v6(80),
        ),
        decided(
            "the IPv4 wildcard and every port before the dual-stack one and the port",
            [bound("0.0.0.0:*").drop(), bound("*:80")],
            1,
            v4(80),
        ),
        decided(
            "the IPv4 wildcard before the dual-stack one on the device",
            [bound("*:80").here(), bound("0.0.0.0:80").drop()],
            2,
            v4(80),
        ),
        decided(
            "the dual-stack wildcard on the device before the same on none",
            [bound("*:80"), bound("*:80").here().drop()],
            2,
            v4(80),
        ),
        decided(
            "the IPv6-only wildcard and a range take IPv6",
            [bound("[::]:80-90").v6_only().drop(), bound("*:*")],
            1,
            v6(85),
        ),
        decided(
            "the IPv6-only wildcard leaves IPv4 to the dual-stack one",
            [bound("[::]:80").v6_only(), bound("*:*").drop()],
            2,
            v4(80),
        ),
        decided(
            "the IPv4 wildcard and the IPv6-only one share a port, seen by IPv4",
            [bound("[::]:80").v6_only(), bound("0.0.0.0:80").drop()],
            2,
            v4(80),
        ),
        decided(
            "the IPv4 wildcard and the IPv6-only one share a port, seen by IPv6",
            [bound("[::]:80").v6_only().drop(), bound("0.0.0.0:80")],
            1,
            v6(80),
        ),
        alone("a dual-stack wildcard matches IPv4", bound("*:80"), v4(80)),
        alone(
            "a dual-stack wildcard matches IPv6",
            bound("[::]:80"),
            v6(80),
        ),
        alone(
            "an IPv4-mapped pattern matches IPv4",
            bound("[::ffff:10.0.0.2]:80"),
            v4(80),
        ),
        alone(
            "an IPv4-mapped prefix matches IPv4",
            bound("[::ffff:10.0.0.0/104]:80"),
            v4(80),
        ),
        alone("a prefix of one bit matches", bound("0.0.0.0/1:80"), v4(80)),
        alone(
            "a prefix of 31 bits matches",
            bound("10.0.0.2/31:80"),
            v4(80),
        ),
        alone(
            "a prefix of one bit matches IPv6",
            bound("[::/1]:80"),
            v6(80),
        ),
        alone(
            "a prefix of 127 bits matches",
            bound("[2001:db8::2/127]:80"),
            v6(80),
        ),
        alone("the first port of a range", bound("*:80-90"), v4(80)),
        alone("the last port of a range", bound("*:80-90"), v6(90)),
        alone("a wildcard on the device", bound("*:80").here(), v6(80)),
        Case::drop(
            format!(
                "{}: a prefix of IPv6 that holds the mapped ones does not match IPv4",
                protocol.name()
            ),
            dropping().with([bound("[::/64]:80").drop()]),
            v4(80),
            Stage::Default,
            Reason::NoSocket,
        ),
    ]
}
