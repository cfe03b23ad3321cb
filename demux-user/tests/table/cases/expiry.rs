//! Rows that are about to expire, and rows that have.

use demux_common::{
    connection::{Direction, State, Timeouts},
    protocol::Protocol,
    reason::{Reason, Stage},
};

use super::{
    FAMILIES, REMOTE, local,
    rows::{NEXT, Table, confirmed, followed, ignored, says},
};
use crate::table::{
    check::{Case, Made, RowAfter},
    frames::{ACK, SYN, tcp, udp},
    world::{Row, Said, dropping, hostile, key, passing},
};

pub fn cases() -> Vec<Case> {
    (0..FAMILIES.len())
        .flat_map(|family| Table { family }.expiry())
        .collect()
}

impl Table {
    fn expiry(&self) -> Vec<Case> {
        let timeouts = Timeouts::default();
        let mut cases = Vec::new();
        for &state in State::ALL {
            let is_udp = matches!(state, State::Unreplied | State::Replied | State::Assured);
            let (row, frame, alive) = if is_udp {
                let row = self.udp_row(state);
                let after = match state {
                    // The remote goes on after the answer.
                    State::Replied => confirmed(row.said.state(State::Assured)),
                    State::Assured => confirmed(row.said),
                    _ => says(row.said),
                };
                let frame = udp(REMOTE[self.family], &self.own());
                (row, frame, after)
            } else {
                let after = match state {
                    State::Listen | State::SynReceived => followed(State::Established, NEXT),
                    // Only an answer to the SYN proves anything.
                    State::SynSent => ignored(state),
                    _ => followed(state, NEXT),
                };
                (self.row(state), self.segment(ACK, NEXT, &[]), after)
            };
            let timeout = u64::from(timeouts.of(state));
            // One that only holds a port lets nothing in.
            if state != State::Reserved {
                cases.push(self.hit(
                    &format!("a row soon to expire in {}", state.name()),
                    dropping().with_row(row.clone().aged(timeout - 10)),
                    frame.clone(),
                    alive,
                ));
            }
            cases.push(
                Case::drop(
                    self.named(&format!("a row that has expired in {}", state.name())),
                    dropping().with_row(row.aged(timeout)),
                    frame,
                    Stage::Default,
                    Reason::NoSocket,
                )
                .row(RowAfter::Expired),
            );
        }
        let made = |port| {
            let local = local(self.family, port);
            let key = key(Protocol::Tcp, REMOTE[self.family], &local);
            RowAfter::Made(Made::new(key, Said::syn(NEXT + 1), Direction::In))
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
                    Row::tcp(REMOTE[self.family], &at_listener, State::TimeWait, NEXT).aged(60),
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
            .of_binding(1)
            .row(RowAfter::Expired),
        );
        cases
    }
}
