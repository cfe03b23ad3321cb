//! What is expected of a packet, and whether that and nothing else has happened.

use std::collections::HashMap;

use demux_common::{
    binding::Target,
    connection::{Connection, ConnectionKey, Direction, since},
    counters::{InterfaceCounters, TableCounters},
    decide::Decision,
    explanation::Explanation,
    fragments::{Datagram, LIFETIME, Owner},
    protocol::Protocol,
    reason::{Count, Reason, Stage, Verdict},
    table::Flags,
    tcp::Half,
};

use super::{
    answer,
    frames::Frame,
    row::Said,
    steering::{HandedTo, Kept},
    world::{EPOCH, World},
};

/// One packet in one world.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub frame: Vec<u8>,
    pub world: World,
    pub way: Way,
    pub row: RowAfter,
    /// What becomes of a packet that is to be rejected, where it is not answered.
    pub unanswered: Option<(Verdict, Reason)>,
    /// Where it is handed to.
    pub handed: Option<HandedTo>,
    /// What is remembered from now on of the packet that it is a fragment of.
    pub kept: Option<Kept>,
    /// What it is after the program, where that is something else and no answer.
    pub changed: Option<Vec<u8>>,
}

/// Which way the packet goes.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// It arrives, and this is decided.
    In(Decision),
    /// It leaves.
    Out(Leaving),
}

/// How a packet leaves, and what that counts as.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// Segments that the device or the kernel will cut it into, as the kernel tells.
    pub segments: u32,
    /// Whether it came in by some interface before.
    pub is_forwarded: bool,
    /// Whether no hook sees it, and its sender reports it.
    pub is_reported: bool,
    /// Packets that it counts as.
    pub packets: u64,
    /// Bytes that it counts as.
    pub bytes: u64,
    /// The binding that a row which it makes is owned by.
    pub binding: u16,
}

/// What the packet made of the connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowAfter {
    /// It is as it was.
    Same,
    /// The row that was there has ended.
    Gone,
    /// The row that was there had expired, and is not there any more.
    Expired,
    /// There is a new row, where none was or one that had expired.
    Made(Made),
    /// The row that was there has ended, and there is a new one.
    Reopened(Made),
    /// The row that was there counted the packet, and is otherwise like this.
    Followed {
        said: Said,
        confirmed: bool,
        /// Whether the packet proved the connection alive.
        alive: bool,
    },
}

/// A new row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    pub key: ConnectionKey,
    pub said: Said,
    pub direction: Direction,
    pub confirmed: bool,
}

impl Made {
    /// A row that is not confirmed.
    pub const fn new(key: ConnectionKey, said: Said, direction: Direction) -> Self {
        Self {
            key,
            said,
            direction,
            confirmed: false,
        }
    }

    pub const fn confirmed(self) -> Self {
        Self {
            confirmed: true,
            ..self
        }
    }
}

/// What a packet can change.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// By slot, summed over the CPUs.
    pub counters: Vec<InterfaceCounters>,
    /// By binding, summed over the CPUs.
    pub binding_counts: Vec<Count>,
    pub rows: HashMap<ConnectionKey, Connection>,
    /// Summed over the CPUs.
    pub table: TableCounters,
    /// Whose packets in fragments are.
    pub fragments: HashMap<Datagram, Owner>,
}

/// What the program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    pub verdict: Verdict,
    /// The frame that goes back, where one does.
    pub answer: Option<Vec<u8>>,
    /// The frame where it is another one now, and no answer.
    pub changed: Option<Vec<u8>>,
}

/// What packets are given to: the model, or the kernel.
pub trait Subject {
    fn prepare(&mut self, world: &World);
    fn ifindex(&self) -> u32;
    /// The time of the connection table.
    fn now(&self) -> u32;
    fn snapshot(&self) -> Snapshot;
    /// The coarse monotonic clock, in nanoseconds.
    fn clock_ns(&self) -> u64;
    /// Where the program would hand a frame to, by what the twin says if that is not there.
    fn destination(&self, frame: &[u8]) -> Option<HandedTo>;
    /// Runs the program.
    fn run(&self, frame: &[u8]) -> Ran;
    /// Whether it can be given a frame that leaves.
    fn takes(&self, frame: &[u8]) -> bool;
    /// Runs the program for what leaves.
    fn leave(&self, frame: &[u8], leaving: &Leaving);
    /// Runs the twin, and makes sure that it changed nothing.
    fn explain(&self, frame: &[u8]) -> Decision;
}

