//! Rows, what has become of their bindings, and worlds that say otherwise.

use demux_common::{
    connection::State,
    reason::{Reason, Stage},
    udp,
};

use super::{
    FAMILIES, REMOTE, local,
    rows::{NEXT, Table, confirmed, followed, says},
};
use crate::table::{
    check::{Case, RowAfter},
    frames::{self, ACK, segment},
    world::{Bound, Entry, Probation, Row, Said, World, dropping, hostile, passing},
};

pub fn cases() -> Vec<Case> {
    (0..FAMILIES.len())
        .flat_map(|family| {
            let table = Table { family };
            [table.bindings(), table.others()].concat()
        })
        .collect()
}

impl Table {
    /// Rows and what has become of their bindings.
    fn bindings(&self) -> Vec<Case> {
        let established = State::Established;
        let row = || self.row(established);
        let ack = || self.segment(ACK, NEXT, &[]);
        let dropped = |text: &str, world: World| {
            Case::drop(
                self.named(text),
                world,
                ack(),
                Stage::Binding,
                Reason::Bound,
            )
            .of_binding(1)
            .row(RowAfter::Gone)
        };
        let strange = ["10.0.0.99:80", "[2001:db8::99]:80"][self.family];
        let at_listener = local(self.family, 22);
        vec![
            self.hit(
                "a row of a binding counts for it",
                dropping()
                    .with([Bound::tcp(":80")])
                    .with_row(row().of_binding(1)),
                ack(),
                followed(established, NEXT),
            )
            .of_binding(1),
            self.hit(
                "a row of the present epoch does not ask for its binding",
                hostile().with_row(row()),
                ack(),
                followed(established, NEXT),
            ),
            dropped(
                "a row whose binding has become drop",
                hostile().with_row(row().outdated()),
            ),
            // Nobody changes a target but by a new epoch.
            self.hit(
                "a row of the present epoch is believed, whatever its binding has become",
                hostile().with_row(row().of_binding(1)),
                ack(),
                followed(established, NEXT),
            )
            .of_binding(1),
            self.hit(
                "a row whose binding has become another",
                dropping()
                    .with([Bound::tcp(":81"), Bound::tcp(":80")])
                    .with_row(row().of_binding(1).outdated()),
                ack(),
                followed(established, NEXT),
            )
            .of_binding(2),
            self.hit(
                "a row outlives its binding under a default of pass",
                passing().with_row(row().of_binding(1).outdated()),
                ack(),
                followed(established, NEXT),
            ),
            self.hit(
                "a row outlives its binding where a socket takes the packet",
                dropping().with_row(
                    Row::tcp(REMOTE[self.family], &at_listener, established, NEXT)
                        .of_binding(1)
                        .outdated(),
                ),
                segment(REMOTE[self.family], &at_listener, ACK, NEXT, &[]),
                followed(established, NEXT),
            ),
            self.hit(
                "a row outlives its binding where sockets are not asked",
                dropping()
                    .without_kernel_sockets()
                    .with_row(row().of_binding(1).outdated()),
                ack(),
                followed(established, NEXT),
            ),
            self.hit(
                "a row outlives its binding where probation is over",
                dropping()
                    .on_probation(Probation::Over)
                    .with_row(row().of_binding(1).outdated()),
                ack(),
                followed(established, NEXT),
            ),
            Case::drop(
                self.named("a row does not outlive its binding where nobody takes the packet"),
                dropping().with_row(row().of_binding(1).outdated()),
                ack(),
                Stage::Default,
                Reason::NoSocket,
            )
            .row(RowAfter::Gone),
            Case::drop(
                self.named(
                    "a row from before a default of drop ends where nobody takes the packet",
                ),
                dropping().with_row(row().outdated()),
                ack(),
                Stage::Default,
                Reason::NoSocket,
            )
            .row(RowAfter::Gone),
            Case::pass(
                self.named("a row from before a default of drop ends where the address is strange"),
                dropping()
                    .with_row(Row::tcp(REMOTE[self.family], strange, established, NEXT).outdated()),
                segment(REMOTE[self.family], strange, ACK, NEXT, &[]),
                Stage::Default,
                Reason::NotLocal,
            )
            .row(RowAfter::Gone),
            self.hit(
                "a row whose binding is on another device now",
                passing()
                    .with([Bound::tcp(":80").drop().elsewhere()])
                    .with_row(row().of_binding(1).outdated()),
                ack(),
                followed(established, NEXT),
            ),
            Case::pass(
                self.named("a row of a strange address whose binding has become drop"),
                hostile()
                    .with_row(Row::tcp(REMOTE[self.family], strange, established, NEXT).outdated()),
                segment(REMOTE[self.family], strange, ACK, NEXT, &[]),
                Stage::Binding,
                Reason::NotLocal,
            )
            .row(RowAfter::Gone),
            Case::drop(
                self.named("a datagram's row whose binding has become drop"),
                hostile().with_row(self.udp_row(State::Assured).outdated()),
                frames::udp(REMOTE[self.family], &self.own()),
                Stage::Binding,
                Reason::Bound,
            )
            .of_binding(2)
            .row(RowAfter::Gone),
        ]
    }

