//! A default of drop beside the kernel's own sockets.

use demux_common::{
    connection::{Direction, State},
    protocol::Protocol,
    reason::{Reason, Stage},
    tcp::Marks,
    udp::REMOTE_SENT,
};

use super::{FAMILIES, REMOTE, local};
use crate::table::{
    check::{Case, Made, RowAfter},
    frames::{ACK, FIN, Frame, PSH, RST, SEQUENCE, SYN, segment, tcp, udp},
    world::{Bound, Said, World, dropping, key},
};

pub fn cases() -> Vec<Case> {
    (0..FAMILIES.len())
        .flat_map(|family| {
            let table = Table { family };
            [table.listeners(), table.connections(), table.datagrams()].concat()
        })
        .collect()
}

struct Table {
    family: usize,
}

impl Table {
    fn named(&self, text: &str) -> String {
        format!("sockets of {}: {text}", FAMILIES[self.family])
    }

    fn passed(&self, text: &str, frame: Frame) -> Case {
        self.passed_in(dropping(), text, frame)
    }

    fn passed_in(&self, world: World, text: &str, frame: Frame) -> Case {
        let (stage, reason) = (Stage::KernelSocket, Reason::KernelSocket);
        Case::pass(self.named(text), world, frame, stage, reason)
    }

    fn dropped(&self, text: &str, frame: Frame) -> Case {
        let (stage, reason) = (Stage::Default, Reason::NoSocket);
        Case::drop(self.named(text), dropping(), frame, stage, reason)
    }

    fn remote(&self, port: u16) -> String {
        REMOTE[self.family].replace("40000", &port.to_string())
    }

    /// A remote that answers nothing.
    fn silent(&self, port: u16) -> String {
        [
            format!("10.0.0.77:{port}"),
            format!("[2001:db8::77]:{port}"),
        ][self.family]
            .clone()
    }

    /// The second address of the host.
    fn second(&self, port: u16) -> String {
        [format!("10.0.0.3:{port}"), format!("[2001:db8::3]:{port}")][self.family].clone()
    }

    fn own(&self, port: u16) -> String {
        local(self.family, port)
    }

    fn listeners(&self) -> Vec<Case> {
        let remote = &REMOTE[self.family];
        let to = |flags| segment(remote, &self.own(22), flags, SEQUENCE, &[]);
        let syn_row = |local: &str| {
            let key = key(Protocol::Tcp, remote, local);
            RowAfter::Made(Made::new(key, Said::syn(SEQUENCE + 1), Direction::In))
        };
        let learned = |text: &str, frame, local: &str| self.passed(text, frame).row(syn_row(local));
        let mut cases = vec![
            learned("a SYN to a listener", to(SYN), &self.own(22)),
            learned(
                "a SYN to a listener in a VLAN",
                to(SYN).tag(0x8100, 5),
                &self.own(22),
            ),
            learned(
                "a SYN to a dual-stack listener",
                tcp(remote, &self.own(2222)),
                &self.own(2222),
            ),
            learned(
                "a SYN to a listener at one address",
                tcp(remote, &self.second(8080)),
                &self.second(8080),
            ),
            self.dropped(
                "a SYN to another address than the listener's",
                tcp(remote, &self.own(8080)),
            ),
            self.passed(
                "an ACK to a listener, which may answer a SYN cookie",
                to(ACK),
            ),
            self.passed("a SYN with ACK to a listener", to(SYN | ACK)),
            self.passed("a FIN to a listener", to(FIN | ACK)),
            self.passed("a RST to a listener", to(RST)),
            self.passed("no flags to a listener", to(0)),
            self.passed(
                "a SYN from its own destination to a listener",
                tcp(&self.own(22), &self.own(22)),
            ),
            self.passed_in(
                dropping().tracking_bound(),
                "a SYN to a listener where only bound endpoints are tracked",
                to(SYN),
            ),
            self.passed_in(
                dropping().forwarding(),
                "a SYN where packets are forwarded",
                to(SYN),
            )
            .row(syn_row(&self.own(22))),
            self.dropped(
                "a datagram to the port of a TCP listener",
                udp(remote, &self.own(22)),
            ),
            self.dropped(
                "a SYN to the port of a UDP socket",
                tcp(remote, &self.own(53)),
            ),
            Case::drop(
                self.named("a drop binding before a listener"),
                dropping().with([Bound::tcp(":22").drop()]),
                to(SYN),
                Stage::Binding,
                Reason::Bound,
            )
            .of_binding(1),
            Case::pass(
                self.named("a binding to the stack before a listener"),
                dropping().with([Bound::tcp(":22").untracked()]),
                to(SYN),
                Stage::Binding,
                Reason::Bound,
            )
            .of_binding(1),
            Case::pass(
                self.named("a SYN to a strange address is not asked about"),
                dropping(),
                tcp(remote, ["10.0.0.99:22", "[2001:db8::99]:2222"][self.family]),
                Stage::Default,
                Reason::NotLocal,
            ),
        ];
        let six = tcp(remote, &self.own(6022));
        cases.push(if self.family == 0 {
            self.dropped("a SYN to a listener of IPv6 only", six)
        } else {
            learned("a SYN to a listener of IPv6 only", six, &self.own(6022))
        });
        if self.family == 0 {
            cases.push(learned(
                "a SYN to a loopback address",
                tcp(remote, "127.0.0.1:22"),
                "127.0.0.1:22",
            ));
        }
        cases
    }

