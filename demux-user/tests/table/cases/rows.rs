//! Packets of connections that have a row.
//!
//! The default is drop and the port is nobody's, so that a packet passes for its row alone.

use demux_common::{
    connection::{Direction, State},
    protocol::Protocol,
    reason::{Reason, Stage},
};

use super::{FAMILIES, REMOTE, local};
use crate::table::{
    check::{Case, Made, RowAfter},
    frames::{ACK, FIN, Frame, PSH, RST, SYN, segment},
    world::{Row, Said, World, dropping, key, passing},
};

/// What the remote sends next, in every row.
pub(super) const NEXT: u32 = 1000;

pub fn cases() -> Vec<Case> {
    (0..FAMILIES.len())
        .flat_map(|family| {
            let table = Table { family };
            [table.segments(), table.resets(), table.reopening()].concat()
        })
        .collect()
}

pub(super) struct Table {
    pub(super) family: usize,
}

/// Followed, where only the remote is seen.
pub(super) fn followed(state: State, remote_next: u32) -> RowAfter {
    says(Said::remote(state, remote_next))
}

/// Followed, unconfirmed and alive.
pub(super) fn says(said: Said) -> RowAfter {
    RowAfter::Followed {
        said,
        confirmed: false,
        alive: true,
    }
}

/// Followed, alive, and this host has consented.
pub(super) fn confirmed(said: Said) -> RowAfter {
    RowAfter::Followed {
        said,
        confirmed: true,
        alive: true,
    }
}

/// Counted, and nothing else.
pub(super) fn ignored(state: State) -> RowAfter {
    RowAfter::Followed {
        said: Said::remote(state, NEXT),
        confirmed: false,
        alive: false,
    }
}

impl Table {
    pub(super) fn named(&self, text: &str) -> String {
        format!("rows of {}: {text}", FAMILIES[self.family])
    }

    pub(super) fn own(&self) -> String {
        local(self.family, 80)
    }

    pub(super) fn row(&self, state: State) -> Row {
        Row::tcp(REMOTE[self.family], &self.own(), state, NEXT)
    }

    pub(super) fn udp_row(&self, state: State) -> Row {
        Row::udp(REMOTE[self.family], &self.own(), state)
    }

    pub(super) fn segment(&self, flags: u8, sequence: u32, data: &[u8]) -> Frame {
        segment(REMOTE[self.family], &self.own(), flags, sequence, data)
    }

    pub(super) fn hit(&self, text: &str, world: World, frame: Frame, row: RowAfter) -> Case {
        Case::pass(
            self.named(text),
            world,
            frame,
            Stage::Connection,
            Reason::Connection,
        )
        .row(row)
    }

    pub(super) fn tcp(&self, text: &str, state: State, frame: Frame, row: RowAfter) -> Case {
        self.hit(text, dropping().with_row(self.row(state)), frame, row)
    }

    fn segments(&self) -> Vec<Case> {
        use State::{CloseWait, Established, Listen, SynReceived, TimeWait};
        let across = |said: Said| said.with_remote(u32::MAX - 1, said.remote.ack);
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
                dropping().with_row(
                    self.row(Established)
                        .saying(across(Said::remote(Established, 0))),
                ),
                self.segment(ACK, u32::MAX - 1, b"data"),
                followed(Established, 2),
            ),
            // Whether this host has answered is for the kernel to say, and it has no such socket.
            self.tcp(
                "the ACK behind a SYN",
                Listen,
                self.segment(ACK, NEXT, &[]),
                followed(Established, NEXT),
            ),
            self.tcp(
                "an ACK behind a SYN that does not follow it",
                Listen,
                self.segment(ACK, NEXT + 1, &[]),
                ignored(Listen),
            ),
            self.tcp(
                "the ACK that ends a handshake",
                SynReceived,
                self.segment(ACK, NEXT, &[]),
                followed(Established, NEXT),
            ),
            self.hit(
                "a row that is confirmed stays so",
                dropping().with_row(self.row(Established).confirmed()),
                self.segment(ACK, NEXT, &[]),
                confirmed(Said::remote(Established, NEXT)),
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
                dropping().with_row(
                    self.row(State::Established)
                        .saying(Said::remote(State::Established, u32::MAX)),
                ),
                self.segment(RST, 5, &[]),
                RowAfter::Gone,
            ),
        ]
    }

    fn reopening(&self) -> Vec<Case> {
        use State::{CloseWait, Established, LastAck, Listen, SynReceived, TimeWait};
        let syn = |text: &str, state, sequence, row| {
            self.tcp(text, state, self.segment(SYN, sequence, &[]), row)
        };
        let new = Made::new(
            key(Protocol::Tcp, REMOTE[self.family], &self.own()),
            Said::syn(NEXT + 501),
            Direction::In,
        );
        let mut cases = vec![
            syn("a SYN sent again", Listen, NEXT - 1, followed(Listen, NEXT)),
            syn(
                "a SYN sent again in a handshake",
                SynReceived,
                NEXT - 1,
                followed(SynReceived, NEXT),
            ),
            syn(
                "another SYN before an answer",
                Listen,
                NEXT + 500,
                followed(Listen, NEXT + 501),
            ),
            syn(
                "another SYN in a handshake",
                SynReceived,
                NEXT + 500,
                ignored(SynReceived),
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
            syn(
                "an old SYN in TIME-WAIT",
                TimeWait,
                NEXT - 500,
                ignored(TimeWait),
            ),
        ];
        // A new connection is judged as one.
        for state in [TimeWait, CloseWait, LastAck] {
            let (name, frame) = (state.name(), || self.segment(SYN, NEXT + 500, &[]));
            cases.push(
                Case::drop(
                    self.named(&format!("a SYN in {name} to nobody")),
                    dropping().with_row(self.row(state)),
                    frame(),
                    Stage::Default,
                    Reason::NoSocket,
                )
                .row(RowAfter::Gone),
            );
            cases.push(
                Case::pass(
                    self.named(&format!("a SYN in {name} opens a new connection")),
                    passing().with_row(self.row(state).confirmed()),
                    frame(),
                    Stage::Default,
                    Reason::Unbound,
                )
                .row(RowAfter::Reopened(new)),
            );
        }
        cases
    }
}
