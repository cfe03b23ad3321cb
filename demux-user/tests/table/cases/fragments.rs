//! Fragments: the first tells whose a packet is, and the later ones follow it.

use demux_common::{
    connection::State,
    protocol::Protocol,
    reason::{Reason, Stage},
};

use super::{
    FAMILIES, local,
    steering::{Table, To},
};
use crate::table::{
    check::{Case, Way},
    frames::{
        DESTINATION_OPTIONS, FRAGMENT, Frame, HOP_BY_HOP, OTHER_MAC, extension, fragment, packet,
        raw_ip,
    },
    steering::{HandedTo, Kept},
    world::{
        EPOCH, FIRST_SLOT, LONGEST, NO_CPU, Row, SET_OF_NOBODY, Said, World, dropping, rejecting,
        steering,
    },
};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in 0..FAMILIES.len() {
        for protocol in Protocol::ALL {
            for to in [To::Cpu, To::Set] {
                let table = Fragments(Table {
                    family,
                    protocol,
                    to,
                });
                cases.extend(table.first());
                cases.extend(table.later());
                cases.extend(table.of_others());
                if family == 1 {
                    cases.extend(table.behind_extensions());
                }
            }
        }
    }
    cases
}

/// ICMPv6, which has no ports.
const ICMPV6: u8 = 58;

struct Fragments(Table);

impl Fragments {
    fn named(&self, text: &str) -> String {
        self.0.named(&format!("a fragment: {text}"))
    }

    /// The first fragment of a packet of the connection, which is not the whole of it.
    fn beginning(&self) -> Frame {
        self.beginning_to(80)
    }

    fn beginning_to(&self, port: u16) -> Frame {
        let own = local(self.0.family, port);
        let frame = packet(self.0.protocol, self.0.remote(), &own);
        if self.0.family == 0 {
            frame.ip(6, &[0x20, 0]).ip(4, &[0, Kept::ID as u8])
        } else {
            frame.extensions(&[(FRAGMENT, fragment(0, true))])
        }
    }

    /// A later one, which is the last if there are no `more`.
    fn rest(&self, more: bool) -> Frame {
        self.rest_of(self.0.protocol.ip_number(), more)
    }

    fn rest_of(&self, number: u8, more: bool) -> Frame {
        let (remote, own) =
            [("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2")][self.0.family];
        let frame = raw_ip(remote, own, number, &[0xa5; 64]);
        if self.0.family == 0 {
            let flags = if more { 0x20 } else { 0 };
            frame.ip(6, &[flags, 185]).ip(4, &[0, Kept::ID as u8])
        } else {
            frame.extensions(&[(FRAGMENT, fragment(1480, more))])
        }
    }

    fn world(&self) -> World {
        steering().with([self.0.bound("*:80")])
    }

    fn kept(&self) -> Kept {
        self.kept_of(self.0.protocol, 1)
    }

    fn kept_of(&self, protocol: Protocol, binding: u16) -> Kept {
        Kept::new(protocol, self.0.remote(), &self.0.own(), binding)
    }

    fn taken(&self, text: &str, world: World, frame: Frame) -> Case {
        Case::redirect(
            self.named(text),
            world,
            frame,
            Stage::Binding,
            Reason::Fragment,
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
            Reason::Fragment,
        )
    }

    fn dropped(&self, text: &str, world: World, frame: Frame) -> Case {
        Case::drop(
            self.named(text),
            world,
            frame,
            Stage::Binding,
            Reason::Fragment,
        )
        .of_binding(1)
    }

