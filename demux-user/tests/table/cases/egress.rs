//! Packets that leave: what makes a row, what follows one, and what it counts as.
//!
//! Nothing is ever decided about them.

use demux_common::{
    connection::{Direction, State},
    protocol::Protocol,
    tcp::Marks,
    udp::{ANSWERED, REMOTE_SENT},
};

use super::{
    FAMILIES, REMOTE, local,
    rows::{Table, confirmed, says},
};
use crate::table::{
    check::{Case, Made, RowAfter},
    frames::{
        ACK, ACKNOWLEDGED, FIN, Frame, HOP_BY_HOP, PEER_MAC, PSH, RST, SEQUENCE, SYN, datagram,
        ethernet, extension, segment,
    },
    world::{Bound, Entry, Row, Said, World, dropping, hostile, key, passing},
};

pub fn cases() -> Vec<Case> {
    (0..FAMILIES.len())
        .flat_map(|family| {
            let table = Table { family };
            [
                table.opened_here(),
                table.not_entered(),
                table.entered_by_settings(),
                table.followed(),
                table.finished(),
                table.sizes(),
            ]
            .concat()
        })
        .collect()
}

/// What is not seen of the remote is taken from what this host says to it.
fn said(state: State, marks: u8, next: u32, ack: u32) -> Said {
    Said {
        state,
        marks: Marks::LOCAL_SEEN | marks,
        ..Said::local(state, next)
            .with_local(next, ack)
            .with_remote(ack, SEQUENCE)
    }
}

