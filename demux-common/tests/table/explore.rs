//! Every schedule of a few threads, on a machine with total store order, or a simpler one.
//!
//! A thread is a script whose every operation on the memory is a step. What it does next follows
//! from what its operations returned so far: its *history*. So two schedules that leave the same
//! memory and the same histories go on alike, and one of them is enough. Histories are kept as trees,
//! which are grown by running the script anew; the search itself runs no code of the table.
//!
//! A store goes into the buffer of its thread first and comes out of it at any later moment, in
//! order. The thread itself sees it at once. Read-modify-writes wait until the buffer is empty.
//!
//! Steps that nobody else can tell from doing nothing are not interleaved with others: a load of
//! what no other thread ever writes, a store into the buffer, and one out of the buffer to where
//! no other thread ever looks, unless it is a head or a home's hops, which the checks look at. Who
//! looks and writes where is found by searching until nothing is added.
//!
//! A thread may stop for ever after each of its steps: the checks at the end are also made wherever
//! all threads but one have ended.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    mem::offset_of,
    rc::Rc,
};

use demux_common::table::Line;

use super::board::{Event, Kind, Op, Recorder, set_word, word};

/// More states than this are taken for a mistake.
const MAX_STATES: usize = 30_000_000;

/// When a store reaches the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stores {
    /// At any later moment, in order: total store order.
    Buffered,
    /// At once: sequential consistency.
    Immediate,
}

/// What a thread does.
pub(crate) type Script<'a> = Box<dyn Fn(&Recorder) + 'a>;

struct Node {
    next: Option<Op>,
    events: Rc<Vec<Event>>,
    parent: Option<(u32, u64)>,
    children: HashMap<u64, u32>,
}

/// The histories of a thread.
struct Tree<'a> {
    script: Script<'a>,
    lines: u32,
    nodes: Vec<Node>,
}

impl<'a> Tree<'a> {
    fn new(script: Script<'a>, lines: u32) -> Self {
        let (next, events) = Recorder::run(lines, Vec::new(), &script);
        let root = Node {
            next,
            events: Rc::new(events),
            parent: None,
            children: HashMap::new(),
        };
        Self {
            script,
            lines,
            nodes: vec![root],
        }
    }

    fn after(&mut self, node: u32, answer: u64) -> u32 {
        if let Some(&child) = self.nodes[node as usize].children.get(&answer) {
            return child;
        }
        let mut answers = vec![answer];
        let mut at = node;
        while let Some((parent, answer)) = self.nodes[at as usize].parent {
            answers.push(answer);
            at = parent;
        }
        answers.reverse();
        let (next, events) = Recorder::run(self.lines, answers, &self.script);
        let child = self.nodes.len() as u32;
        self.nodes.push(Node {
            next,
            events: Rc::new(events),
            parent: Some((node, answer)),
            children: HashMap::new(),
        });
        self.nodes[node as usize].children.insert(answer, child);
        child
    }
}

/// How a search ended for all threads, or for all but one that has stopped.
pub(crate) struct End {
    pub(crate) cells: Vec<u32>,
    pub(crate) events: Vec<Rc<Vec<Event>>>,
    /// The thread that has stopped half-way.
    pub(crate) stopped: Option<usize>,
}

/// What a search has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) states: usize,
    pub(crate) histories: usize,
}

/// What is checked: of every state the words, and every end.
pub(crate) trait Checks {
    fn state(&self, cells: &[u32]) -> Result<(), String>;
    fn end(&self, end: &End) -> Result<(), String>;
}

