//! ICMP and ICMPv6 errors: those about a connection that is handed on go the same way.

use demux_common::{
    protocol::Protocol,
    reason::{Reason, Stage},
};

use super::{
    FAMILIES, local,
    steering::{Table, To},
};
use crate::table::{
    check::{Case, RowAfter},
    frames::{
        ACK, DESTINATION_OPTIONS, FRAGMENT, Frame, HOP_BY_HOP, OTHER_MAC, SEQUENCE, datagram,
        extension, fragment, raw_ip, segment,
    },
    world::{EPOCH, Entry, NO_CPU, SET_OF_NOBODY, World, steering},
};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in 0..FAMILIES.len() {
        for protocol in Protocol::ALL {
            for to in [To::Cpu, To::Set] {
                let table = Errors(Table {
                    family,
                    protocol,
                    to,
                });
                cases.extend(table.types());
                cases.extend(table.owners());
                cases.extend(table.quotations());
                cases.extend(table.envelopes());
            }
        }
    }
    cases
}

/// The numbers of ICMP and of ICMPv6.
const NUMBERS: [u8; 2] = [1, 58];

/// Who complains: a router on the way.
const ROUTER: [&str; 2] = ["10.0.0.77", "2001:db8::77"];

/// This host.
const HOST: [&str; 2] = ["10.0.0.2", "2001:db8::2"];

/// The types that are errors about a packet of this host.
const ERRORS: [&[u8]; 2] = [&[3, 4, 11, 12], &[1, 2, 3, 4]];

/// Those that are none: answers, questions, redirects, neighbours, and numbers that nobody has.
const OTHERS: [&[u8]; 2] = [
    &[0, 5, 8, 9, 10, 13, 14, 41, 255, 1],
    &[0, 5, 11, 100, 127, 128, 129, 133, 134, 135, 136, 137, 255],
];

struct Errors(Table);

impl Errors {
    fn named(&self, text: &str) -> String {
        self.0.named(&format!("an ICMP error: {text}"))
    }

    /// A packet of the connection that this host has sent.
    fn sent(&self) -> Frame {
        self.sent_from(&self.0.own())
    }

    fn sent_from(&self, own: &str) -> Frame {
        match self.0.protocol {
            Protocol::Tcp => segment(own, self.0.remote(), ACK, SEQUENCE, b"an answer"),
            Protocol::Udp => datagram(own, self.0.remote(), b"an answer"),
        }
    }

