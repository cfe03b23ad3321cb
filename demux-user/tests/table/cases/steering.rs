//! Packets that are handed to other CPUs and to AF_XDP sockets: which are, to where, and what becomes of
//! those that nobody takes.

use demux_common::{
    binding::Target,
    connection::{Direction, State},
    protocol::Protocol,
    reason::{Reason, Stage, Verdict},
    tcp::Marks,
    udp::{ANSWERED, REMOTE_SENT},
};

use super::{
    FAMILIES, REMOTE, local,
    rows::{NEXT, confirmed, followed, says},
};
use crate::table::{
    check::{Case, Made, RowAfter, Way},
    frames::{
        self, ACK, DESTINATION_OPTIONS, FIN, Frame, HOP_BY_HOP, OTHER_MAC, RST, SEQUENCE, SYN,
        extension, packet, segment,
    },
    steering::HandedTo,
    world::{
        Bound, CPU, EPOCH, FIRST_SLOT, GONE, LONGEST, NO_CPU, Probation, Row, SET, SET_ELSEWHERE,
        SET_OF_NOBODY, Said, World, key, passing, rejecting, steering,
    },
};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in 0..FAMILIES.len() {
        for protocol in Protocol::ALL {
            for to in [To::Cpu, To::Set] {
                let table = Table {
                    family,
                    protocol,
                    to,
                };
                cases.extend(table.new_connections());
                cases.extend(table.connections());
                cases.extend(table.not_handed_on());
                cases.extend(table.not_taken());
                cases.extend(table.reconfigured());
                cases.extend(table.leaving());
                cases.extend(table.checksums());
            }
        }
    }
    cases
}

/// To what kind of target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Cpu,
    Set,
}

/// One family, protocol and kind of target.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) family: usize,
    pub(super) protocol: Protocol,
    pub(super) to: To,
}

impl Table {
    pub(super) fn named(&self, text: &str) -> String {
        let to = match self.to {
            To::Cpu => "a CPU",
            To::Set => "a socket",
        };
        format!(
            "to {to}, {} over {}: {text}",
            self.protocol.name(),
            FAMILIES[self.family]
        )
    }