    fn first(&self) -> Vec<Case> {
        let first = || self.beginning();
        let strange = ["10.0.0.99", "2001:db8::99"][self.0.family];
        let destination = match self.0.family {
            0 => (16, vec![10, 0, 0, 99]),
            _ => {
                let address: std::net::Ipv6Addr = strange.parse().expect("an address");
                (24, address.octets().to_vec())
            }
        };
        // With one that goes nowhere beside it, the row decides.
        let vain = match self.0.to {
            To::Cpu => self.0.plain("*:80").to_cpus(&[NO_CPU]),
            To::Set => self.0.plain("*:80").to_set(SET_OF_NOBODY),
        };
        let beside = || steering().with([self.0.bound("*:81"), vain.clone()]);
        let mut cases = vec![
            self.taken("the first", self.world(), first())
                .keeps(self.kept()),
            self.taken(
                "the first, with a tag",
                self.world(),
                first().tag(0x8100, 5),
            )
            .keeps(self.kept()),
            self.taken(
                "the first of an untracked binding",
                steering().with([self.0.bound("*:80").untracked()]),
                first(),
            )
            .keeps(self.kept()),
            self.taken(
                "the first under an identification that was another's",
                self.world().keeping(self.kept_of(self.0.protocol, 9)),
                first(),
            )
            .keeps(self.kept()),
            self.taken(
                "the first of a connection that has a row",
                beside().with_row(self.0.row().of_binding(1)),
                first(),
            )
            .keeps(self.kept()),
            self.taken(
                "the first of a connection that has a row from before",
                beside().with_row(self.0.row().of_binding(1).outdated()),
                first(),
            )
            .keeps(self.kept()),
            self.passed(
                "the first of a connection of the stack",
                self.world().with_row(self.0.row()),
                first(),
            ),
            self.taken(
                "the first where a row only holds the port",
                self.world().with_row(Row {
                    said: Said::udp(State::Reserved, 0),
                    ..self.0.row()
                }),
                first(),
            )
            .keeps(self.kept()),
            self.passed(
                "the first to another station",
                self.world(),
                first().station(OTHER_MAC),
            ),
            self.passed(
                "the first to a strange address",
                self.world(),
                first().ip(destination.0, &destination.1),
            ),
            self.passed(
                "the first where only the header of IP is within the frame",
                self.world(),
                if self.0.family == 0 {
                    let frame = first().ip(2, &[0, 22]);
                    let end = frame.transport + 2;
                    frame.cut(end)
                } else {
                    let frame = first().ip(4, &[0, 10]);
                    let end = frame.transport + 2;
                    frame.cut(end)
                },
            ),
            self.passed("the first of nobody's", self.world(), self.beginning_to(81)),
            self.passed(
                "the first of a packet for the stack, whose identification was another's",
                self.world().keeping(self.kept()),
                self.beginning_to(81),
            )
            .keeps({
                let own = local(self.0.family, 81);
                Kept::new(self.0.protocol, self.0.remote(), &own, 0)
            }),
        ];
        for falls_back in [false, true] {
            let bound = if falls_back {
                vain.clone().or_stack()
            } else {
                vain.clone()
            };
            for (text, frame, kept) in [
                ("the first", first(), None),
                ("a later one", self.rest(true), Some(self.kept())),
            ] {
                let mut world = steering().with([bound.clone()]);
                world.kept.clone_from(&kept);
                let outcome = if falls_back { "passed" } else { "dropped" };
                let mut case = Case::pass(
                    self.named(&format!("{text} that nobody takes, {outcome}")),
                    world,
                    frame,
                    Stage::Binding,
                    Reason::NoTarget,
                )
                .of_binding(1);
                if kept.is_none() {
                    case = case.keeps(self.kept());
                }
                cases.push(if falls_back { case } else { case.dropping() });
            }
        }
        if self.0.to == To::Set {
            let length = LONGEST as usize + 1 - first().bytes.len();
            cases.push(
                Case::drop(
                    self.named("the first, too long"),
                    self.world(),
                    first().padded(length),
                    Stage::Binding,
                    Reason::TooLong,
                )
                .of_binding(1)
                .keeps(self.kept()),
            );
            let mut case = self.taken(
                "the first, by another queue",
                self.world().by_queue(2),
                first(),
            );
            case.handed = Some(HandedTo::Socket(u32::from(FIRST_SLOT + 2)));
            cases.push(case.keeps(self.kept()));
        }
        cases
    }

    fn later(&self) -> Vec<Case> {
        let after = |kept: Kept| self.world().keeping(kept);
        let rest = || self.rest(true);
        let mut other_id = self.kept();
        other_id.datagram.id = 8;
        let mut other_sender = self.kept();
        other_sender.datagram.source = other_sender.datagram.destination;
        let other = match self.0.protocol {
            Protocol::Tcp => Protocol::Udp,
            Protocol::Udp => Protocol::Tcp,
        };
        let mut from_before = self.kept();
        from_before.owner.epoch = EPOCH - 1;
        let mut cases = vec![
            self.taken("one in the middle", after(self.kept()), rest()),
            self.taken("the last", after(self.kept()), self.rest(false)),
            self.taken(
                "the last, with a tag",
                after(self.kept()),
                self.rest(false).tag(0x8100, 5),
            ),
            self.taken("a late one", after(self.kept().aged(25)), rest()),
            self.taken(
                "one from before the last change of the bindings",
                after(from_before.clone()),
                rest(),
            ),
            self.passed("one without a first", self.world(), rest()),
            self.passed(
                "one that comes too late",
                after(self.kept().aged(31)),
                rest(),
            ),
            self.passed("one of another packet", after(other_id), rest()),
            self.passed("one of another sender", after(other_sender), rest()),
            self.passed(
                "one to another station",
                after(self.kept()),
                rest().station(OTHER_MAC),
            ),
            self.passed(
                "one whose binding has ended",
                steering().freed(1, EPOCH).keeping(from_before.clone()),
                rest(),
            ),
            self.passed(
                "one whose binding's entry is another's now",
                steering()
                    .with([self.0.bound("*:80").created(EPOCH)])
                    .keeping(from_before),
                rest(),
            ),
            self.passed(
                "one of a packet for the stack, whose identification was another's",
                after(self.kept_of(self.0.protocol, 0)),
                rest(),
            ),
        ];
        let of_another = "one of another protocol";
        cases.push(if self.0.family == 0 {
            self.passed(of_another, after(self.kept_of(other, 1)), rest())
        } else {
            // Only the first fragment tells what is inside.
            self.taken(of_another, after(self.kept_of(other, 1)), rest())
        });
        cases
    }