/// The decision that a report of the twin tells.
pub fn reported(report: &Explanation) -> Decision {
    assert_eq!(report.reserved, 0);
    Decision {
        verdict: report.verdict,
        reason: report.reason().expect("a known reason"),
        stage: report.stage,
        target: report.target,
        binding: report.binding,
    }
}

/// What was found to be otherwise than expected, one a line.
struct Differences<'a> {
    name: &'a str,
    found: Vec<String>,
}

impl Differences<'_> {
    fn compare(&mut self, what: &str, expected: &str, found: &str) {
        if expected != found {
            let name = self.name;
            self.found.push(format!(
                "{name}: {what}: expected {expected}, found {found}"
            ));
        }
    }
}

impl Case {
    pub fn pass(
        name: impl Into<String>,
        world: World,
        frame: Frame,
        stage: Stage,
        reason: Reason,
    ) -> Self {
        Self {
            name: name.into(),
            frame: frame.bytes,
            world,
            way: Way::In(Decision {
                verdict: Verdict::Pass,
                reason,
                stage,
                target: Target::Stack,
                binding: 0,
            }),
            row: RowAfter::Same,
            unanswered: None,
            handed: None,
            kept: None,
            changed: None,
        }
    }

    /// A packet that is handed on.
    pub fn redirect(
        name: impl Into<String>,
        world: World,
        frame: Frame,
        stage: Stage,
        reason: Reason,
        to: HandedTo,
    ) -> Self {
        let mut case = Self::pass(name, world, frame, stage, reason);
        if let Way::In(expected) = &mut case.way {
            expected.verdict = Verdict::Redirect;
            expected.target = match to {
                HandedTo::Cpu(_) => Target::Cpu,
                HandedTo::Socket(_) => Target::Xsk,
            };
        }
        case.handed = Some(to);
        case
    }

    /// A packet that is answered.
    pub fn reject(
        name: impl Into<String>,
        world: World,
        frame: Frame,
        stage: Stage,
        reason: Reason,
    ) -> Self {
        let mut case = Self::pass(name, world, frame, stage, reason);
        if let Way::In(expected) = &mut case.way {
            expected.verdict = Verdict::Reject;
            expected.target = Target::Reject;
        }
        case
    }

    /// A packet that is to be rejected and comes to another end.
    pub fn unanswered(mut self, verdict: Verdict, reason: Reason) -> Self {
        self.unanswered = Some((verdict, reason));
        self
    }

    pub fn drop(
        name: impl Into<String>,
        world: World,
        frame: Frame,
        stage: Stage,
        reason: Reason,
    ) -> Self {
        let mut case = Self::pass(name, world, frame, stage, reason);
        if let Way::In(expected) = &mut case.way {
            expected.verdict = Verdict::Drop;
            expected.target = Target::Drop;
        }
        case
    }

    /// A packet of this host.
    pub fn leave(name: impl Into<String>, world: World, frame: Frame) -> Self {
        let bytes = frame.bytes.len() as u64;
        Self {
            name: name.into(),
            frame: frame.bytes,
            world,
            way: Way::Out(Leaving {
                segments: 0,
                is_forwarded: false,
                is_reported: false,
                packets: 1,
                bytes,
                binding: 0,
            }),
            row: RowAfter::Same,
            unanswered: None,
            handed: None,
            kept: None,
            changed: None,
        }
    }

    /// The same packet, which comes to another end.
    pub fn outcome_is(mut self, verdict: Verdict, target: Target) -> Self {
        if let Way::In(expected) = &mut self.way {
            expected.verdict = verdict;
            expected.target = target;
        }
        self
    }

    /// What is remembered of it as a fragment.
    pub fn keeps(mut self, kept: Kept) -> Self {
        self.kept = Some(kept);
        self
    }

    /// What it is after the program.
    pub fn changed_to(mut self, frame: Frame) -> Self {
        self.changed = Some(frame.bytes);
        self
    }

    pub fn of_binding(mut self, index: u16) -> Self {
        match &mut self.way {
            Way::In(expected) => expected.binding = index,
            Way::Out(leaving) => leaving.binding = index,
        }
        self
    }

    pub fn row(mut self, row: RowAfter) -> Self {
        self.row = row;
        self
    }

    /// A packet that leaves, otherwise than most.
    pub fn leaving(mut self, change: impl FnOnce(&mut Leaving)) -> Self {
        match &mut self.way {
            Way::Out(leaving) => change(leaving),
            Way::In(_) => panic!("{} arrives", self.name),
        }
        self
    }

    /// What is expected to be decided, of a packet that arrives.
    pub const fn decision(&self) -> Option<Decision> {
        match self.way {
            Way::In(expected) => Some(expected),
            Way::Out(_) => None,
        }
    }