    pub(super) const fn remote(&self) -> &'static str {
        REMOTE[self.family]
    }

    pub(super) fn own(&self) -> String {
        local(self.family, 80)
    }

    pub(super) fn plain(&self, local: &str) -> Bound {
        Bound::new(self.protocol, local)
    }

    pub(super) fn bound(&self, local: &str) -> Bound {
        match self.to {
            To::Cpu => self.plain(local).to_cpus(&[CPU]),
            To::Set => self.plain(local).to_set(SET),
        }
    }

    /// Bound to what takes nothing.
    fn in_vain(&self, local: &str) -> Bound {
        match self.to {
            To::Cpu => self.plain(local).to_cpus(&[NO_CPU]),
            To::Set => self.plain(local).to_set(SET_OF_NOBODY),
        }
    }

    /// Where what is bound goes that comes by the first queue.
    pub(super) fn place(&self) -> HandedTo {
        match self.to {
            To::Cpu => HandedTo::Cpu(u32::from(CPU)),
            To::Set => HandedTo::Socket(u32::from(FIRST_SLOT)),
        }
    }

    /// What opens a connection.
    pub(super) fn first(&self) -> Frame {
        packet(self.protocol, self.remote(), &self.own())
    }

    /// A packet in the middle of a connection.
    pub(super) fn next(&self) -> Frame {
        self.next_to(&self.own())
    }

    fn next_to(&self, local: &str) -> Frame {
        match self.protocol {
            Protocol::Tcp => segment(self.remote(), local, ACK, NEXT, b"data"),
            Protocol::Udp => frames::udp(self.remote(), local),
        }
    }

    fn made(&self, local: &str, said: Said) -> Made {
        Made::new(
            key(self.protocol, self.remote(), local),
            said,
            Direction::In,
        )
    }

    /// The row of what opens a connection.
    pub(super) fn opened(&self) -> RowAfter {
        let said = match self.protocol {
            Protocol::Tcp => Said::syn(SEQUENCE + 1),
            Protocol::Udp => Said::udp(State::Unreplied, REMOTE_SENT),
        };
        RowAfter::Made(self.made(&self.own(), said))
    }

    /// The row of a packet in the middle of a connection, in the place of one that has ended.
    fn reopened(&self, local: &str) -> RowAfter {
        let said = match self.protocol {
            Protocol::Tcp => Said::remote(State::Established, NEXT + 4),
            Protocol::Udp => Said::udp(State::Unreplied, REMOTE_SENT),
        };
        RowAfter::Reopened(self.made(local, said))
    }

    pub(super) fn row(&self) -> Row {
        self.row_to(&self.own())
    }

    fn row_to(&self, local: &str) -> Row {
        match self.protocol {
            Protocol::Tcp => Row::tcp(self.remote(), local, State::Established, NEXT),
            Protocol::Udp => Row::udp(self.remote(), local, State::Assured),
        }
    }

    /// What a packet in the middle of a connection makes of its row.
    fn goes_on(&self) -> RowAfter {
        match self.protocol {
            Protocol::Tcp => followed(State::Established, NEXT + 4),
            Protocol::Udp => confirmed(Said::udp(State::Assured, REMOTE_SENT | ANSWERED)),
        }
    }

    fn new(&self, text: &str, world: World, frame: Frame) -> Case {
        self.new_at(text, world, frame, self.place())
    }

    fn new_at(&self, text: &str, world: World, frame: Frame, to: HandedTo) -> Case {
        Case::redirect(
            self.named(text),
            world,
            frame,
            Stage::Binding,
            Reason::Bound,
            to,
        )
        .of_binding(1)
        .row(self.opened())
    }

    fn hit(&self, text: &str, world: World, frame: Frame, row: RowAfter) -> Case {
        Case::redirect(
            self.named(text),
            world,
            frame,
            Stage::Connection,
            Reason::Connection,
            self.place(),
        )
        .of_binding(1)
        .row(row)
    }

    /// The same frame in every dress.
    fn dressed(&self, frame: impl Fn() -> Frame) -> Vec<(&'static str, Frame)> {
        let mut dressed = vec![
            ("plain", frame()),
            ("with a tag", frame().tag(0x8100, 5)),
            ("with two tags", frame().tag(0x8100, 5).tag(0x88a8, 6)),
            ("with padding", frame().padded(9)),
        ];
        if self.family == 0 {
            dressed.push(("with options", frame().options(&[1; 8])));
            dressed.push((
                "with options and a tag",
                frame().options(&[1; 40]).tag(0x8100, 5),
            ));
        } else {
            let options = |kind| (kind, extension(0, 8));
            dressed.push((
                "with an extension header",
                frame().extensions(&[options(HOP_BY_HOP)]),
            ));
            dressed.push((
                "with extension headers and a tag",
                frame()
                    .extensions(&[options(HOP_BY_HOP), options(DESTINATION_OPTIONS)])
                    .tag(0x8100, 5),
            ));
        }
        dressed
    }

    fn new_connections(&self) -> Vec<Case> {
        let world = || steering().with([self.bound("*:80")]);
        let mut cases: Vec<Case> = self
            .dressed(|| self.first())
            .into_iter()
            .map(|(text, frame)| self.new(&format!("a new connection, {text}"), world(), frame))
            .collect();
        let exact = self.own();
        cases.extend([
            self.new(
                "a new connection under a default of pass",
                World {
                    targets: steering().targets,
                    ..passing().with([self.bound(":80")])
                },
                self.first(),
            ),
            self.new(
                "a new connection under a default of reject",
                World {
                    targets: steering().targets,
                    ..rejecting().with([self.bound(":80")])
                },
                self.first(),
            ),
            self.new(
                "a new connection where only bound endpoints are tracked",
                world().tracking_bound(),
                self.first(),
            ),
            self.new(
                "a new connection where probation is over",
                world().on_probation(Probation::Over),
                self.first(),
            ),
            self.new(
                "a new connection to an exact address",
                steering().with([self.bound(&exact), self.plain("*:80").drop()]),
                self.first(),
            ),
            self.new(
                "a new connection of an untracked binding",
                steering().with([self.bound("*:80").untracked()]),
                self.first(),
            )
            .row(RowAfter::Same),
            self.new(
                "a packet that claims to come from its own destination",
                world(),
                packet(self.protocol, &exact, &exact),
            )
            .row(RowAfter::Same),
        ]);
        if self.protocol == Protocol::Tcp {
            cases.push(
                self.new(
                    "a reset of no connection",
                    world(),
                    segment(self.remote(), &exact, RST, NEXT, &[]),
                )
                .row(RowAfter::Same),
            );
            cases.push(
                self.new("data of an unknown connection", world(), self.next())
                    .row(RowAfter::Made(
                        self.made(&exact, Said::remote(State::Established, NEXT + 4)),
                    )),
            );
        }
        cases
    }

    fn connections(&self) -> Vec<Case> {
        let world = |row: Row| {
            steering()
                .with([self.bound("*:80")])
                .with_row(row.of_binding(1))
        };
        let mut cases = Vec::new();
        for (text, frame) in self.dressed(|| self.next()) {
            cases.push(self.hit(
                &format!("a row, {text}"),
                world(self.row()),
                frame.clone(),
                self.goes_on(),
            ));
            // Where nothing but the numbers changes, the shortest way is open.
            let steady = self.row().confirmed();
            let (steady, after) = match self.protocol {
                Protocol::Tcp => {
                    let said = Said::both(State::Established, NEXT);
                    let after = said.with_remote(NEXT + 4, said.remote.ack);
                    (steady.saying(said), confirmed(after))
                }
                Protocol::Udp => (steady, self.goes_on()),
            };
            cases.push(self.hit(
                &format!("a row of a connection under way, {text}"),
                world(steady.clone()),
                frame.clone(),
                after,
            ));
            let mut both = self.hit(
                &format!("a row of a connection under way, both sides seen, {text}"),
                world(steady).seeing_both(),
                frame,
                after,
            );
            if self.protocol == Protocol::Udp {
                both.row = self.goes_on();
            }
            cases.push(both);
        }
        if self.protocol == Protocol::Tcp {
            let reset = || segment(self.remote(), &self.own(), RST, NEXT, &[]);
            cases.extend([
                self.hit(
                    "a reset ends the row, and its owner gets it",
                    world(self.row()),
                    reset(),
                    RowAfter::Gone,
                ),
                self.hit(
                    "a FIN",
                    world(self.row()),
                    segment(self.remote(), &self.own(), FIN | ACK, NEXT, &[]),
                    followed(State::CloseWait, NEXT + 1),
                ),
                self.hit(
                    "a SYN on a connection that is under way",
                    world(self.row()),
                    segment(self.remote(), &self.own(), SYN, NEXT, &[]),
                    RowAfter::Followed {
                        said: Said::remote(State::Established, NEXT),
                        confirmed: false,
                        alive: false,
                    },
                ),
            ]);
        } else {
            cases.push(self.hit(
                "a datagram sent again",
                world(Row::udp(self.remote(), &self.own(), State::Unreplied)),
                self.first(),
                says(Said::udp(State::Unreplied, REMOTE_SENT)),
            ));
        }
        cases.push(self.new(
            "a row that has expired",
            world(self.row().aged(2 * 86_400)),
            self.first(),
        ));
        cases
    }

    /// What is not this host's to hand on.
    fn not_handed_on(&self) -> Vec<Case> {
        let world = || steering().with([self.bound("*:80")]);
        let strange = ["10.0.0.99:80", "[2001:db8::99]:80"][self.family];
        let gone = [format!("{}:80", GONE[0]), format!("[{}]:80", GONE[1])];
        let to = |local: &str| packet(self.protocol, self.remote(), local);
        let passed = |text: &str, world: World, frame, stage, reason| {
            Case::pass(self.named(text), world, frame, stage, reason)
        };
        vec![
            passed(
                "a packet to a strange address",
                world(),
                to(strange),
                Stage::Binding,
                Reason::NotLocal,
            ),
            passed(
                "a packet to an address that has gone and is forwarded",
                world().forwarding(),
                to(&gone[self.family]),
                Stage::Binding,
                Reason::NotLocal,
            ),
            passed(
                "a frame to another station",
                world(),
                self.first().station(OTHER_MAC),
                Stage::Parse,
                Reason::OtherHost,
            ),
            passed(
                "a frame to another station, of a connection",
                world().with_row(self.row().of_binding(1).confirmed()),
                self.next().station(OTHER_MAC),
                Stage::Parse,
                Reason::OtherHost,
            ),
            passed(
                "a frame to a group of stations",
                world(),
                self.first().station([0x01, 0, 0x5e, 0, 0, 1]),
                Stage::Parse,
                Reason::Multicast,
            ),
            self.hit(
                "a row of a binding to the stack",
                steering()
                    .with([self.plain("*:80")])
                    .with_row(self.row().of_binding(1)),
                self.next(),
                self.goes_on(),
            )
            .to_stack(),
            self.hit(
                "a row of no binding, of the present epoch",
                world().with_row(self.row()),
                self.next(),
                self.goes_on(),
            )
            .to_stack()
            .of_binding(0),
        ]
    }

    /// Why nobody takes a packet, and what is then bound to what by which queue.
    fn obstacles(&self) -> Vec<(&'static str, Reason, Bound, u32, usize)> {
        let local = "*:80";
        match self.to {
            To::Cpu => vec![(
                "the CPU takes no packets",
                Reason::NoTarget,
                self.in_vain(local),
                0,
                0,
            )],
            To::Set => {
                let length = self.next().bytes.len();
                let over = (LONGEST as usize + 1).saturating_sub(length);
                let set = |set| self.plain(local).to_set(set);
                vec![
                    (
                        "nobody owns the set",
                        Reason::NoTarget,
                        set(SET_OF_NOBODY),
                        0,
                        0,
                    ),
                    (
                        "the set is elsewhere",
                        Reason::NoTarget,
                        set(SET_ELSEWHERE),
                        0,
                        0,
                    ),
                    ("there is no such set", Reason::NoTarget, set(60), 0, 0),
                    ("the slot is empty", Reason::NoTarget, set(SET), 1, 0),
                    (
                        "the queue is none of the set's",
                        Reason::NoTarget,
                        set(SET),
                        3,
                        0,
                    ),
                    ("the frame is too long", Reason::TooLong, set(SET), 0, over),
                ]
            }
        }
    }

    /// Where nobody takes the packet.
    fn not_taken(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for (why, reason, bound, queue, over) in self.obstacles() {
            for falls_back in [false, true] {
                let bound = if falls_back {
                    bound.clone().or_stack()
                } else {
                    bound.clone()
                };
                let fallback = if falls_back { "passed" } else { "dropped" };
                let case = |text: &str, world: World, stage, row| {
                    let frame = self.next().padded(over);
                    let case = Case::pass(
                        self.named(&format!("{text}, {why}, {fallback}")),
                        world.by_queue(queue),
                        frame,
                        stage,
                        reason,
                    )
                    .of_binding(1)
                    .row(row);
                    if falls_back { case } else { case.dropping() }
                };
                let RowAfter::Reopened(made) = self.reopened(&self.own()) else {
                    unreachable!()
                };
                let world = || steering().with([bound.clone()]);
                cases.extend([
                    case(
                        "a new connection",
                        world(),
                        Stage::Binding,
                        RowAfter::Made(made),
                    ),
                    case(
                        "a row",
                        world().with_row(self.row().of_binding(1)),
                        Stage::Connection,
                        self.goes_on(),
                    ),
                ]);
                if self.protocol == Protocol::Tcp {
                    let said = Said::both(State::Established, NEXT);
                    let row = self.row().saying(said).confirmed().of_binding(1);
                    cases.push(case(
                        "a row of a connection under way",
                        world().with_row(row),
                        Stage::Connection,
                        confirmed(said.with_remote(NEXT + 4, said.remote.ack)),
                    ));
                }
            }
        }
        if self.to == To::Set {
            let case = |text: &str, queue, slot: u16, frame: Frame| {
                self.new_at(
                    text,
                    steering().with([self.bound("*:80")]).by_queue(queue),
                    frame,
                    HandedTo::Socket(u32::from(slot)),
                )
            };
            let longest = LONGEST as usize - self.first().bytes.len();
            cases.extend([
                case("the last queue of the set", 2, FIRST_SLOT + 2, self.first()),
                case(
                    "a frame that is just not too long",
                    0,
                    FIRST_SLOT,
                    self.first().padded(longest),
                ),
            ]);
        }
        cases
    }

    /// Rows of another configuration.
    fn reconfigured(&self) -> Vec<Case> {
        let old = || self.row().outdated();
        let outdated = || old().of_binding(1);
        let next = || self.next();
        // The kernel has a connection there, over TCP, and over UDP a socket.
        let (served_remote, served_own) = match self.protocol {
            Protocol::Tcp => (
                self.remote().replace("40000", "40001"),
                local(self.family, 22),
            ),
            Protocol::Udp => (self.remote().to_owned(), local(self.family, 53)),
        };
        let served_row = || match self.protocol {
            Protocol::Tcp => {
                Row::tcp(&served_remote, &served_own, State::Established, NEXT).outdated()
            }
            Protocol::Udp => Row::udp(&served_remote, &served_own, State::Assured).outdated(),
        };
        let served = || match self.protocol {
            Protocol::Tcp => segment(&served_remote, &served_own, ACK, NEXT, b"data"),
            Protocol::Udp => frames::udp(&served_remote, &served_own),
        };
        // Over TCP the kernel is asked whether this host has consented.
        let served_goes_on = || match self.protocol {
            Protocol::Tcp => confirmed(Said::remote(State::Established, NEXT + 4)),
            Protocol::Udp => self.goes_on(),
        };
        let taken = |text: &str, world: World, binding| {
            Case::redirect(
                self.named(text),
                world,
                next(),
                Stage::Binding,
                Reason::Bound,
                self.place(),
            )
            .of_binding(binding)
            .row(self.reopened(&self.own()))
        };
        let kept = |text: &str, world: World| {
            self.hit(text, world, served(), served_goes_on())
                .to_stack()
                .of_binding(0)
        };
        let again = || self.bound("*:80").created(EPOCH);
        let narrow = self.own();
        let mut cases = vec![
            self.hit(
                "a row keeps its binding as long as that exists",
                steering().with([self.bound("*:80")]).with_row(outdated()),
                next(),
                self.goes_on(),
            ),
            self.hit(
                "a row keeps its binding beside a closer one to the stack",
                steering()
                    .with([self.bound("*:80"), self.plain(&narrow)])
                    .with_row(outdated()),
                next(),
                self.goes_on(),
            ),
            self.hit(
                "a row keeps its binding beside a closer one to elsewhere",
                steering()
                    .with([self.bound("*:80"), self.in_vain(&narrow)])
                    .with_row(outdated()),
                next(),
                self.goes_on(),
            ),
            self.hit(
                "a row keeps its binding, which is on another device now",
                steering()
                    .with([self.bound("*:80").elsewhere()])
                    .with_row(outdated()),
                next(),
                self.goes_on(),
            ),
            Case::drop(
                self.named("a row ends where a closer binding drops"),
                steering()
                    .with([self.bound("*:80"), self.plain(&narrow).drop()])
                    .with_row(outdated()),
                next(),
                Stage::Binding,
                Reason::Bound,
            )
            .of_binding(2)
            .row(RowAfter::Gone),
            Case::reject(
                self.named("a row ends where a closer binding rejects"),
                steering()
                    .with([self.bound("*:80"), self.plain(&narrow).reject()])
                    .with_row(outdated()),
                next(),
                Stage::Binding,
                Reason::Bound,
            )
            .of_binding(2)
            .row(RowAfter::Gone),
            Case::redirect(
                self.named("a row ends where a closer binding is not tracked"),
                steering()
                    .with([self.in_vain("*:80"), self.bound(&narrow).untracked()])
                    .with_row(outdated()),
                next(),
                Stage::Binding,
                Reason::Bound,
                self.place(),
            )
            .of_binding(2)
            .row(RowAfter::Gone),
            Case::pass(
                self.named("a row ends with its binding"),
                World {
                    targets: steering().targets,
                    ..passing().tracking_bound()
                }
                .freed(1, EPOCH)
                .with_row(outdated()),
                next(),
                Stage::Default,
                Reason::Unbound,
            )
            .row(RowAfter::Gone),
            Case::pass(
                self.named("a row ends with its binding, whose entry one to the stack has"),
                steering()
                    .with([self.plain("*:80").created(EPOCH).after_steered(EPOCH)])
                    .with_row(outdated()),
                next(),
                Stage::Binding,
                Reason::Bound,
            )
            .of_binding(1)
            .row(self.reopened(&self.own())),
            taken(
                "a row ends with its binding, whose entry another has",
                steering()
                    .with([again().after_steered(EPOCH)])
                    .with_row(outdated()),
                1,
            ),
            taken(
                "a row of a binding to the stack ends where a steered one has come instead",
                steering().with([again()]).with_row(outdated()),
                1,
            ),
            taken(
                "a row of nobody ends where a steered binding has come",
                steering().with([again()]).with_row(old()),
                1,
            ),
            taken(
                "a row of a binding to the stack ends where a closer steered one has come",
                steering()
                    .with([self.plain("*:80"), self.bound(&narrow)])
                    .with_row(outdated()),
                2,
            ),
            kept(
                "a row of nobody stays with the socket that the kernel has",
                steering()
                    .with([self.bound("*:*").created(EPOCH)])
                    .with_row(served_row()),
            ),
            kept(
                "a row of a binding to the stack stays with the socket that the kernel has",
                steering()
                    .with([self.plain("*:*"), self.bound(&served_own).created(EPOCH)])
                    .with_row(served_row().of_binding(1)),
            ),
            kept(
                "a row stays with the kernel's socket where the entry is a steered binding's now",
                steering()
                    .with([self.bound("*:*").created(EPOCH)])
                    .with_row(served_row().of_binding(1)),
            ),
            self.hit(
                "a row of a binding stays with the closer one to the stack",
                steering()
                    .with([self.bound("*:*"), self.plain(&narrow)])
                    .with_row(old().of_binding(2)),
                next(),
                self.goes_on(),
            )
            .to_stack()
            .of_binding(2),
        ];
        // Nobody has a socket of the kernel where that is not asked.
        let RowAfter::Reopened(mut made) = self.reopened(&served_own) else {
            unreachable!()
        };
        made.key = key(self.protocol, &served_remote, &served_own);
        cases.push(
            Case::redirect(
                self.named("a row ends where a steered binding has come and sockets are not asked"),
                steering()
                    .without_kernel_sockets()
                    .with([self.bound("*:*").created(EPOCH)])
                    .with_row(served_row()),
                served(),
                Stage::Binding,
                Reason::Bound,
                self.place(),
            )
            .of_binding(1)
            .row(RowAfter::Reopened(made)),
        );
        for member in [1, 2] {
            cases.push(
                self.hit(
                    &format!("a row keeps member {member} of its group"),
                    steering()
                        .with([
                            self.bound("*:80").with_member(2),
                            self.bound("*:80").with_member(1),
                        ])
                        .with_row(old().of_binding(member)),
                    next(),
                    self.goes_on(),
                )
                .of_binding(member),
            );
        }
        cases
    }

    /// What leaves from a steered endpoint.
    fn leaving(&self) -> Vec<Case> {
        let answer = || match self.protocol {
            Protocol::Tcp => segment(&self.own(), self.remote(), SYN | ACK, SEQUENCE, &[]),
            Protocol::Udp => frames::udp(&self.own(), self.remote()),
        };
        let said = match self.protocol {
            Protocol::Tcp => {
                let said = Said::local(State::SynReceived, SEQUENCE + 1);
                said.marked(Marks::REMOTE_SEEN)
                    .with_remote(said.local.ack, SEQUENCE)
            }
            Protocol::Udp => Said::udp(State::Unreplied, 0),
        };
        let direction = match self.protocol {
            Protocol::Tcp => Direction::In,
            Protocol::Udp => Direction::Out,
        };
        let made = RowAfter::Made(Made::new(
            key(self.protocol, self.remote(), &self.own()),
            said,
            direction,
        ));
        let mut cases = Vec::new();
        for is_reported in [false, true] {
            let how = if is_reported { "reported" } else { "seen" };
            let case = |text: &str, bound: Bound| {
                Case::leave(
                    self.named(&format!("{how} leaving: {text}")),
                    steering().seeing_both().with([bound]),
                    answer(),
                )
                .leaving(|leaving| leaving.is_reported = is_reported)
            };
            // The kernel sends for CPUs, and only reports tell what sockets send.
            let is_its_own = is_reported == (self.to == To::Set);
            let row = if is_its_own { made } else { RowAfter::Same };
            cases.extend([
                case("an answer", self.bound("*:80")).of_binding(1).row(row),
                case(
                    "an answer of an untracked binding",
                    self.bound("*:80").untracked(),
                ),
                case("an answer from another port", self.bound("*:81")).row(if is_reported {
                    RowAfter::Same
                } else {
                    made
                }),
            ]);
            let mut followed = case("data of a connection", self.bound("*:80"));
            let row = self.row().of_binding(1);
            let (row, frame, after) = match self.protocol {
                Protocol::Tcp => {
                    let said = Said::both(State::Established, NEXT);
                    let next = said.local.next;
                    let frame = segment(&self.own(), self.remote(), ACK, next, b"answer")
                        .acknowledging(NEXT);
                    let after = said.with_local(next + 6, NEXT);
                    (row.saying(said), frame, after)
                }
                Protocol::Udp => {
                    let marks = REMOTE_SENT | ANSWERED;
                    (row, answer(), Said::udp(State::Assured, marks))
                }
            };
            followed.world = followed.world.with_row(row);
            if let Way::Out(leaving) = &mut followed.way {
                leaving.bytes = frame.bytes.len() as u64;
                leaving.binding = 1;
            }
            followed.frame = frame.bytes;
            cases.push(followed.row(match self.protocol {
                Protocol::Tcp => confirmed(after),
                Protocol::Udp => says(after),
            }));
        }
        cases
    }

    /// Checksums that a sender has left to its device.
    fn checksums(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        // The last ones are in several buffers, which sockets of these lengths do not take.
        for length in [0, 1, 2, 3, 4, 5, 511, 512, 513, 1400, 4200, 4713] {
            if self.to == To::Set && length > 1400 {
                continue;
            }
            let data: Vec<u8> = (0..length).map(|at: u32| (at * 7 + 3) as u8).collect();
            let frame = || match self.protocol {
                Protocol::Tcp => segment(self.remote(), &self.own(), SYN, SEQUENCE, &data),
                Protocol::Udp => frames::datagram(self.remote(), &self.own(), &data),
            };
            let said = match self.protocol {
                Protocol::Tcp => Said::syn(SEQUENCE + 1 + length),
                Protocol::Udp => Said::udp(State::Unreplied, REMOTE_SENT),
            };
            // The long ones are cut at every length elsewhere.
            let dressed = if length == 5 {
                self.dressed(frame)
            } else {
                vec![("plain", frame())]
            };
            for (text, frame) in dressed {
                let world = || steering().with([self.bound("*:80")]);
                let partial = frame.clone().partially_summed();
                let case = |text: &str, frame| {
                    self.new(text, world(), frame)
                        .row(RowAfter::Made(self.made(&self.own(), said)))
                };
                let text = format!("{length} bytes {text}");
                let whole = case(&format!("a partial checksum of {text}"), partial);
                cases.push(match self.to {
                    To::Cpu => whole.changed_to(frame.clone().summed()),
                    // Whoever has the socket is told nothing either, and sees the frame as it came.
                    To::Set => whole,
                });
                cases.push(case(
                    &format!("a wrong checksum of {text}"),
                    frame.clone().wrongly_summed(),
                ));
            }
        }
        if self.protocol == Protocol::Udp {
            cases.push(self.new(
                "a datagram without a checksum",
                steering().with([self.bound("*:80")]),
                self.first().transport(6, &[0, 0]),
            ));
        }
        cases
    }
}

impl Case {
    /// The same, but up the stack.
    fn to_stack(mut self) -> Self {
        self.handed = None;
        self.outcome_is(Verdict::Pass, Target::Stack)
    }

    /// The same, but dropped.
    pub(super) fn dropping(self) -> Self {
        self.outcome_is(Verdict::Drop, Target::Drop)
    }
}