    fn connections(&self) -> Vec<Case> {
        let segment_to = |remote: &str, port, flags, data: &[u8]| {
            segment(remote, &self.own(port), flags, SEQUENCE, data)
        };
        let connected = |flags, data: &[u8]| segment_to(&self.remote(40_001), 22, flags, data);
        let waiting = |flags| segment_to(&self.remote(40_002), 22, flags, &[]);
        let requested = |flags| segment_to(&self.silent(40_003), 22, flags, &[]);
        let opening = |flags| segment_to(&self.silent(443), 40_004, flags, &[]);
        let row = |remote: &str, port, said, direction| {
            Made::new(key(Protocol::Tcp, remote, &self.own(port)), said, direction)
        };
        let of_connected = |said| {
            let row = row(&self.remote(40_001), 22, said, Direction::In);
            RowAfter::Made(row.confirmed())
        };
        let of_request = |said| RowAfter::Made(row(&self.silent(40_003), 22, said, Direction::In));
        let established = |next| Said::remote(State::Established, next);
        vec![
            self.passed("an ACK of a connection", connected(ACK, &[]))
                .row(of_connected(established(SEQUENCE))),
            self.passed("data of a connection", connected(ACK | PSH, b"data"))
                .row(of_connected(established(SEQUENCE + 4))),
            self.passed("a FIN of a connection", connected(FIN | ACK, &[]))
                .row(of_connected(
                    Said::remote(State::CloseWait, SEQUENCE + 1).marked(Marks::REMOTE_FIN),
                )),
            self.passed("a RST of a connection", connected(RST, &[])),
            self.passed("no flags on a connection", connected(0, &[])),
            self.passed(
                "a SYN on a connection, which proves nothing",
                connected(SYN, &[]),
            ),
            self.dropped(
                "an ACK from another address than the connection's",
                segment(&self.silent(443), &self.own(40_005), ACK, SEQUENCE, &[]),
            ),
            self.passed(
                "an ACK to a connection in TIME-WAIT makes no row",
                waiting(ACK),
            ),
            self.passed(
                "a late FIN to a connection in TIME-WAIT makes no row",
                waiting(FIN | ACK),
            ),
            self.passed("a RST to a connection in TIME-WAIT", waiting(RST)),
            self.passed(
                "a SYN to a connection in TIME-WAIT opens anew",
                waiting(SYN),
            )
            .row(RowAfter::Made(row(
                &self.remote(40_002),
                22,
                Said::syn(SEQUENCE + 1),
                Direction::In,
            ))),
            self.passed("the ACK that ends a handshake", requested(ACK))
                .row(of_request(established(SEQUENCE))),
            self.passed("a SYN sent again", requested(SYN))
                .row(of_request(Said::syn(SEQUENCE + 1))),
            self.passed("a RST in a handshake", requested(RST)),
            self.passed("the answer to the host's own SYN", opening(SYN | ACK))
                .row(RowAfter::Made(
                    row(
                        &self.silent(443),
                        40_004,
                        established(SEQUENCE + 1),
                        Direction::Out,
                    )
                    .confirmed(),
                )),
            self.passed("a refusal of the host's own SYN", opening(RST | ACK)),
        ]
    }

    fn datagrams(&self) -> Vec<Case> {
        let remote = &REMOTE[self.family];
        let learned = |text: &str, remote: &str, local: &str| {
            self.passed(text, udp(remote, local))
                .row(RowAfter::Made(Made::new(
                    key(Protocol::Udp, remote, local),
                    Said::udp(State::Unreplied, REMOTE_SENT),
                    Direction::In,
                )))
        };
        let six = "a datagram to a socket of IPv6 only";
        vec![
            learned("a datagram to a socket", remote, &self.own(53)),
            learned("a datagram to a dual-stack socket", remote, &self.own(5353)),
            learned(
                "a datagram to a socket at one address",
                remote,
                &self.second(5000),
            ),
            self.dropped(
                "a datagram to another address than the socket's",
                udp(remote, &self.own(5000)),
            ),
            if self.family == 0 {
                self.dropped(six, udp(remote, &self.own(6053)))
            } else {
                learned(six, remote, &self.own(6053))
            },
            learned(
                "the answer to a question of the host",
                &self.remote(53),
                &self.own(40_053),
            ),
            self.dropped(
                "an answer from another port than was asked",
                udp(&self.remote(54), &self.own(40_053)),
            ),
            self.dropped(
                "an answer from another address than was asked",
                udp(&self.silent(53), &self.own(40_053)),
            ),
            self.passed_in(
                dropping().tracking_bound(),
                "a datagram to a socket where only bound endpoints are tracked",
                udp(remote, &self.own(53)),
            ),
        ]
    }
}