    /// Every difference to what is expected, one a line.
    pub fn differences(&self, subject: &mut impl Subject) -> Vec<String> {
        subject.prepare(&self.world);
        let mut differences = Differences {
            name: &self.name,
            found: Vec::new(),
        };
        if let Way::In(expected) = self.way {
            let explanation = subject.explain(&self.frame);
            differences.compare(
                "explained",
                &format!("{expected:?}"),
                &format!("{explanation:?}"),
            );
            let to = subject.destination(&self.frame);
            differences.compare(
                "handed to",
                &format!("{:?}", self.handed),
                &format!("{to:?}"),
            );
        } else if !subject.takes(&self.frame) {
            return Vec::new();
        }
        let before = subject.snapshot();
        let (from, from_ns) = (subject.now(), subject.clock_ns());
        match self.way {
            Way::In(expected) => {
                let ran = subject.run(&self.frame);
                let (verdict, _) = self.outcome(expected);
                differences.compare(
                    "verdict",
                    &format!("{verdict:?}"),
                    &format!("{:?}", ran.verdict),
                );
                differences.compare(
                    "frame",
                    &format!("{:02x?}", self.changed),
                    &format!("{:02x?}", ran.changed),
                );
                differences.found.extend(self.complaint(&ran));
            }
            Way::Out(leaving) => subject.leave(&self.frame, &leaving),
        }
        let to = subject.now();
        let mut after = subject.snapshot();
        for row in after.rows.values_mut() {
            settle(row, &before, from, to);
        }
        let latest = subject.clock_ns() + LIFETIME;
        for (datagram, owner) in &mut after.fragments {
            let is_new = before.fragments.get(datagram) != Some(owner);
            if is_new && (from_ns + LIFETIME..=latest).contains(&owner.expires) {
                owner.expires = LIFETIME;
            }
        }
        let expected = self.after(&before, self.world.slot(subject.ifindex()), from);
        let mut compare = |what: &str, text: &dyn Fn(&Snapshot) -> String| {
            differences.compare(what, &text(&expected), &text(&after));
        };
        compare("counters", &|snapshot| list(&snapshot.counters));
        compare("counts of bindings", &|snapshot| {
            list_bindings(&snapshot.binding_counts)
        });
        compare("rows", &|snapshot| format!("{:?}", sorted(&snapshot.rows)));
        compare("counts of the table", &|snapshot| {
            format!("{:?}", snapshot.table)
        });
        compare("fragments", &|snapshot| {
            let mut fragments: Vec<_> = snapshot.fragments.iter().collect();
            fragments.sort_by_key(|(datagram, _)| (datagram.source, datagram.id));
            format!("{fragments:?}")
        });
        differences.found
    }

    /// What is wrong with what goes back.
    pub fn complaint(&self, ran: &Ran) -> Option<String> {
        let checked = match &ran.answer {
            Some(answer) => answer::check(&self.frame, answer),
            None if ran.verdict == Verdict::Reject => Err("there is no answer".to_owned()),
            None => Ok(()),
        };
        checked.err().map(|error| format!("{}: {error}", self.name))
    }

    /// What is counted where this was decided.
    pub fn outcome(&self, expected: Decision) -> (Verdict, Reason) {
        self.unanswered
            .unwrap_or((expected.verdict, expected.reason))
    }

    /// What there is after the packet, which came at `now`.
    fn after(&self, before: &Snapshot, slot: usize, now: u32) -> Snapshot {
        let mut after = before.clone();
        if let Way::In(expected) = self.way {
            let bytes = self.frame.len() as u64;
            let (verdict, reason) = self.outcome(expected);
            after.counters[slot].add(verdict, reason, bytes);
            if expected.binding != 0 {
                let count = &mut after.binding_counts[usize::from(expected.binding)];
                count.packets += 1;
                count.bytes += bytes;
            }
        }
        let Snapshot {
            rows,
            table,
            fragments,
            ..
        } = &mut after;
        if let Some(Kept {
            datagram, owner, ..
        }) = &self.kept
        {
            fragments.insert(*datagram, *owner);
        }
        match self.row {
            RowAfter::Same => {}
            RowAfter::Gone => {
                rows.clear();
                table.ended += 1;
            }
            RowAfter::Expired => rows.clear(),
            RowAfter::Made(made) | RowAfter::Reopened(made) => {
                rows.insert(made.key, self.made(&made, now));
                table.entered += 1;
                table.ended += u64::from(matches!(self.row, RowAfter::Reopened(_)));
            }
            RowAfter::Followed {
                said,
                confirmed,
                alive,
            } => {
                let row = rows.values_mut().next().expect("a row");
                self.count(row);
                if let Way::In(expected) = self.way {
                    row.epoch = EPOCH;
                    row.binding = expected.binding;
                }
                said.write(row);
                row.flags = Flags(row.flags.0 & !Flags::CONFIRMED | confirmation(confirmed));
                if alive {
                    row.last_seen = now;
                }
            }
        }
        after
    }

