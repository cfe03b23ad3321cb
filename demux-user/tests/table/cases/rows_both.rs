//! Arriving packets of connections that have a row, where this host's own packets are seen too.
//!
//! What every segment does to every state is for the tests of the state machine; here is that the
//! way of a packet asks it, and does what it says.

use demux_common::{
    connection::{Direction, State},
    protocol::Protocol,
    reason::{Reason, Stage},
    tcp::{Marks, WINDOW},
};

use super::{
    FAMILIES, REMOTE, local,
    rows::{NEXT, Table, confirmed, says},
};
use crate::table::{
    check::{Case, Made, RowAfter},
    frames::{ACK, ACKNOWLEDGED, FIN, Frame, PSH, RST, SYN, segment},
    world::{Row, Said, dropping, key, passing},
};

pub fn cases() -> Vec<Case> {
    (0..FAMILIES.len())
        .flat_map(|family| {
            let table = Table { family };
            [
                table.under_way(),
                table.handshakes(),
                table.ends(),
                table.sockets(),
            ]
            .concat()
        })
        .collect()
}

/// Counted, and nothing else.
fn ignored(said: Said) -> RowAfter {
    RowAfter::Followed {
        said,
        confirmed: false,
        alive: false,
    }
}

impl Table {
    fn seen(&self, text: &str, said: Said, frame: Frame, row: RowAfter) -> Case {
        let world = dropping().seeing_both();
        self.hit(
            &format!("both seen: {text}"),
            world.with_row(self.row(said.state).saying(said)),
            frame,
            row,
        )
    }

    fn under_way(&self) -> Vec<Case> {
        let established = Said::both(State::Established, NEXT);
        let sure = |text: &str, frame, after| {
            let row = self.row(State::Established).saying(established).confirmed();
            self.hit(
                &format!("both seen: {text}"),
                dropping().seeing_both().with_row(row),
                frame,
                confirmed(after),
            )
        };
        let seen = |text: &str, frame, row| self.seen(text, established, frame, row);
        let on = established.with_remote(NEXT + 4, ACKNOWLEDGED);
        vec![
            seen("an ACK", self.segment(ACK, NEXT, &[]), says(established)),
            seen("data", self.segment(ACK | PSH, NEXT, b"data"), says(on)),
            seen(
                "data sent again",
                self.segment(ACK | PSH, NEXT - 4, b"data"),
                says(established),
            ),
            seen(
                "an ACK of less",
                self.segment(ACK, NEXT, &[]).acknowledging(ACKNOWLEDGED - 9),
                says(established),
            ),
            seen(
                "an ACK of what was never sent",
                self.segment(ACK, NEXT, &[]).acknowledging(ACKNOWLEDGED + 1),
                ignored(established),
            ),
            seen(
                "data far beyond the window",
                self.segment(ACK, NEXT + WINDOW, b"data"),
                ignored(established),
            ),
            seen(
                "a FIN",
                self.segment(FIN | ACK, NEXT, &[]),
                says(
                    established
                        .with_remote(NEXT + 1, ACKNOWLEDGED)
                        .marked(Marks::REMOTE_FIN),
                ),
            ),
            seen("no flags", self.segment(0, NEXT, &[]), ignored(established)),
            seen(
                "a SYN on a connection",
                self.segment(SYN, NEXT, &[]),
                ignored(established),
            ),
            sure(
                "an ACK without any doubt",
                self.segment(ACK, NEXT, &[]),
                established,
            ),
            sure(
                "data without any doubt",
                self.segment(ACK | PSH, NEXT, b"data"),
                on,
            ),
            sure(
                "data in a VLAN",
                self.segment(ACK | PSH, NEXT, b"data").tag(0x8100, 5),
                on,
            ),
        ]
    }

    fn handshakes(&self) -> Vec<Case> {
        use State::{Established, SynReceived, SynSent};
        let syn = Said::syn(NEXT);
        let answered = Said::both(SynReceived, NEXT).with_remote(NEXT, ACKNOWLEDGED - 1);
        let asked = Said::local(SynSent, ACKNOWLEDGED)
            .with_local(ACKNOWLEDGED, 0)
            .with_remote(0, ACKNOWLEDGED - 1);
        let ack = |number| self.segment(ACK, NEXT, &[]).acknowledging(number);
        let syn_ack = |number| self.segment(SYN | ACK, NEXT - 1, &[]).acknowledging(number);
        vec![
            self.seen(
                "an ACK of what this host has not answered",
                syn,
                self.segment(ACK, NEXT, &[]),
                ignored(syn),
            ),
            self.seen(
                "the ACK that ends a handshake",
                answered,
                ack(ACKNOWLEDGED),
                confirmed(Said::both(Established, NEXT)),
            ),
            self.seen(
                "a guess at the ACK that ends a handshake",
                answered,
                ack(ACKNOWLEDGED + 1),
                ignored(answered),
            ),
            self.seen(
                "the answer to a SYN of this host",
                asked,
                syn_ack(ACKNOWLEDGED),
                confirmed(Said::both(Established, NEXT)),
            ),
            self.seen(
                "a guess at the answer to a SYN of this host",
                asked,
                syn_ack(ACKNOWLEDGED - 1),
                ignored(asked),
            ),
            self.seen(
                "the refusal of a SYN of this host",
                asked,
                self.segment(RST | ACK, 0, &[]),
                RowAfter::Gone,
            ),
            self.seen(
                "a guess at the refusal of a SYN of this host",
                asked,
                self.segment(RST, 0, &[]),
                ignored(asked),
            ),
        ]
    }

