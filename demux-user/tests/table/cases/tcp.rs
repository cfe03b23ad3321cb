//! TCP: lengths that lie, sets of flags, ports, and which segments make a row.

use demux_common::{
    connection::{Direction, State},
    protocol::Protocol,
    reason::{Reason, Stage},
    tcp::Marks,
};

use super::{FAMILIES, REMOTE, judged, local, unjudged};
use crate::table::{
    check::{Case, Made, RowAfter},
    frames::{ACK, CWR, ECE, FIN, Frame, PSH, RST, SEQUENCE, SYN, URG, segment, tcp},
    world::{Bound, Said, dropping, key, passing},
};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (family, name) in FAMILIES.into_iter().enumerate() {
        let named = |text: &str| format!("TCP over {name}: {text}");
        let syn = || tcp(REMOTE[family], &local(family, 80));
        let with =
            |flags, data: &[u8]| segment(REMOTE[family], &local(family, 80), flags, SEQUENCE, data);
        cases.extend([
            unjudged(
                &named("a data offset of 4 words"),
                syn().transport(12, &[0x40]),
                Reason::BadTcpHeader,
            ),
            unjudged(
                &named("a data offset of 0"),
                syn().transport(12, &[0]),
                Reason::BadTcpHeader,
            ),
            unjudged(
                &named("a data offset beyond the segment"),
                syn().transport(12, &[0x60]),
                Reason::BadTcpHeader,
            ),
            unjudged(
                &named("a data offset into the padding"),
                syn().padded(40).transport(12, &[0x60]),
                Reason::BadTcpHeader,
            ),
            judged(
                &named("options up to the end"),
                with(SYN, &[1; 40]).transport(12, &[0xf0]),
            ),
            judged(&named("a wrong checksum"), syn().transport(16, &[0, 0])),
            judged(&named("reserved bits"), syn().transport(12, &[0x5e])),
            judged(&named("port 0"), tcp(REMOTE[family], &local(family, 0))),
            judged(
                &named("port 65535"),
                tcp(REMOTE[family], &local(family, 65_535)),
            ),
            judged(&named("no flags, where drop is asked for"), with(0, &[])),
        ]);
        for port in [0, 65_535] {
            cases.push(
                Case::pass(
                    named(&format!("a binding of port {port}")),
                    dropping().with([Bound::tcp(&format!("*:{port}")).untracked()]),
                    tcp(REMOTE[family], &local(family, port)),
                    Stage::Binding,
                    Reason::Bound,
                )
                .of_binding(1),
            );
        }
        for (text, frame, row) in opening(&with) {
            let row = row.map_or(RowAfter::Same, |(said, direction)| {
                let key = key(Protocol::Tcp, REMOTE[family], &local(family, 80));
                RowAfter::Made(Made::new(key, said, direction))
            });
            cases.push(
                Case::pass(
                    named(text),
                    passing(),
                    frame,
                    Stage::Default,
                    Reason::Unbound,
                )
                .row(row),
            );
        }
        let remote = REMOTE[family].replace("40000", "443");
        cases.push(
            Case::pass(
                named("an acknowledgement from a lower port is taken for a server's"),
                passing(),
                segment(&remote, &local(family, 50_000), ACK, SEQUENCE, b"page"),
                Stage::Default,
                Reason::Unbound,
            )
            .row(RowAfter::Made(Made::new(
                key(Protocol::Tcp, &remote, &local(family, 50_000)),
                Said::remote(State::Established, SEQUENCE + 4),
                Direction::Out,
            ))),
        );
        cases.extend(land(family, &named));
    }
    cases
}

type Opened = Option<(Said, Direction)>;

/// Sets of flags, and the row that each makes.
fn opening(with: &impl Fn(u8, &[u8]) -> Frame) -> Vec<(&'static str, Frame, Opened)> {
    use Direction::{In, Out};
    let next = SEQUENCE + 1;
    let syn = |next| Some((Said::syn(next), In));
    let ack = |next| Some((Said::remote(State::Established, next), In));
    let fin = |next| {
        let said = Said::remote(State::CloseWait, next).marked(Marks::REMOTE_FIN);
        Some((said, In))
    };
    vec![
        ("SYN", with(SYN, &[]), syn(next)),
        ("SYN with URG", with(SYN | URG, &[]), syn(next)),
        (
            "SYN with ECE and CWR",
            with(SYN | ECE | CWR, &[]),
            syn(next),
        ),
        ("SYN with PSH", with(SYN | PSH, &[]), syn(next)),
        ("SYN with data", with(SYN, b"early"), syn(next + 5)),
        (
            "SYN in a padded frame, which is no data",
            with(SYN, &[]).padded(6),
            syn(next),
        ),
        (
            "SYN with ACK",
            with(SYN | ACK, &[]),
            Some((Said::remote(State::Established, next), Out)),
        ),
        ("ACK", with(ACK, &[]), ack(SEQUENCE)),
        ("ACK with data", with(ACK | PSH, b"data"), ack(SEQUENCE + 4)),
        ("ACK with URG", with(ACK | URG, b"d"), ack(SEQUENCE + 1)),
        ("FIN with ACK", with(FIN | ACK, &[]), fin(next)),
        (
            "FIN with ACK and data",
            with(FIN | ACK | PSH, b"end"),
            fin(next + 3),
        ),
        (
            "FIN with ACK and URG",
            with(FIN | ACK | URG, &[]),
            fin(next),
        ),
        ("RST", with(RST, &[]), None),
        ("RST with ACK", with(RST | ACK, &[]), None),
        ("no flags", with(0, &[]), None),
        ("FIN alone", with(FIN, &[]), None),
        ("PSH alone", with(PSH, b"data"), None),
        ("URG alone", with(URG, &[]), None),
        ("FIN, PSH and URG", with(FIN | PSH | URG, &[]), None),
        ("SYN with FIN", with(SYN | FIN, &[]), None),
        ("SYN with FIN and ACK", with(SYN | FIN | ACK, &[]), None),
        ("SYN with RST", with(SYN | RST, &[]), None),
        ("RST with FIN", with(RST | FIN | ACK, &[]), None),
        ("SYN with ACK and URG", with(SYN | ACK | URG, &[]), None),
        ("RST with URG", with(RST | URG, &[]), None),
        ("all flags", with(0xff, &[]), None),
    ]
}

/// Packets that claim to come from where they go.
fn land(family: usize, named: &impl Fn(&str) -> String) -> Vec<Case> {
    let own = local(family, 80);
    let other_port = local(family, 4000);
    vec![
        Case::pass(
            named("a packet from its own destination makes no row"),
            passing(),
            tcp(&own, &own),
            Stage::Default,
            Reason::Unbound,
        ),
        Case::pass(
            named("a packet from its own destination, bound, makes no row"),
            dropping().with([Bound::tcp(":80")]),
            tcp(&own, &own),
            Stage::Binding,
            Reason::Bound,
        )
        .of_binding(1),
        Case::pass(
            named("a packet from another port of its destination makes a row"),
            passing(),
            tcp(&other_port, &own),
            Stage::Default,
            Reason::Unbound,
        )
        .row(RowAfter::Made(Made::new(
            key(Protocol::Tcp, &other_port, &own),
            Said::syn(SEQUENCE + 1),
            Direction::In,
        ))),
    ]
}
