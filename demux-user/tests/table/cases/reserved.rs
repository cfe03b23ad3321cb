//! Rows that only hold a local port, for a connection to come.
//!
//! What arrives is judged as if they were not there. This host's own first packet opens the connection
//! in the row, which then waits for an answer like any other.

use demux_common::{
    connection::State,
    protocol::Protocol,
    reason::{Reason, Stage},
    tcp::{Half, Marks},
};

use super::{FAMILIES, REMOTE, local, rows::Table};
use crate::table::{
    check::{Case, RowAfter},
    frames::{ACK, FIN, Frame, PSH, RST, SEQUENCE, SYN, datagram, segment},
    world::{Row, Said, World, dropping, hostile, passing, rejecting},
};

pub fn cases() -> Vec<Case> {
    (0..FAMILIES.len())
        .flat_map(|family| {
            let table = Table { family };
            [table.arriving_at_reserved(), table.leaving_from_reserved()].concat()
        })
        .collect()
}

/// As the allocator leaves it: nobody has sent anything.
const HELD: Said = Said {
    state: State::Reserved,
    marks: 0,
    remote: Half::UNKNOWN,
    local: Half::UNKNOWN,
};

/// The row holds the port as before, and has counted the packet.
const COUNTED: RowAfter = RowAfter::Followed {
    said: HELD,
    confirmed: true,
    alive: false,
};

/// The row is that of a connection which waits for an answer.
fn opened(said: Said) -> RowAfter {
    RowAfter::Followed {
        said,
        confirmed: false,
        alive: true,
    }
}

impl Table {
    fn held(&self, protocol: Protocol) -> Row {
        let (remote, own) = (REMOTE[self.family], self.own());
        Row::new(protocol, remote, &own, HELD).out().confirmed()
    }

    fn reserved(&self, text: &str) -> String {
        self.named(&format!("a reserved port: {text}"))
    }

    fn arriving_at_reserved(&self) -> Vec<Case> {
        use Protocol::{Tcp, Udp};
        let (remote, own) = (REMOTE[self.family], self.own());
        let mut cases = Vec::new();
        let segment = |flags, data: &[u8]| self.segment(flags, SEQUENCE, data);
        let datagram = || datagram(remote, &own, b"demux");
        for (text, protocol, frame, is_tracked) in [
            ("a SYN", Tcp, segment(SYN, &[]), true),
            ("a SYN with ACK", Tcp, segment(SYN | ACK, &[]), true),
            ("data", Tcp, segment(ACK | PSH, b"data"), true),
            ("a FIN", Tcp, segment(FIN | ACK, &[]), true),
            ("an RST", Tcp, segment(RST, &[]), false),
            ("no flags", Tcp, segment(0, &[]), false),
            ("a datagram", Udp, datagram(), true),
        ] {
            let row = || self.held(protocol);
            let drops = |text: &str, world: World| {
                Case::drop(
                    self.reserved(text),
                    world,
                    frame.clone(),
                    Stage::Default,
                    Reason::NoSocket,
                )
            };
            let counted = if is_tracked { COUNTED } else { RowAfter::Same };
            cases.extend([
                drops(&format!("{text} is dropped"), dropping().with_row(row())),
                drops(
                    &format!("{text} is dropped, both seen"),
                    dropping().seeing_both().with_row(row()),
                ),
                drops(
                    &format!("{text} is dropped after a change"),
                    dropping().with_row(row().outdated()),
                ),
                Case::drop(
                    self.reserved(&format!("{text} meets a binding")),
                    hostile().with_row(row()),
                    frame.clone(),
                    Stage::Binding,
                    Reason::Bound,
                )
                .of_binding(if protocol == Tcp { 1 } else { 2 }),
                Case::pass(
                    self.reserved(&format!("{text} passes by default")),
                    passing().with_row(row()),
                    frame.clone(),
                    Stage::Default,
                    Reason::Unbound,
                )
                .row(counted),
                Case::pass(
                    self.reserved(&format!("{text} passes by default, both seen")),
                    passing().seeing_both().with_row(row()),
                    frame.clone(),
                    Stage::Default,
                    Reason::Unbound,
                )
                .row(counted),
            ]);
        }
        cases.push(Case::reject(
            self.reserved("a SYN is rejected"),
            rejecting().with_row(self.held(Tcp)),
            segment(SYN, &[]),
            Stage::Default,
            Reason::NoSocket,
        ));
        cases.push(
            Case::drop(
                self.reserved("a SYN once it has expired"),
                dropping().with_row(self.held(Tcp).aged(60)),
                segment(SYN, &[]),
                Stage::Default,
                Reason::NoSocket,
            )
            .row(RowAfter::Expired),
        );
        cases
    }

    fn leaving_from_reserved(&self) -> Vec<Case> {
        use Protocol::{Tcp, Udp};
        let (remote, own) = (REMOTE[self.family], self.own());
        let out = |flags, data: &[u8]| segment(&own, remote, flags, SEQUENCE, data);
        let sent = |next| RowAfter::Followed {
            said: Said {
                state: State::SynSent,
                marks: Marks::LOCAL_SEEN,
                remote: Half {
                    next: 0,
                    ack: SEQUENCE,
                },
                local: Half { next, ack: 0 },
            },
            confirmed: false,
            alive: true,
        };
        let unreplied = || opened(Said::udp(State::Unreplied, 0));
        let mut cases = Vec::new();
        for (text, protocol, frame, row) in [
            ("a SYN", Tcp, out(SYN, &[]), sent(SEQUENCE + 1)),
            (
                "a SYN with data",
                Tcp,
                out(SYN, b"early"),
                sent(SEQUENCE + 6),
            ),
            ("an RST", Tcp, out(RST, &[]), COUNTED),
            ("no flags", Tcp, out(0, &[]), COUNTED),
            (
                "a datagram",
                Udp,
                datagram(&own, remote, b"demux"),
                unreplied(),
            ),
        ] {
            let leaves = |text: &str, world: World, frame: &Frame| {
                Case::leave(self.reserved(text), world.seeing_both(), frame.clone())
            };
            let held = || self.held(protocol);
            cases.extend([
                leaves(
                    &format!("leaving: {text}"),
                    passing().with_row(held()),
                    &frame,
                )
                .row(row),
                leaves(
                    &format!("leaving: {text} under a default of drop"),
                    dropping().with_row(held()),
                    &frame,
                )
                .row(row),
            ]);
        }
        // To another remote it is not the row's connection.
        let other = REMOTE[self.family].replace("40000", "40001");
        let strange = local(self.family, 81);
        for (text, from, to) in [
            ("to another remote", own.as_str(), other.as_str()),
            ("from another port", strange.as_str(), remote),
        ] {
            cases.push(Case::leave(
                self.reserved(&format!("leaving: an RST {text}")),
                passing().seeing_both().with_row(self.held(Tcp)),
                segment(from, to, RST, SEQUENCE, &[]),
            ));
        }
        cases
    }
}