/// A connection on which this host sends [`SEQUENCE`] next, and has taken what it acknowledges.
fn under_way(state: State) -> Said {
    said(state, Marks::REMOTE_SEEN, SEQUENCE, ACKNOWLEDGED)
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
    fn leaves(&self, text: &str, world: World, frame: Frame) -> Case {
        Case::leave(self.named(&format!("leaving: {text}")), world, frame)
    }

    fn out(&self, flags: u8, data: &[u8]) -> Frame {
        segment(&self.own(), REMOTE[self.family], flags, SEQUENCE, data)
    }

    fn question(&self) -> Frame {
        datagram(&self.own(), REMOTE[self.family], b"demux")
    }

    fn made(&self, protocol: Protocol, said: Said, direction: Direction) -> Made {
        Made::new(
            key(protocol, REMOTE[self.family], &self.own()),
            said,
            direction,
        )
    }

    fn syn_row(&self) -> RowAfter {
        let said = said(State::SynSent, 0, SEQUENCE + 1, 0);
        RowAfter::Made(self.made(Protocol::Tcp, said, Direction::Out))
    }

    fn datagram_row(&self) -> RowAfter {
        let said = Said::udp(State::Unreplied, 0);
        RowAfter::Made(self.made(Protocol::Udp, said, Direction::Out))
    }

    /// Which packets make which row.
    fn opened_here(&self) -> Vec<Case> {
        use Direction::{In, Out};
        use State::{Established, FinWait1, SynReceived, SynSent};
        let next = SEQUENCE + 1;
        let tcp = |said, direction| self.made(Protocol::Tcp, said, direction);
        let mut cases = Vec::new();
        for (text, frame, row) in [
            (
                "SYN",
                self.out(SYN, &[]),
                Some(tcp(said(SynSent, 0, next, 0), Out)),
            ),
            (
                "SYN with data",
                self.out(SYN, b"early"),
                Some(tcp(said(SynSent, 0, next + 5, 0), Out)),
            ),
            (
                "SYN with ACK, whose SYN was missed",
                self.out(SYN | ACK, &[]),
                Some(tcp(
                    said(SynReceived, Marks::REMOTE_SEEN, next, ACKNOWLEDGED),
                    In,
                )),
            ),
            (
                "data",
                self.out(ACK | PSH, b"data"),
                Some(tcp(said(Established, 0, SEQUENCE + 4, ACKNOWLEDGED), In).confirmed()),
            ),
            (
                "FIN with ACK",
                self.out(FIN | ACK, &[]),
                Some(tcp(said(FinWait1, Marks::LOCAL_FIN, next, ACKNOWLEDGED), In).confirmed()),
            ),
            // Perhaps the last of a connection that is over.
            ("ACK", self.out(ACK, &[]), None),
            ("RST", self.out(RST, &[]), None),
            ("RST with ACK", self.out(RST | ACK, &[]), None),
            ("no flags", self.out(0, &[]), None),
            ("SYN with FIN", self.out(SYN | FIN, &[]), None),
            (
                "a datagram",
                self.question(),
                Some(self.made(Protocol::Udp, Said::udp(State::Unreplied, 0), Out)),
            ),
            (
                "a datagram in a VLAN",
                self.question().tag(0x8100, 5),
                Some(self.made(Protocol::Udp, Said::udp(State::Unreplied, 0), Out)),
            ),
        ] {
            let row = row.map_or(RowAfter::Same, RowAfter::Made);
            cases.push(self.leaves(text, passing().seeing_both(), frame).row(row));
        }
        let server = REMOTE[self.family].replace("40000", "443");
        let client = local(self.family, 50_000);
        cases.push(
            self.leaves(
                "data to a lower port is taken for a client's",
                passing().seeing_both(),
                segment(&client, &server, ACK | PSH, SEQUENCE, b"data"),
            )
            .row(RowAfter::Made(
                Made::new(
                    key(Protocol::Tcp, &server, &client),
                    said(Established, 0, SEQUENCE + 4, ACKNOWLEDGED),
                    Out,
                )
                .confirmed(),
            )),
        );
        cases
    }

    /// What is none of this host's own conversations.
    fn not_entered(&self) -> Vec<Case> {
        let world = || passing().seeing_both();
        let (group, own) = (
            ["224.0.0.251:5353", "[ff02::fb]:5353"][self.family],
            self.own(),
        );
        let strange = ["10.0.0.99:80", "[2001:db8::99]:80"][self.family];
        let remote = REMOTE[self.family];
        let forwarded = |text: &str, frame| {
            self.leaves(text, world(), frame)
                .leaving(|leaving| leaving.is_forwarded = true)
        };
        let mut cases = vec![
            forwarded("a SYN that is forwarded", self.out(SYN, &[])),
            forwarded("a datagram that is forwarded", self.question()),
            self.leaves(
                "a SYN from a strange address",
                world(),
                segment(strange, remote, SYN, SEQUENCE, &[]),
            ),
            self.leaves(
                "a datagram from a strange address",
                world(),
                datagram(strange, remote, b"demux"),
            ),
            self.leaves(
                "a datagram to a group",
                world(),
                datagram(&own, group, b"demux"),
            ),
            self.leaves(
                "a datagram to a group of stations",
                world(),
                self.question().station([0x01, 0, 0x5e, 0, 0, 1]),
            ),
            self.leaves(
                "a datagram to every station",
                world(),
                self.question().station([0xff; 6]),
            ),
            self.leaves(
                "a datagram to its own source",
                world(),
                datagram(&own, &own, b"demux"),
            ),
            self.leaves(
                "a SYN by an interface without an entry",
                world().entered(Entry::Missing),
                self.out(SYN, &[]),
            ),
            self.leaves(
                "a frame that is cut in its headers",
                world(),
                self.out(SYN, &[]).cut([44, 64][self.family]),
            ),
            self.leaves(
                "a frame that is not IP",
                world(),
                ethernet(PEER_MAC, 0x0806, &[self.family as u8; 28]),
            ),
        ];
        if self.family == 0 {
            cases.extend([
                self.leaves(
                    "a datagram to the limited broadcast address",
                    world(),
                    datagram(&own, "255.255.255.255:67", b"demux"),
                ),
                self.leaves("a fragment", world(), self.question().ip(6, &[0x20, 0])),
            ]);
        }
        cases
    }

    /// What the settings and the bindings say of it.
    fn entered_by_settings(&self) -> Vec<Case> {
        let tcp = || Bound::tcp(":80");
        let any_ip = ["172.16.0.0/12", "2001:db8:ffff::/48"][self.family];
        let far = ["172.16.5.5:80", "[2001:db8:ffff::5]:80"][self.family];
        let syn = || self.out(SYN, &[]);
        let seeing = World::seeing_both;
        let mut cases = vec![
            self.leaves("a SYN under a default of drop", seeing(dropping()), syn())
                .row(self.syn_row()),
            self.leaves(
                "a datagram under a default of drop",
                seeing(dropping()),
                self.question(),
            )
            .row(self.datagram_row()),
            self.leaves(
                "a SYN by an interface whose entry stands next to its home",
                seeing(passing()).entered(Entry::Displaced),
                syn(),
            )
            .row(self.syn_row()),
            // An interface on which what leaves has come to be seen since its entry was written.
            self.leaves(
                "a SYN where only what arrives is said to be seen",
                passing(),
                syn(),
            )
            .row(self.syn_row()),
            self.leaves(
                "a SYN of nobody's port where only bound endpoints are tracked",
                seeing(passing()).tracking_bound(),
                syn(),
            ),
            self.leaves(
                "a SYN of a bound port where only bound endpoints are tracked",
                seeing(passing()).tracking_bound().with([tcp()]),
                syn(),
            )
            .of_binding(1)
            .row(self.syn_row()),
            self.leaves(
                "a SYN of a bound port",
                seeing(passing()).with([tcp()]),
                syn(),
            )
            .of_binding(1)
            .row(self.syn_row()),
            self.leaves(
                "a SYN of an untracked binding",
                seeing(passing()).with([tcp().untracked()]),
                syn(),
            ),
            self.leaves("a SYN of a drop binding", seeing(hostile()), syn()),
            self.leaves(
                "a datagram of a drop binding",
                seeing(hostile()),
                self.question(),
            ),
            self.leaves(
                "a SYN from an address in a local prefix",
                seeing(passing()).with_local_prefix(any_ip),
                segment(far, REMOTE[self.family], SYN, SEQUENCE, &[]),
            )
            .row(RowAfter::Made(Made::new(
                key(Protocol::Tcp, REMOTE[self.family], far),
                said(State::SynSent, 0, SEQUENCE + 1, 0),
                Direction::Out,
            ))),
            self.leaves(
                "a SYN from an address beside the local prefix",
                seeing(passing()),
                segment(far, REMOTE[self.family], SYN, SEQUENCE, &[]),
            ),
        ];
        if self.family == 0 {
            let loopback = "127.0.0.1:80";
            cases.push(
                self.leaves(
                    "a SYN from a loopback address",
                    seeing(passing()),
                    segment(loopback, "127.0.0.2:90", SYN, SEQUENCE, &[]),
                )
                .row(RowAfter::Made(Made::new(
                    key(Protocol::Tcp, "127.0.0.2:90", loopback),
                    said(State::SynSent, 0, SEQUENCE + 1, 0),
                    Direction::Out,
                ))),
            );
        }
        cases
    }

    /// A packet that leaves, of a connection that has a row of TCP.
    fn of_row(&self, text: &str, said: Said, frame: Frame, row: RowAfter) -> Case {
        let world = dropping()
            .seeing_both()
            .with_row(self.row(said.state).saying(said));
        self.leaves(&format!("of a row: {text}"), world, frame)
            .row(row)
    }

    /// Replies, and what goes on.
    fn followed(&self) -> Vec<Case> {
        use State::{Established, Listen, SynReceived, SynSent};
        let established = || under_way(Established);
        let to_server = |row: Row| passing().seeing_both().with_row(row);
        let ack = || self.out(ACK, &[]);
        // This host has sent less than the test does.
        let behind = established()
            .with_remote(ACKNOWLEDGED, SEQUENCE - 1)
            .with_local(SEQUENCE - 1, ACKNOWLEDGED);
        vec![
            self.of_row(
                "the answer to a SYN",
                Said::syn(ACKNOWLEDGED),
                self.out(SYN | ACK, &[]),
                says(under_way(SynReceived).with_local(SEQUENCE + 1, ACKNOWLEDGED)),
            ),
            self.of_row(
                "the refusal of a SYN",
                Said::syn(ACKNOWLEDGED),
                self.out(RST | ACK, &[]),
                RowAfter::Gone,
            ),
            self.of_row(
                "an ACK to somebody else while a SYN waits for its answer",
                Said::syn(ACKNOWLEDGED + 1),
                ack(),
                ignored(Said::syn(ACKNOWLEDGED + 1)),
            ),
            self.of_row(
                "a SYN sent again",
                said(SynSent, 0, SEQUENCE + 1, 0),
                self.out(SYN, &[]),
                says(said(SynSent, 0, SEQUENCE + 1, 0)),
            ),
            self.of_row(
                "a SYN that crosses another",
                Said::syn(ACKNOWLEDGED),
                self.out(SYN, &[]),
                says(
                    Said::syn(ACKNOWLEDGED)
                        .state(SynSent)
                        .marked(Marks::LOCAL_SEEN)
                        .with_remote(ACKNOWLEDGED, SEQUENCE)
                        .with_local(SEQUENCE + 1, 0),
                ),
            ),
            self.of_row("an ACK", established(), ack(), confirmed(established())),
            self.of_row(
                "data",
                established(),
                self.out(ACK | PSH, b"data"),
                confirmed(established().with_local(SEQUENCE + 4, ACKNOWLEDGED)),
            ),
            self.of_row(
                "an ACK of more",
                established(),
                ack().acknowledging(ACKNOWLEDGED + 100),
                confirmed(established().with_local(SEQUENCE, ACKNOWLEDGED + 100)),
            ),
            self.leaves(
                "data on a connection without any doubt",
                to_server(self.row(Established).saying(established()).confirmed()),
                self.out(ACK | PSH, b"data"),
            )
            .row(confirmed(
                established().with_local(SEQUENCE + 4, ACKNOWLEDGED),
            )),
            self.leaves(
                "data on a connection that began before the bindings were changed",
                to_server(
                    self.row(Established)
                        .saying(established())
                        .of_binding(1)
                        .confirmed()
                        .outdated(),
                ),
                self.out(ACK | PSH, b"data"),
            )
            .row(confirmed(
                established().with_local(SEQUENCE + 4, ACKNOWLEDGED),
            )),
            self.leaves(
                "data by a host of which only the remote had been seen",
                to_server(Row::tcp(
                    REMOTE[self.family],
                    &self.own(),
                    Established,
                    ACKNOWLEDGED,
                )),
                self.out(ACK | PSH, b"data"),
            )
            .row(confirmed(
                Said::remote(Established, ACKNOWLEDGED)
                    .marked(Marks::LOCAL_SEEN)
                    .with_remote(ACKNOWLEDGED, SEQUENCE)
                    .with_local(SEQUENCE + 4, ACKNOWLEDGED),
            )),
            self.of_row(
                "no flags",
                established(),
                self.out(0, &[]),
                ignored(established()),
            ),
            self.of_row(
                "a RST with ACK",
                established(),
                self.out(RST | ACK, &[]),
                RowAfter::Gone,
            ),
            self.of_row(
                "a RST of just what comes next",
                established(),
                self.out(RST, &[]),
                RowAfter::Gone,
            ),
            self.of_row(
                "a RST that answers something else",
                behind,
                self.out(RST, &[]),
                ignored(behind),
            ),
            self.leaves(
                "an answer to a datagram",
                to_server(self.udp_row(State::Unreplied)),
                self.question(),
            )
            .row(says(Said::udp(State::Replied, REMOTE_SENT | ANSWERED))),
            self.leaves(
                "a datagram sent again",
                to_server(
                    self.udp_row(State::Unreplied)
                        .saying(Said::udp(State::Unreplied, 0))
                        .out(),
                ),
                self.question(),
            )
            .row(says(Said::udp(State::Unreplied, 0))),
            self.leaves(
                "a SYN where the row of old times has expired",
                to_server(self.row(Listen).saying(established()).aged(8000)),
                self.out(SYN, &[]),
            )
            .row(self.syn_row()),
            self.leaves(
                "a RST where the row of old times has expired",
                to_server(self.row(Listen).saying(established()).aged(8000)),
                self.out(RST, &[]),
            )
            .row(RowAfter::Expired),
        ]
    }

    /// How connections end from this side.
    fn finished(&self) -> Vec<Case> {
        use State::{CloseWait, Established, FinWait1, FinWait2, LastAck, TimeWait};
        let fin = || self.out(FIN | ACK, &[]);
        let ack = || self.out(ACK, &[]);
        let after_fin = |state| {
            under_way(state)
                .marked(Marks::LOCAL_FIN)
                .with_local(SEQUENCE + 1, ACKNOWLEDGED)
        };
        // The remote's FIN is behind what this host has acknowledged so far.
        let behind = |state| {
            under_way(state)
                .marked(Marks::REMOTE_FIN)
                .with_local(SEQUENCE, ACKNOWLEDGED - 1)
        };
        let anew = RowAfter::Reopened(self.made(
            Protocol::Tcp,
            said(State::SynSent, 0, SEQUENCE + 1, 0),
            Direction::Out,
        ));
        vec![
            self.of_row(
                "a FIN",
                under_way(Established),
                fin(),
                confirmed(after_fin(FinWait1)),
            ),
            self.of_row(
                "a FIN after the remote's",
                under_way(CloseWait).marked(Marks::REMOTE_FIN),
                fin(),
                confirmed(after_fin(LastAck).marked(Marks::REMOTE_FIN)),
            ),
            self.of_row(
                "the ACK of the remote's FIN",
                behind(Established),
                ack(),
                confirmed(under_way(CloseWait).marked(Marks::REMOTE_FIN)),
            ),
            self.of_row(
                "the last ACK",
                behind(FinWait2).marked(Marks::LOCAL_FIN),
                ack(),
                confirmed(under_way(TimeWait).marked(Marks::LOCAL_FIN | Marks::REMOTE_FIN)),
            ),
            self.of_row(
                "a SYN in TIME-WAIT",
                under_way(TimeWait),
                self.out(SYN, &[]),
                anew,
            ),
        ]
    }

    /// What a packet counts as that will be cut into several.
    fn sizes(&self) -> Vec<Case> {
        // Ethernet, IP, and TCP or UDP.
        let tcp = [54, 74][self.family];
        let udp = [42, 62][self.family];
        let data = [0; 3000];
        let state = State::Established;
        let next = SEQUENCE + 3000;
        let row = || self.row(state).saying(under_way(state));
        let advanced = under_way(state).with_local(next, ACKNOWLEDGED);
        let new = RowAfter::Made(
            self.made(
                Protocol::Tcp,
                said(state, 0, next, ACKNOWLEDGED),
                Direction::In,
            )
            .confirmed(),
        );
        let cut = |case: Case, segments: u32, packets: u64, headers: u64| {
            case.leaving(|leaving| {
                leaving.segments = segments;
                leaving.packets = packets;
                leaving.bytes += (packets - 1) * headers;
            })
        };
        let super_packet = || self.out(ACK, &data);
        let leaves = |text: &str, frame| self.leaves(text, passing().seeing_both(), frame);
        let of_row = |text: &str, row, frame| {
            let world = passing().seeing_both().with_row(row);
            self.leaves(text, world, frame).row(confirmed(advanced))
        };
        let mut cases = vec![
            cut(leaves("three segments in one", super_packet()), 3, 3, tcp).row(new),
            cut(leaves("one segment in one", super_packet()), 1, 1, tcp).row(new),
            cut(
                of_row("three segments in one, of a row", row(), super_packet()),
                3,
                3,
                tcp,
            ),
            cut(
                of_row(
                    "three segments in one, of a connection without any doubt",
                    row().confirmed(),
                    super_packet(),
                ),
                3,
                3,
                tcp,
            ),
            cut(
                leaves(
                    "three segments in one, in a VLAN",
                    super_packet().tag(0x8100, 5),
                ),
                3,
                3,
                tcp + 4,
            )
            .row(new),
            cut(
                leaves(
                    "three datagrams in one",
                    datagram(&self.own(), REMOTE[self.family], &data),
                ),
                3,
                3,
                udp,
            )
            .row(self.datagram_row()),
        ];
        // BIG TCP: the length does not fit its field, which is 0.
        let big = 100_000;
        let whole = segment(
            &self.own(),
            REMOTE[self.family],
            ACK,
            SEQUENCE,
            &vec![0; 60_000],
        )
        .padded(big - 60_000);
        let length_at = [2, 4][self.family];
        let big_row = RowAfter::Made(
            self.made(
                Protocol::Tcp,
                said(state, 0, SEQUENCE + big as u32, ACKNOWLEDGED),
                Direction::In,
            )
            .confirmed(),
        );
        cases.push(
            cut(
                leaves("70 segments in one", whole.ip(length_at, &[0, 0])),
                70,
                70,
                tcp,
            )
            .row(big_row),
        );
        if self.family == 0 {
            let optional = self.out(ACK, &data).options(&[1, 1, 1, 1]);
            cases.push(
                cut(
                    leaves("three segments with an option", optional),
                    3,
                    3,
                    tcp + 4,
                )
                .row(new),
            );
        } else {
            let extended = self
                .out(ACK, &data)
                .extensions(&[(HOP_BY_HOP, extension(0, 8))]);
            cases.push(
                cut(
                    leaves("three segments with an extension", extended),
                    3,
                    3,
                    tcp + 8,
                )
                .row(new),
            );
        }
        cases
    }
}
