//! Packets of connections that have a row.
//!
//! The default is drop and the port is nobody's, so that a packet passes for its row alone.

use demux_common::{
    connection::{State, Timeouts},
    protocol::Protocol,
    reason::{Reason, Stage},
};

use super::{FAMILIES, REMOTE, local};
use crate::table::{
    check::{Case, RowAfter},
    frames::{ACK, FIN, Frame, PSH, RST, SYN, segment, tcp, udp},
    world::{Bound, Entry, Probation, Row, World, dropping, hostile, key, passing},
};

/// What the remote sends next, in every row.
const NEXT: u32 = 1000;

pub fn cases() -> Vec<Case> {
    (0..FAMILIES.len())
        .flat_map(|family| {
            let table = Table { family };
            [
                table.segments(),
                table.resets(),
                table.reopening(),
                table.bindings(),
                table.others(),
                table.expiry(),
            ]
            .concat()
        })
        .collect()
}

struct Table {
    family: usize,
}

fn followed(state: State, remote_next: u32) -> RowAfter {
    RowAfter::Followed {
        state,
        remote_next,
        confirmed: false,
        alive: true,
    }
}

/// Counted, and nothing else.
fn ignored(state: State) -> RowAfter {
    RowAfter::Followed {
        state,
        remote_next: NEXT,
        confirmed: false,
        alive: false,
    }
}

impl Table {
    fn named(&self, text: &str) -> String {
        format!("rows of {}: {text}", FAMILIES[self.family])
    }

    fn own(&self) -> String {
        local(self.family, 80)
    }

    fn row(&self, state: State) -> Row {
        Row::tcp(REMOTE[self.family], &self.own(), state, NEXT)
    }

    fn udp_row(&self, state: State) -> Row {
        Row::udp(REMOTE[self.family], &self.own(), state)
    }

    fn segment(&self, flags: u8, sequence: u32, data: &[u8]) -> Frame {
        segment(REMOTE[self.family], &self.own(), flags, sequence, data)
    }

    fn hit(&self, text: &str, world: World, frame: Frame, row: RowAfter) -> Case {
        Case::pass(
            self.named(text),
            world,
            frame,
            Stage::Connection,
            Reason::Connection,
        )
        .row(row)
    }

    fn tcp(&self, text: &str, state: State, frame: Frame, row: RowAfter) -> Case {
        self.hit(text, dropping().with_row(self.row(state)), frame, row)
    }

    fn segments(&self) -> Vec<Case> {
        use State::{CloseWait, Established, SynReceived, TimeWait};
        let confirmed = RowAfter::Followed {
            state: Established,
            remote_next: NEXT,
            confirmed: true,
            alive: true,
        };
        vec![
            self.tcp(
                "an ACK",
                Established,
                self.segment(ACK, NEXT, &[]),
                followed(Established, NEXT),
            ),
            self.tcp(
                "data",
                Established,
                self.segment(ACK | PSH, NEXT, b"data"),
                followed(Established, NEXT + 4),
            ),
            self.tcp(
                "data sent again",
                Established,
                self.segment(ACK | PSH, NEXT - 4, b"data"),
                followed(Established, NEXT),
            ),
            self.tcp(
                "data beyond a gap",
                Established,
                self.segment(ACK | PSH, NEXT + 1000, b"data"),
                followed(Established, NEXT + 1004),
            ),
            self.hit(
                "data across the end of the sequence numbers",
                dropping().with_row(Row {
                    remote_next: u32::MAX - 1,
                    ..self.row(Established)
                }),
                self.segment(ACK, u32::MAX - 1, b"data"),
                followed(Established, 2),
            ),
            self.tcp(
                "the ACK that ends a handshake",
                SynReceived,
                self.segment(ACK, NEXT, &[]),
                confirmed,
            ),
            self.hit(
                "a row that is confirmed stays so",
                dropping().with_row(self.row(Established).confirmed()),
                self.segment(ACK, NEXT, &[]),
                confirmed,
            ),
            self.tcp(
                "a FIN",
                Established,
                self.segment(FIN | ACK, NEXT, &[]),
                followed(CloseWait, NEXT + 1),
            ),
            self.tcp(
                "a FIN sent again",
                CloseWait,
                self.segment(FIN | ACK, NEXT - 1, &[]),
                followed(CloseWait, NEXT),
            ),
            self.tcp(
                "an ACK in CLOSE-WAIT",
                CloseWait,
                self.segment(ACK, NEXT, &[]),
                followed(CloseWait, NEXT),
            ),
            self.tcp(
                "an ACK in TIME-WAIT",
                TimeWait,
                self.segment(ACK, NEXT, &[]),
                followed(TimeWait, NEXT),
            ),
            self.tcp(
                "no flags",
                Established,
                self.segment(0, NEXT, &[]),
                ignored(Established),
            ),
            self.tcp(
                "SYN with FIN",
                Established,
                self.segment(SYN | FIN, NEXT, &[]),
                ignored(Established),
            ),
            self.tcp(
                "a FIN alone",
                Established,
                self.segment(FIN, NEXT, &[]),
                ignored(Established),
            ),
            self.tcp(
                "a tag and padding count as bytes",
                Established,
                self.segment(ACK, NEXT, &[]).tag(0x8100, 5).padded(9),
                followed(Established, NEXT),
            ),
        ]
    }