    /// UDP, other four-tuples, and rows in worlds that say otherwise.
    fn others(&self) -> Vec<Case> {
        let established = State::Established;
        let row = || self.row(established);
        let ack = || self.segment(ACK, NEXT, &[]);
        let question = || frames::udp(REMOTE[self.family], &self.own());
        let other_remote = REMOTE[self.family].replace("40000", "40009");
        let missed = |text: &str, world, frame| {
            Case::drop(
                self.named(text),
                world,
                frame,
                Stage::Default,
                Reason::NoSocket,
            )
        };
        let mut cases = vec![
            missed(
                "a segment from another port than the row's",
                dropping().with_row(row()),
                segment(&other_remote, &self.own(), ACK, NEXT, &[]),
            ),
            missed(
                "a segment to another port than the row's",
                dropping().with_row(row()),
                segment(REMOTE[self.family], &local(self.family, 81), ACK, NEXT, &[]),
            ),
            missed(
                "a datagram with the four-tuple of a TCP row",
                dropping().with_row(row()),
                question(),
            ),
            missed(
                "a segment with the four-tuple of a UDP row",
                dropping().with_row(self.udp_row(State::Assured)),
                ack(),
            ),
            missed(
                "a segment the other way round",
                dropping().with_row(row()),
                segment(
                    &self.own().replace(":80", ":40000"),
                    &self.own(),
                    ACK,
                    NEXT,
                    &[],
                ),
            ),
            self.hit(
                "a row where probation is over",
                dropping().on_probation(Probation::Over).with_row(row()),
                ack(),
                followed(established, NEXT),
            ),
            self.hit(
                "a row without kernel sockets",
                dropping().without_kernel_sockets().with_row(row()),
                ack(),
                followed(established, NEXT),
            ),
            self.hit(
                "a row under a default of pass",
                passing().with_row(row()),
                ack(),
                followed(established, NEXT),
            ),
            self.hit(
                "a row where only bound endpoints are tracked",
                passing().tracking_bound().with_row(row()),
                ack(),
                followed(established, NEXT),
            ),
            Case::pass(
                self.named("a row on an interface without an entry"),
                dropping().entered(Entry::Missing).with_row(row()),
                ack(),
                Stage::Default,
                Reason::Unconfigured,
            ),
        ];
        let sent = udp::REMOTE_SENT;
        let both = sent | udp::ANSWERED;
        let outgoing = || self.udp_row(State::Unreplied).out();
        for (text, row, after) in [
            (
                "a datagram sent again",
                self.udp_row(State::Unreplied),
                says(Said::udp(State::Unreplied, sent)),
            ),
            (
                "a datagram after an answer",
                self.udp_row(State::Replied),
                confirmed(Said::udp(State::Assured, both)),
            ),
            (
                "a datagram of a conversation",
                self.udp_row(State::Assured).confirmed(),
                confirmed(Said::udp(State::Assured, both)),
            ),
            (
                "an answer to a datagram of this host",
                outgoing().saying(Said::udp(State::Unreplied, 0)),
                confirmed(Said::udp(State::Replied, sent)),
            ),
        ] {
            cases.push(self.hit(text, dropping().with_row(row), question(), after));
        }
        cases
    }
}
