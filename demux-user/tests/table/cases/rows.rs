//! Packets of connections that have a row.
//!
//! The default is drop and the port is nobody's, so that a packet passes for its row alone.

use demux_common::{
    connection::State,
    reason::{Reason, Stage},
};

use super::{FAMILIES, REMOTE, local};
use crate::table::{
    check::{Case, RowAfter},
    frames::{ACK, FIN, Frame, PSH, RST, SYN, segment},
    world::{Row, World, dropping},
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

pub(super) fn followed(state: State, remote_next: u32) -> RowAfter {
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
}
