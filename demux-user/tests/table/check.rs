//! What is expected of a packet, and whether that and nothing else has happened.

use std::collections::HashMap;

use demux_common::{
    binding::Target,
    connection::{Connection, ConnectionKey, Direction, State},
    counters::InterfaceCounters,
    decide::Decision,
    explanation::Explanation,
    reason::{Count, Reason, Stage, Verdict},
};

use super::{
    frames::Frame,
    world::{SECOND, World},
};

/// One packet in one world.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub frame: Vec<u8>,
    pub world: World,
    pub expected: Decision,
    pub row: RowAfter,
}

/// What the packet made of the connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowAfter {
    /// It is as it was.
    Same,
    /// The row that was there is gone.
    Gone,
    /// There is a new row, in the place of one that was absent or expired.
    Made {
        key: ConnectionKey,
        state: State,
        direction: Direction,
        remote_next: u32,
        confirmed: bool,
    },
    /// The row that was there counted the packet, and is otherwise like this.
    Followed {
        state: State,
        remote_next: u32,
        confirmed: bool,
        /// Whether the packet proved the connection alive.
        alive: bool,
    },
    /// The row that was there has begun a new connection.
    Reopened { remote_next: u32 },
}

/// What a packet can change.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// By slot, summed over the CPUs.
    pub counters: Vec<InterfaceCounters>,
    /// By binding, summed over the CPUs.
    pub binding_counts: Vec<Count>,
    pub rows: HashMap<ConnectionKey, Connection>,
}

/// What packets are given to: the model, or the kernel.
pub trait Subject {
    fn prepare(&mut self, world: &World);
    fn ifindex(&self) -> u32;
    fn now(&self) -> u64;
    fn snapshot(&self) -> Snapshot;
    /// Runs the program.
    fn run(&self, frame: &[u8]) -> Verdict;
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
            expected: Decision {
                verdict: Verdict::Pass,
                reason,
                stage,
                target: Target::Stack,
                binding: 0,
            },
            row: RowAfter::Same,
        }
    }

    pub fn drop(
        name: impl Into<String>,
        world: World,
        frame: Frame,
        stage: Stage,
        reason: Reason,
    ) -> Self {
        let mut case = Self::pass(name, world, frame, stage, reason);
        case.expected.verdict = Verdict::Drop;
        case.expected.target = Target::Drop;
        case
    }

    pub fn of_binding(mut self, binding: u16) -> Self {
        self.expected.binding = binding;
        self
    }

    pub fn row(mut self, row: RowAfter) -> Self {
        self.row = row;
        self
    }

    /// Every difference to what is expected, one a line.
    pub fn differences(&self, subject: &mut impl Subject) -> Vec<String> {
        subject.prepare(&self.world);
        let mut differences = Vec::new();
        let mut differ = |what: &str, expected: String, found: String| {
            if expected != found {
                let name = &self.name;
                differences.push(format!(
                    "{name}: {what}: expected {expected}, found {found}"
                ));
            }
        };
        let explanation = subject.explain(&self.frame);
        differ(
            "explained",
            format!("{:?}", self.expected),
            format!("{explanation:?}"),
        );
        let before = subject.snapshot();
        let from = subject.now();
        let verdict = subject.run(&self.frame);
        let to = subject.now();
        let after = subject.snapshot();
        differ(
            "verdict",
            format!("{:?}", self.expected.verdict),
            format!("{verdict:?}"),
        );
        let mut counters = before.counters.clone();
        let bytes = self.frame.len() as u64;
        counters[self.world.slot(subject.ifindex())].add(
            self.expected.verdict,
            self.expected.reason,
            bytes,
        );
        differ("counters", list(&counters), list(&after.counters));
        let mut binding_counts = before.binding_counts.clone();
        if self.expected.binding != 0 {
            let count = &mut binding_counts[usize::from(self.expected.binding)];
            count.packets += 1;
            count.bytes += bytes;
        }
        differ(
            "counts of bindings",
            list_bindings(&binding_counts),
            list_bindings(&after.binding_counts),
        );
        let mut rows = after.rows.clone();
        for row in rows.values_mut() {
            settle(row, &before, from, to);
        }
        differ(
            "rows",
            format!("{:?}", sorted(&self.rows_after(&before, from))),
            format!("{:?}", sorted(&rows)),
        );
        differences
    }

    fn rows_after(&self, before: &Snapshot, now: u64) -> HashMap<ConnectionKey, Connection> {
        let bytes = self.frame.len() as u64;
        let mut rows = before.rows.clone();
        let flags = |confirmed| if confirmed { Connection::CONFIRMED } else { 0 };
        let fresh = Connection {
            rx_packets: 1,
            rx_bytes: bytes,
            tx_packets: 0,
            tx_bytes: 0,
            created: now,
            last_seen: now,
            epoch: super::world::EPOCH,
            binding: self.expected.binding,
            ..super::world::earlier()
        };
        match self.row {
            RowAfter::Same => {}
            RowAfter::Gone => rows.clear(),
            RowAfter::Made {
                key,
                state,
                direction,
                remote_next,
                confirmed,
            } => {
                rows.insert(
                    key,
                    Connection {
                        state,
                        direction,
                        remote_next,
                        flags: flags(confirmed),
                        ..fresh
                    },
                );
            }
            RowAfter::Followed {
                state,
                remote_next,
                confirmed,
                alive,
            } => {
                for row in rows.values_mut() {
                    row.rx_packets += 1;
                    row.rx_bytes += bytes;
                    row.epoch = super::world::EPOCH;
                    row.binding = self.expected.binding;
                    row.state = state;
                    row.remote_next = remote_next;
                    row.flags = flags(confirmed);
                    if alive {
                        row.last_seen = now;
                    }
                }
            }
            RowAfter::Reopened { remote_next } => {
                for row in rows.values_mut() {
                    *row = Connection {
                        state: State::SynReceived,
                        direction: Direction::In,
                        remote_next,
                        ..fresh
                    };
                }
            }
        }
        rows
    }
}

/// Sets times that were taken during the run to the time before it, so that they can be compared.
fn settle(row: &mut Connection, before: &Snapshot, from: u64, to: u64) {
    let earlier = |time: u64| {
        let mut rows = before.rows.values();
        rows.any(|row| row.created == time || row.last_seen == time)
    };
    // Rows of the tests are a second old, at least.
    let during = |time: u64| !earlier(time) && (from..=to.max(from + SECOND / 2)).contains(&time);
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