    fn made(&self, made: &Made, now: u32) -> Connection {
        let mut flags = confirmation(made.confirmed);
        if made.direction == Direction::Out {
            flags |= Flags::OUT;
        }
        if made.key.protocol == Protocol::Udp {
            flags |= Flags::UDP;
        }
        if !made.key.local_address.is_mapped() {
            flags |= Flags::IPV6;
        }
        let mut row = Connection {
            rx_packets: 0,
            rx_bytes: 0,
            tx_packets: 0,
            tx_bytes: 0,
            created: now,
            last_seen: now,
            remote: Half::UNKNOWN,
            local: Half::UNKNOWN,
            epoch: EPOCH,
            binding: match self.way {
                Way::In(expected) => expected.binding,
                Way::Out(leaving) => leaving.binding,
            },
            state: made.said.state,
            flags: Flags(flags),
        };
        made.said.write(&mut row);
        self.count(&mut row);
        row
    }

    fn count(&self, row: &mut Connection) {
        match self.way {
            Way::In(_) => {
                row.rx_packets += 1;
                row.rx_bytes += self.frame.len() as u64;
            }
            Way::Out(leaving) => {
                row.tx_packets += leaving.packets;
                row.tx_bytes += leaving.bytes;
            }
        }
    }
}

const fn confirmation(confirmed: bool) -> u8 {
    if confirmed { Flags::CONFIRMED } else { 0 }
}

/// Sets times that were taken during the run to the time before it, so that they can be compared.
fn settle(row: &mut Connection, before: &Snapshot, from: u32, to: u32) {
    /// About half a second: rows of the tests are a second old, at least.
    const SLACK: u32 = 7;
    let earlier = |time: u32| {
        let mut rows = before.rows.values();
        rows.any(|row| row.created == time || row.last_seen == time)
    };
    let longest = since(from, to).max(SLACK);
    let during = |time: u32| !earlier(time) && time.wrapping_sub(from) <= longest;
    for time in [&mut row.created, &mut row.last_seen] {
        if during(*time) {
            *time = from;
        }
    }
}

/// What was counted between two looks at the counters of a slot.
pub fn difference(after: &InterfaceCounters, before: &InterfaceCounters) -> InterfaceCounters {
    const WORDS: usize = size_of::<InterfaceCounters>() / 8;
    let mut after: [u64; WORDS] = zerocopy::transmute!(*after);
    let before: [u64; WORDS] = zerocopy::transmute!(*before);
    for (word, earlier) in after.iter_mut().zip(before) {
        *word -= earlier;
    }
    zerocopy::transmute!(after)
}

fn list(counters: &[InterfaceCounters]) -> String {
    let mut text = String::new();
    for (slot, counters) in counters.iter().enumerate() {
        for verdict in Verdict::ALL {
            for reason in Reason::ALL {
                let count = counters.get(verdict, *reason);
                if count != Count::default() {
                    let (verdict, reason) = (verdict.name(), reason.name());
                    text += &format!(
                        "[{slot} {verdict} {reason} {}/{}]",
                        count.packets, count.bytes
                    );
                }
            }
        }
        // Fields that no reason has yet count too.
        let mut others = *counters;
        for verdict in Verdict::ALL {
            for reason in Reason::ALL {
                let words: &mut [Count; size_of::<InterfaceCounters>() / size_of::<Count>()] =
                    zerocopy::transmute_mut!(&mut others);
                words[InterfaceCounters::index(verdict, *reason)] = Count::default();
            }
        }
        if others != InterfaceCounters::default() {
            text += &format!("[{slot} besides {:?}]", others.untracked);
        }
    }
    text
}

fn list_bindings(counts: &[Count]) -> String {
    let mut text = String::new();
    for (index, count) in counts.iter().enumerate() {
        if *count != Count::default() {
            text += &format!("[{index}: {}/{}]", count.packets, count.bytes);
        }
    }
    text
}

fn sorted(rows: &HashMap<ConnectionKey, Connection>) -> Vec<(&ConnectionKey, &Connection)> {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|(key, _)| (key.local_address, key.local_port, key.remote_port));
    rows
}