    /// Of bindings that are not steered.
    fn of_others(&self) -> Vec<Case> {
        // Not twice.
        if self.0.to == To::Set {
            return Vec::new();
        }
        let to_stack = || dropping().with([self.0.plain("*:80")]);
        let gone = || dropping().with([self.0.plain("*:80").drop()]);
        let refusing = || rejecting().with([self.0.plain("*:80").reject()]);
        vec![
            self.passed("the first to the stack", to_stack(), self.beginning()),
            self.passed("a later one to the stack", to_stack(), self.rest(true)),
            self.dropped("the first to be dropped", gone(), self.beginning())
                .keeps(self.kept()),
            self.dropped(
                "a later one to be dropped",
                gone().keeping(self.kept()),
                self.rest(true),
            ),
            self.passed(
                "the first to be dropped, of a connection of the stack",
                gone().with_row(self.0.row()),
                self.beginning(),
            ),
            self.passed("the first to be refused", refusing(), self.beginning()),
            self.passed("a later one to be refused", refusing(), self.rest(true)),
        ]
    }

    /// Extension headers around the fragment header.
    fn behind_extensions(&self) -> Vec<Case> {
        let options = |kind| (kind, extension(0, 8));
        let at = |offset, more| (FRAGMENT, fragment(offset, more));
        let whole = || self.0.first();
        let number = self.0.protocol.ip_number();
        let rest = || raw_ip("2001:db8::1", "2001:db8::2", number, &[0xa5; 64]);
        let kept = || self.kept();
        vec![
            self.taken(
                "the first behind options",
                self.world(),
                whole().extensions(&[
                    options(HOP_BY_HOP),
                    options(DESTINATION_OPTIONS),
                    at(0, true),
                ]),
            )
            .keeps(kept()),
            self.taken(
                "a later one behind options",
                self.world().keeping(kept()),
                rest().extensions(&[
                    options(HOP_BY_HOP),
                    options(DESTINATION_OPTIONS),
                    at(80, true),
                ]),
            ),
            self.taken(
                "the first before options",
                self.world(),
                whole().extensions(&[at(0, true), options(DESTINATION_OPTIONS)]),
            )
            .keeps(kept()),
            // What comes first within the packet is said in every fragment.
            self.taken(
                "a later one of a packet that begins with options",
                self.world().keeping(kept()),
                raw_ip(
                    "2001:db8::1",
                    "2001:db8::2",
                    DESTINATION_OPTIONS,
                    &[0xa5; 64],
                )
                .extensions(&[at(80, true)]),
            ),
            self.passed(
                "the first of a packet without ports, whose identification was another's",
                self.world().keeping(kept()),
                raw_ip("2001:db8::1", "2001:db8::2", ICMPV6, &[0x80; 64])
                    .extensions(&[at(0, true)]),
            )
            .keeps({
                let mut forgotten = kept();
                forgotten.owner.binding = 0;
                forgotten.owner.local_port = 0;
                forgotten.owner.remote_port = 0;
                forgotten.owner.protocol = u32::from(Protocol::Tcp.ip_number());
                forgotten
            }),
            self.taken(
                "none at all, but with a fragment header",
                self.world(),
                whole().extensions(&[at(0, false)]),
            )
            .row(self.0.opened())
            .because(Reason::Bound),
        ]
    }
}

impl Case {
    fn because(mut self, reason: Reason) -> Self {
        if let Way::In(expected) = &mut self.way {
            expected.reason = reason;
        }
        self
    }
}