    fn resets(&self) -> Vec<Case> {
        let reset = |text: &str, state, sequence, row| {
            self.tcp(text, state, self.segment(RST, sequence, &[]), row)
        };
        vec![
            reset(
                "a RST of just what is expected",
                State::Established,
                NEXT,
                RowAfter::Gone,
            ),
            reset(
                "a RST at the end of the window",
                State::Established,
                NEXT + 65_535,
                RowAfter::Gone,
            ),
            reset(
                "a RST beyond the window",
                State::Established,
                NEXT + 65_536,
                ignored(State::Established),
            ),
            reset(
                "a RST before the window",
                State::Established,
                NEXT - 1,
                ignored(State::Established),
            ),
            reset(
                "a RST in a handshake",
                State::SynReceived,
                NEXT,
                RowAfter::Gone,
            ),
            reset("a RST in TIME-WAIT", State::TimeWait, NEXT, RowAfter::Gone),
            self.tcp(
                "a RST with ACK",
                State::Established,
                self.segment(RST | ACK, NEXT, &[]),
                RowAfter::Gone,
            ),
            self.hit(
                "a RST across the end of the sequence numbers",
                dropping().with_row(Row {
                    remote_next: u32::MAX,
                    ..self.row(State::Established)
                }),
                self.segment(RST, 5, &[]),
                RowAfter::Gone,
            ),
        ]
    }

    fn reopening(&self) -> Vec<Case> {
        use State::{CloseWait, Established, LastAck, SynReceived, TimeWait};
        let syn = |text: &str, state, sequence, row| {
            self.tcp(text, state, self.segment(SYN, sequence, &[]), row)
        };
        let reopened = RowAfter::Reopened {
            remote_next: NEXT + 501,
        };
        vec![
            syn(
                "a SYN sent again",
                SynReceived,
                NEXT - 1,
                followed(SynReceived, NEXT),
            ),
            syn(
                "another SYN in a handshake",
                SynReceived,
                NEXT + 500,
                reopened,
            ),
            syn(
                "a SYN from before",
                SynReceived,
                NEXT - 500,
                ignored(SynReceived),
            ),
            syn(
                "a SYN on a connection",
                Established,
                NEXT + 500,
                ignored(Established),
            ),
            syn("a SYN in TIME-WAIT", TimeWait, NEXT + 500, reopened),
            syn("a SYN in CLOSE-WAIT", CloseWait, NEXT + 500, reopened),
            syn("a SYN in LAST-ACK", LastAck, NEXT + 500, reopened),
            syn(
                "an old SYN in TIME-WAIT",
                TimeWait,
                NEXT - 500,
                ignored(TimeWait),
            ),
            self.hit(
                "a confirmed row that is opened anew is not confirmed",
                dropping().with_row(self.row(TimeWait).confirmed()),
                self.segment(SYN, NEXT + 500, &[]),
                reopened,
            ),
        ]
    }

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
            dropped(
                "a row of a binding whose target is drop",
                hostile().with_row(row().of_binding(1)),
            ),
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
                udp(REMOTE[self.family], &self.own()),
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
        let question = || udp(REMOTE[self.family], &self.own());
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
        for state in [State::Unreplied, State::Replied, State::Assured] {
            cases.push(self.hit(
                &format!("a datagram to a row that is {}", state.name()),
                dropping().with_row(self.udp_row(state)),
                question(),
                followed(state, 0),
            ));
        }
        cases
    }

    fn expiry(&self) -> Vec<Case> {
        let timeouts = Timeouts::default();
        let mut cases = Vec::new();
        for &state in State::ALL {
            let is_udp = matches!(state, State::Unreplied | State::Replied | State::Assured);
            let (row, frame, alive) = if is_udp {
                let frame = udp(REMOTE[self.family], &self.own());
                (self.udp_row(state), frame, followed(state, 0))
            } else {
                let after = if state == State::SynReceived {
                    RowAfter::Followed {
                        state: State::Established,
                        remote_next: NEXT,
                        confirmed: true,
                        alive: true,
                    }
                } else {
                    followed(state, NEXT)
                };
                (self.row(state), self.segment(ACK, NEXT, &[]), after)
            };
            let timeout = u64::from(timeouts.of(state));
            cases.push(self.hit(
                &format!("a row soon to expire in {}", state.name()),
                dropping().with_row(row.clone().aged(timeout - 10)),
                frame.clone(),
                alive,
            ));
            cases.push(Case::drop(
                self.named(&format!("a row that has expired in {}", state.name())),
                dropping().with_row(row.aged(timeout)),
                frame,
                Stage::Default,
                Reason::NoSocket,
            ));
        }
        let made = |port| RowAfter::Made {
            key: key(
                Protocol::Tcp,
                REMOTE[self.family],
                &local(self.family, port),
            ),
            state: State::SynReceived,
            direction: demux_common::connection::Direction::In,
            remote_next: NEXT + 1,
            confirmed: false,
        };
        cases.push(
            Case::pass(
                self.named("a new row takes the place of an expired one"),
                passing().with_row(self.row(State::Established).confirmed().aged(8000)),
                self.segment(SYN, NEXT, &[]),
                Stage::Default,
                Reason::Unbound,
            )
            .row(made(80)),
        );
        let at_listener = local(self.family, 22);
        cases.push(
            Case::pass(
                self.named("an expired row asks the kernel again"),
                dropping().with_row(
                    Row::tcp(REMOTE[self.family], &at_listener, State::CloseWait, NEXT).aged(60),
                ),
                tcp(REMOTE[self.family], &at_listener),
                Stage::KernelSocket,
                Reason::KernelSocket,
            )
            .row(made(22)),
        );
        cases.push(
            Case::drop(
                self.named("an expired row does not shield from a binding"),
                hostile().with_row(self.row(State::Established).aged(8000)),
                self.segment(ACK, NEXT, &[]),
                Stage::Binding,
                Reason::Bound,
            )
            .of_binding(1),
        );
        cases
    }
}
