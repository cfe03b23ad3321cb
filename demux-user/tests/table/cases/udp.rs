//! UDP: lengths that lie, checksums, ports, and rows.

use demux_common::{
    connection::{Direction, State},
    protocol::Protocol,
    reason::{Reason, Stage},
    udp::REMOTE_SENT,
};

use super::{FAMILIES, REMOTE, judged, local, unjudged};
use crate::table::{
    check::{Case, Made, RowAfter},
    frames::{datagram, udp},
    world::{Bound, Said, dropping, key, passing},
};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (family, name) in FAMILIES.into_iter().enumerate() {
        let named = |text: &str| format!("UDP over {name}: {text}");
        let query = || udp(REMOTE[family], &local(family, 80));
        let length = |length: u16| query().transport(4, &length.to_be_bytes());
        cases.extend([
            unjudged(&named("a length of 7"), length(7), Reason::BadUdpHeader),
            unjudged(&named("a length of 0"), length(0), Reason::BadUdpHeader),
            unjudged(
                &named("a length beyond the packet"),
                length(14),
                Reason::BadUdpHeader,
            ),
            unjudged(
                &named("the largest length"),
                length(65_535),
                Reason::BadUdpHeader,
            ),
            unjudged(
                &named("a length into the padding"),
                length(14).padded(20),
                Reason::BadUdpHeader,
            ),
            judged(&named("a length below that of the packet"), length(9)),
            judged(&named("a length of the header alone"), length(8)),
            judged(
                &named("an empty datagram"),
                datagram(REMOTE[family], &local(family, 80), &[]),
            ),
            judged(&named("a checksum of 0"), query().transport(6, &[0, 0])),
            judged(
                &named("a wrong checksum"),
                query().transport(6, &[0x12, 0x34]),
            ),
            judged(&named("port 0"), udp(REMOTE[family], &local(family, 0))),
            judged(
                &named("port 65535"),
                udp(REMOTE[family], &local(family, 65_535)),
            ),
        ]);
        for port in [0, 65_535] {
            cases.push(
                Case::pass(
                    named(&format!("a binding of port {port}")),
                    dropping().with([Bound::udp(&format!("*:{port}")).untracked()]),
                    udp(REMOTE[family], &local(family, port)),
                    Stage::Binding,
                    Reason::Bound,
                )
                .of_binding(1),
            );
        }
        let server = REMOTE[family].replace("40000", "53");
        // Whoever is seen to send first has opened it: a port is easily forged.
        for (text, remote, port) in [
            ("a question makes a row", REMOTE[family], 80),
            (
                "an answer whose question was missed makes an incoming row",
                server.as_str(),
                50_000,
            ),
            ("equal ports make an incoming row", REMOTE[family], 40_000),
        ] {
            cases.push(
                Case::pass(
                    named(text),
                    passing(),
                    udp(remote, &local(family, port)),
                    Stage::Default,
                    Reason::Unbound,
                )
                .row(RowAfter::Made(Made::new(
                    key(Protocol::Udp, remote, &local(family, port)),
                    Said::udp(State::Unreplied, REMOTE_SENT),
                    Direction::In,
                ))),
            );
        }
        let own = local(family, 80);
        cases.push(Case::pass(
            named("a datagram from its own destination makes no row"),
            passing(),
            udp(&own, &own),
            Stage::Default,
            Reason::Unbound,
        ));
    }
    cases
}