/// Searches through all schedules of these threads on this memory.
pub(crate) fn explore<'a, C: Checks>(
    lines: u32,
    cells: &[u32],
    scripts: Vec<Script<'a>>,
    stores: Stores,
    checks: &C,
) -> Seen {
    let count = scripts.len();
    let mut search = Search {
        trees: scripts
            .into_iter()
            .map(|script| Tree::new(script, lines))
            .collect(),
        lines,
        cells: cells.to_vec(),
        hash: 0,
        at: vec![0; count],
        buffers: vec![Vec::new(); count],
        visited: HashSet::default(),
        checked: HashSet::default(),
        looked: vec![vec![false; cells.len()]; count],
        written: vec![vec![false; cells.len()]; count],
        has_learned: false,
        path: Vec::new(),
        stores,
        checks,
    };
    loop {
        search.visited.clear();
        search.has_learned = false;
        search.visit();
        if !search.has_learned {
            return Seen {
                states: search.visited.len(),
                histories: search.trees.iter().map(|tree| tree.nodes.len()).sum(),
            };
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Write {
    cell: u32,
    wide: bool,
    value: u64,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Step(usize),
    Flush(usize),
}

struct Search<'a, 'c, C> {
    trees: Vec<Tree<'a>>,
    lines: u32,
    cells: Vec<u32>,
    /// Of the words, apart from what they were in the beginning.
    hash: u128,
    /// The history of each thread.
    at: Vec<u32>,
    buffers: Vec<Vec<Write>>,
    visited: HashSet<u128, BuildHasherDefault<Low>>,
    /// Memories that were checked.
    checked: HashSet<u128, BuildHasherDefault<Low>>,
    /// By thread and word: whether it ever looks there, and writes there.
    looked: Vec<Vec<bool>>,
    written: Vec<Vec<bool>>,
    has_learned: bool,
    path: Vec<Action>,
    stores: Stores,
    checks: &'c C,
}

/// What an action has changed.
struct Undo {
    node: u32,
    written: Option<Write>,
    unbuffered: Option<Write>,
    has_buffered: bool,
    hash: u128,
}

impl<C: Checks> Search<'_, '_, C> {
    fn visit(&mut self) {
        let mut key = self.hash;
        for (thread, (&node, buffer)) in self.at.iter().zip(&self.buffers).enumerate() {
            let low = (thread as u64) << 56 | (buffer.len() as u64) << 40 | u64::from(node);
            key ^= mix(low ^ 1 << 63);
        }
        if !self.visited.insert(key) {
            return;
        }
        assert!(self.visited.len() < MAX_STATES, "too many states");
        if self.checked.insert(self.hash)
            && let Err(what) = self.checks.state(&self.cells)
        {
            self.fail(&what);
        }
        self.check_end();
        let threads = self.trees.len();
        let private = (0..threads).find_map(|thread| self.private(thread));
        if let Some(action) = private {
            self.follow(action);
            return;
        }
        for thread in 0..threads {
            if self.can_step(thread) {
                self.follow(Action::Step(thread));
            }
            if !self.buffers[thread].is_empty() {
                self.follow(Action::Flush(thread));
            }
        }
    }

    fn follow(&mut self, action: Action) {
        let undo = self.take(action);
        self.path.push(action);
        self.visit();
        self.path.pop();
        self.undo(action, &undo);
    }

    fn next(&self, thread: usize) -> Option<Op> {
        self.trees[thread].nodes[self.at[thread] as usize].next
    }

    fn can_step(&self, thread: usize) -> bool {
        match self.next(thread) {
            None => false,
            Some(op) if matches!(op.kind, Kind::Wait) => (0..self.trees.len()).all(|other| {
                other == thread || self.is_done(other) && self.buffers[other].is_empty()
            }),
            Some(op) => !op.is_read_modify_write() || self.buffers[thread].is_empty(),
        }
    }

    fn is_done(&self, thread: usize) -> bool {
        self.next(thread).is_none()
    }

    /// What a thread does next, if nobody else can tell whether it did.
    fn private(&self, thread: usize) -> Option<Action> {
        if let Some(write) = self.buffers[thread].first()
            && self.is_out_of_sight(thread, write.cell, write.wide)
        {
            return Some(Action::Flush(thread));
        }
        let op = self.next(thread)?;
        let is_private = match op.kind {
            Kind::Load => !self.is_known_to_others(&self.written, thread, op.cell, op.wide),
            Kind::Store(_) => {
                self.stores == Stores::Buffered || self.is_out_of_sight(thread, op.cell, op.wide)
            }
            _ => false,
        };
        is_private.then_some(Action::Step(thread))
    }

    /// Whether nobody can tell when a thread writes there.
    fn is_out_of_sight(&self, thread: usize, cell: u32, wide: bool) -> bool {
        !is_watched(self.lines, cell)
            && !self.is_known_to_others(&self.looked, thread, cell, wide)
            && !self.is_known_to_others(&self.written, thread, cell, wide)
    }

    fn is_known_to_others(&self, to: &[Vec<bool>], thread: usize, cell: u32, wide: bool) -> bool {
        let cell = cell as usize;
        to.iter()
            .enumerate()
            .any(|(other, cells)| other != thread && (cells[cell] || wide && cells[cell + 1]))
    }

    fn learn(&mut self, thread: usize, op: Op) {
        let (looks, writes) = match op.kind {
            Kind::Load => (true, false),
            Kind::Store(_) => (false, true),
            Kind::Wait => return,
            _ => (true, true),
        };
        for cell in op.cell as usize..=op.cell as usize + usize::from(op.wide) {
            for (is, known) in [
                (looks, &mut self.looked[thread][cell]),
                (writes, &mut self.written[thread][cell]),
            ] {
                if is && !*known {
                    *known = true;
                    self.has_learned = true;
                }
            }
        }
    }

    fn take(&mut self, action: Action) -> Undo {
        let mut undo = Undo {
            node: 0,
            written: None,
            unbuffered: None,
            has_buffered: false,
            hash: self.hash,
        };
        match action {
            Action::Flush(thread) => {
                let write = self.buffers[thread].remove(0);
                undo.node = self.at[thread];
                undo.unbuffered = Some(write);
                undo.written = Some(self.write(write));
            }
            Action::Step(thread) => {
                let node = self.at[thread];
                undo.node = node;
                let op = self.next(thread).expect("it can step");
                self.learn(thread, op);
                let buffered = self.buffers[thread].iter().rev().find(|write| {
                    let (a, b) = (write.cell, op.cell);
                    let overlaps =
                        a < b + 1 + u32::from(op.wide) && b < a + 1 + u32::from(write.wide);
                    assert!(!overlaps || (a, write.wide) == (b, op.wide), "mixed widths");
                    overlaps
                });
                let old = match buffered {
                    Some(write) => write.value,
                    None => word(&self.cells, op.cell, op.wide),
                };
                let (answer, new) = op.on(old);
                if let Some(value) = new {
                    let write = Write {
                        cell: op.cell,
                        wide: op.wide,
                        value,
                    };
                    if op.is_read_modify_write() || self.stores == Stores::Immediate {
                        undo.written = Some(self.write(write));
                    } else {
                        self.buffers[thread].push(write);
                        undo.has_buffered = true;
                    }
                }
                self.at[thread] = self.trees[thread].after(node, answer);
            }
        }
        undo
    }

    fn undo(&mut self, action: Action, undo: &Undo) {
        let (Action::Step(thread) | Action::Flush(thread)) = action;
        self.at[thread] = undo.node;
        if undo.has_buffered {
            self.buffers[thread].pop();
        }
        if let Some(write) = undo.unbuffered {
            self.buffers[thread].insert(0, write);
        }
        if let Some(old) = undo.written {
            set_word(&mut self.cells, old.cell, old.wide, old.value);
        }
        self.hash = undo.hash;
    }

    /// Writes into the memory; returns what stood there.
    fn write(&mut self, write: Write) -> Write {
        let Write { cell, wide, value } = write;
        let old = word(&self.cells, cell, wide);
        let of = |value: u64| {
            let low = mix(u64::from(cell) << 32 | value & 0xffff_ffff);
            let high = mix(u64::from(cell + 1) << 32 | value >> 32);
            if wide { low ^ high } else { low }
        };
        self.hash ^= of(old) ^ of(value);
        set_word(&mut self.cells, cell, wide, value);
        Write {
            value: old,
            ..write
        }
    }

    fn check_end(&self) {
        let mut running = (0..self.trees.len()).filter(|&thread| !self.is_done(thread));
        let stopped = running.next();
        if running.next().is_some() {
            return;
        }
        let mut cells = self.cells.clone();
        // Also who has stopped has stored what it has stored.
        for write in self.buffers.iter().flatten() {
            set_word(&mut cells, write.cell, write.wide, write.value);
        }
        let node = |(tree, &at): (&Tree<'_>, &u32)| Rc::clone(&tree.nodes[at as usize].events);
        let end = End {
            cells,
            events: self.trees.iter().zip(&self.at).map(node).collect(),
            stopped,
        };
        if let Err(what) = self.checks.end(&end) {
            self.fail(&format!(
                "{what}\nstopped: {stopped:?}, events: {:#?}",
                end.events
            ));
        }
    }

    fn fail(&self, what: &str) -> ! {
        let mut steps = String::new();
        let mut at = vec![0u32; self.trees.len()];
        // The path is told by the histories that it led to.
        let mut chains: Vec<Vec<(u32, u64)>> = self
            .trees
            .iter()
            .zip(&self.at)
            .map(|(tree, &end)| {
                let mut chain = Vec::new();
                let mut node = end;
                while let Some((parent, answer)) = tree.nodes[node as usize].parent {
                    chain.push((node, answer));
                    node = parent;
                }
                chain
            })
            .collect();
        for action in &self.path {
            match *action {
                Action::Flush(thread) => steps.push_str(&format!("{thread}: flush\n")),
                Action::Step(thread) => {
                    let op = self.trees[thread].nodes[at[thread] as usize].next;
                    let (node, answer) = chains[thread].pop().expect("a step");
                    at[thread] = node;
                    let op = op.expect("a step");
                    let line = op.cell / 16;
                    steps.push_str(&format!(
                        "{thread}: line {line} at {}: {:x?} -> {answer:x}\n",
                        op.cell % 16 * 4,
                        op.kind
                    ));
                }
            }
        }
        panic!("{what}\n{steps}");
    }
}

/// Whether the checks of a state look at a word of a hot line.
fn is_watched(lines: u32, cell: u32) -> bool {
    let at = cell as usize % 16 * 4;
    cell < lines * 16 && (at < 8 || at == offset_of!(Line, hops))
}

fn mix(value: u64) -> u128 {
    let half = |seed: u64| {
        let mut z = value.wrapping_add(seed).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 30).wrapping_mul(0x94d0_49bb_1331_11eb);
        z = (z ^ z >> 27).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z ^ z >> 31
    };
    u128::from(half(0x1234_5678_9abc_def1)) << 64 | u128::from(half(0x9e37_79b9_7f4a_7c15))
}

/// The keys are hashes already.
#[derive(Default)]
struct Low(u64);

impl Hasher for Low {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("keys are whole numbers");
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}