    fn ends(&self) -> Vec<Case> {
        use State::{Closing, Established, FinWait1, FinWait2, LastAck, TimeWait};
        let established = Said::both(Established, NEXT);
        // The remote has acknowledged all but the FIN.
        let unacknowledged = |state| {
            Said::both(state, NEXT)
                .with_remote(NEXT, ACKNOWLEDGED - 1)
                .marked(Marks::LOCAL_FIN)
        };
        let acknowledged = |state| Said::both(state, NEXT).marked(Marks::LOCAL_FIN);
        let ack = || self.segment(ACK, NEXT, &[]);
        let both = Marks::REMOTE_FIN;
        let reset = |text: &str, flags, sequence, row| {
            self.seen(text, established, self.segment(flags, sequence, &[]), row)
        };
        let waiting = || self.row(TimeWait).saying(Said::both(TimeWait, NEXT));
        let syn = |sequence| self.segment(SYN, sequence, &[]);
        vec![
            reset("a RST", RST, NEXT, RowAfter::Gone),
            reset("a RST with ACK", RST | ACK, NEXT, RowAfter::Gone),
            reset("a RST one beyond", RST, NEXT + 1, ignored(established)),
            reset("a RST one before", RST, NEXT - 1, ignored(established)),
            self.seen(
                "the ACK of this host's FIN",
                unacknowledged(FinWait1),
                ack(),
                says(acknowledged(FinWait2)),
            ),
            self.seen(
                "the ACK of this host's FIN after both",
                unacknowledged(Closing).marked(both),
                ack(),
                says(acknowledged(TimeWait).marked(both)),
            ),
            self.seen(
                "the last ACK",
                unacknowledged(LastAck).marked(both),
                ack(),
                RowAfter::Gone,
            ),
            self.seen(
                "an old SYN in TIME-WAIT",
                Said::both(TimeWait, NEXT),
                syn(NEXT - 500),
                ignored(Said::both(TimeWait, NEXT)),
            ),
            Case::drop(
                self.named("both seen: a SYN in TIME-WAIT to nobody"),
                dropping().seeing_both().with_row(waiting()),
                syn(NEXT + 500),
                Stage::Default,
                Reason::NoSocket,
            )
            .row(RowAfter::Gone),
            Case::pass(
                self.named("both seen: a SYN in TIME-WAIT opens a new connection"),
                passing().seeing_both().with_row(waiting().confirmed()),
                syn(NEXT + 500),
                Stage::Default,
                Reason::Unbound,
            )
            .row(RowAfter::Reopened(Made::new(
                key(Protocol::Tcp, REMOTE[self.family], &self.own()),
                Said::syn(NEXT + 501),
                Direction::In,
            ))),
        ]
    }

    /// Rows of which only the kernel knows whether this host has consented.
    fn sockets(&self) -> Vec<Case> {
        use State::Established;
        let connected = REMOTE[self.family].replace("40000", "40001");
        let silent = ["10.0.0.77:40003", "[2001:db8::77]:40003"][self.family];
        let own = local(self.family, 22);
        let row = |remote: &str, said| Row::new(Protocol::Tcp, remote, &own, said);
        let ack = |remote: &str| segment(remote, &own, ACK, NEXT, &[]);
        let syn = Said::syn(NEXT);
        let established = Said::remote(Established, NEXT);
        let seen = |text: &str, row, remote: &str, after| {
            self.hit(
                &format!("both seen: {text}"),
                dropping().seeing_both().with_row(row),
                ack(remote),
                after,
            )
        };
        let heard = |text: &str, row, remote: &str, after| {
            self.hit(text, dropping().with_row(row), ack(remote), after)
        };
        vec![
            seen(
                "an ACK of a socket whose answer was not seen",
                row(&connected, syn),
                &connected,
                RowAfter::Followed {
                    said: syn.state(Established),
                    confirmed: true,
                    alive: false,
                },
            ),
            seen(
                "an ACK to a handshake of the kernel whose answer was not seen",
                row(silent, syn),
                silent,
                ignored(syn),
            ),
            seen(
                "an ACK of a socket that is under way does not ask",
                row(&connected, Said::both(Established, NEXT)),
                &connected,
                says(Said::both(Established, NEXT)),
            ),
            heard(
                "an ACK of a socket behind its SYN",
                row(&connected, syn),
                &connected,
                confirmed(established),
            ),
            heard(
                "an ACK of a socket",
                row(&connected, established),
                &connected,
                confirmed(established),
            ),
            heard(
                "the ACK that ends a handshake of the kernel",
                row(silent, syn),
                silent,
                says(established),
            ),
            self.hit(
                "an ACK of a socket where sockets are not asked",
                dropping()
                    .without_kernel_sockets()
                    .with_row(row(&connected, syn)),
                ack(&connected),
                says(established),
            ),
        ]
    }
}