    /// An error of a type that quotes these bytes.
    fn error_of(&self, kind: u8, quotation: &[u8]) -> Frame {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0], quotation].concat();
        let family = self.0.family;
        raw_ip(ROUTER[family], HOST[family], NUMBERS[family], &message)
    }

    /// That a packet did not arrive, of which so much is quoted behind its IP header.
    fn error(&self, packet: &Frame, length: usize) -> Frame {
        let quotation = &packet.bytes[packet.network..packet.transport + length];
        self.error_of(ERRORS[self.0.family][0], quotation)
    }

    fn usual(&self) -> Frame {
        self.error(&self.sent(), 8)
    }

    fn world(&self) -> World {
        steering()
            .with([self.0.bound("*:80")])
            .with_row(self.0.row().of_binding(1))
    }

    fn taken(&self, text: &str, world: World, frame: Frame) -> Case {
        Case::redirect(
            self.named(text),
            world,
            frame,
            Stage::Connection,
            Reason::IcmpError,
            self.0.place(),
        )
        .of_binding(1)
    }

    fn passed(&self, text: &str, world: World, frame: Frame) -> Case {
        Case::pass(
            self.named(text),
            world,
            frame,
            Stage::Parse,
            Reason::OtherProtocol,
        )
    }

    fn types(&self) -> Vec<Case> {
        let sent = self.sent();
        let quotation = &sent.bytes[sent.network..sent.transport + 8];
        let errors = ERRORS[self.0.family].iter().map(|kind| {
            let frame = self.error_of(*kind, quotation);
            self.taken(&format!("type {kind}"), self.world(), frame)
        });
        let others = OTHERS[self.0.family].iter().map(|kind| {
            let frame = self.error_of(*kind, quotation);
            self.passed(&format!("type {kind}"), self.world(), frame)
        });
        errors.chain(others).collect()
    }

    /// Whose the connection is.
    fn owners(&self) -> Vec<Case> {
        let bound = || steering().with([self.0.bound("*:80")]);
        let row = || self.0.row();
        let mut cases = vec![
            self.passed("about no connection", bound(), self.usual()),
            self.passed(
                "about another connection",
                self.world(),
                self.error(&self.sent_from(&local(self.0.family, 81)), 8),
            ),
            self.passed(
                "about a connection of the stack",
                bound().with_row(row()),
                self.usual(),
            ),
            self.passed(
                "about a connection of a binding to the stack",
                steering()
                    .with([self.0.plain("*:80")])
                    .with_row(row().of_binding(1)),
                self.usual(),
            ),
            self.passed(
                "about a connection of a binding that drops",
                steering()
                    .with([self.0.plain("*:80").drop()])
                    .with_row(row().of_binding(1)),
                self.usual(),
            ),
            self.taken(
                "about a connection from before the last change",
                bound().with_row(row().of_binding(1).outdated()),
                self.usual(),
            ),
            self.passed(
                "about a connection whose binding has ended",
                steering()
                    .freed(1, EPOCH)
                    .with_row(row().of_binding(1).outdated()),
                self.usual(),
            ),
            self.passed(
                "about a connection whose binding's entry is another's now",
                steering()
                    .with([self.0.bound("*:80").created(EPOCH).after_steered(EPOCH)])
                    .with_row(row().of_binding(1).outdated()),
                self.usual(),
            ),
            self.passed(
                "about a connection that has expired",
                bound().with_row(row().of_binding(1).aged(2 * 86_400)),
                self.usual(),
            )
            .row(RowAfter::Expired),
            Case::pass(
                self.named("on an interface without an entry"),
                self.world().entered(Entry::Missing),
                self.usual(),
                Stage::Default,
                Reason::Unconfigured,
            ),
        ];
        for falls_back in [false, true] {
            let bound = match self.0.to {
                To::Cpu => self.0.plain("*:80").to_cpus(&[NO_CPU]),
                To::Set => self.0.plain("*:80").to_set(SET_OF_NOBODY),
            };
            let bound = if falls_back { bound.or_stack() } else { bound };
            let outcome = if falls_back { "passed" } else { "dropped" };
            let case = Case::pass(
                self.named(&format!("that nobody takes, {outcome}")),
                steering().with([bound]).with_row(row().of_binding(1)),
                self.usual(),
                Stage::Connection,
                Reason::NoTarget,
            )
            .of_binding(1);
            cases.push(if falls_back { case } else { case.dropping() });
        }
        cases
    }

    /// What is quoted.
    fn quotations(&self) -> Vec<Case> {
        let sent = || self.sent();
        let taken = |text: &str, frame| self.taken(text, self.world(), frame);
        let passed = |text: &str, frame| self.passed(text, self.world(), frame);
        let whole = sent().bytes.len() - sent().transport;
        let reversed = match self.0.protocol {
            Protocol::Tcp => segment(self.0.remote(), &self.0.own(), ACK, SEQUENCE, b"data"),
            Protocol::Udp => datagram(self.0.remote(), &self.0.own(), b"data"),
        };
        let mut cases = vec![
            taken("quoting the whole packet", self.error(&sent(), whole)),
            taken("quoting the ports", self.error(&sent(), 4)),
            passed("quoting less than the ports", self.error(&sent(), 3)),
            passed("quoting no transport header", self.error(&sent(), 0)),
            passed(
                "quoting less than a header",
                self.error_of(ERRORS[self.0.family][0], &sent().bytes[14..33]),
            ),
            passed(
                "quoting nothing",
                self.error_of(ERRORS[self.0.family][0], &[]),
            ),
            passed(
                "quoting no IP",
                self.error_of(ERRORS[self.0.family][0], &[0x50; 64]),
            ),
            // Its source is not the host that is told.
            passed("quoting a packet of the remote", self.error(&reversed, 8)),
            passed(
                "quoting a packet of another protocol",
                self.error(&sent().ip([9, 6][self.0.family], &[47]), 8),
            ),
        ];
        if self.0.family == 0 {
            cases.extend([
                taken("quoting options", self.error(&sent().options(&[1; 40]), 8)),
                taken(
                    "quoting a first fragment",
                    self.error(&sent().ip(6, &[0x20, 0]), 8),
                ),
                passed(
                    "quoting a later fragment",
                    self.error(&sent().ip(6, &[0x20, 9]), 8),
                ),
                passed(
                    "quoting a header shorter than one",
                    self.error(&sent().ip(0, &[0x44]), 8),
                ),
            ]);
        } else {
            let options = |kind| (kind, extension(0, 8));
            let at = |offset| (FRAGMENT, fragment(offset, true));
            cases.extend([
                taken(
                    "quoting extension headers",
                    self.error(
                        &sent().extensions(&[options(HOP_BY_HOP), options(DESTINATION_OPTIONS)]),
                        8,
                    ),
                ),
                taken(
                    "quoting a first fragment",
                    self.error(&sent().extensions(&[at(0)]), 8),
                ),
                passed(
                    "quoting a later fragment",
                    self.error(&sent().extensions(&[at(80)]), 8),
                ),
                passed(
                    "quoting half an extension header",
                    self.error_of(
                        ERRORS[1][0],
                        &sent().extensions(&[options(HOP_BY_HOP)]).bytes[14..14 + 44],
                    ),
                ),
            ]);
        }
        cases
    }

    /// What it comes in.
    fn envelopes(&self) -> Vec<Case> {
        let taken = |text: &str, frame| self.taken(text, self.world(), frame);
        let passed = |text: &str, frame| self.passed(text, self.world(), frame);
        let other = [16, 24][self.0.family];
        let last = if self.0.family == 0 { 3 } else { 15 };
        let mut cases = vec![
            taken("with a tag", self.usual().tag(0x8100, 5)),
            taken("with two tags", self.usual().tag(0x8100, 5).tag(0x88a8, 6)),
            taken("with padding", self.usual().padded(9)),
            Case::pass(
                self.named("to another station"),
                self.world(),
                self.usual().station(OTHER_MAC),
                Stage::Parse,
                Reason::OtherProtocol,
            ),
            passed(
                "to another address than the packet was from",
                self.usual().ip(other + last, &[3]),
            ),
            passed(
                "of the other version's protocol",
                self.usual()
                    .ip([9, 6][self.0.family], &[NUMBERS[1 - self.0.family]]),
            ),
        ];
        if self.0.family == 0 {
            cases.push(taken("behind options", self.usual().options(&[1; 8])));
        } else {
            let frame = self.usual().extensions(&[(HOP_BY_HOP, extension(0, 8))]);
            cases.push(taken("behind an extension header", frame));
        }
        cases
    }
}
