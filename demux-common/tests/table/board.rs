//! The memory of a small table: as words that one thread owns, and as questions that a schedule answers.

use std::{
    cell::{Cell, RefCell},
    panic,
};

use demux_common::{
    connection::{Connection, ConnectionKey},
    table::{Cold, Line, Memory, Occupancy, WINDOW},
};
use zerocopy::{FromBytes as _, IntoBytes as _, TryFromBytes as _};

/// What a thread noted on its way; no schedule depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// There was no room.
    Full { name: u32 },
    /// A packet that was sent was counted as belonging to no row.
    Untracked,
    /// A packet was sent.
    Sent { name: u32 },
    /// It looked for a row that stands, and did not find it.
    Missed { name: u32 },
    /// It made a row confirmed.
    Confirmed { name: u32 },
    /// It removed a row.
    Removed { name: u32 },
    /// It copied a row.
    Read {
        row: Box<(ConnectionKey, Connection)>,
    },
}

/// What is done to a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Load,
    Store(u64),
    Exchange(u64, u64),
    And(u64),
    Add(u64),
    /// Waits until every other thread is done.
    Wait,
}

/// One operation on the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) cell: u32,
    pub(crate) wide: bool,
    pub(crate) kind: Kind,
}

impl Op {
    /// What it returns where `old` stands, and what stands there afterwards.
    pub(crate) fn on(self, old: u64) -> (u64, Option<u64>) {
        match self.kind {
            Kind::Load => (old, None),
            Kind::Store(value) => (0, Some(value)),
            Kind::Exchange(expected, new) if expected == old => (1, Some(new)),
            Kind::Exchange(..) | Kind::Wait => (0, None),
            Kind::And(mask) => (0, Some(old & mask)),
            Kind::Add(addend) => (0, Some(u64::from((old as u32).wrapping_add(addend as u32)))),
        }
    }

    pub(crate) fn is_read_modify_write(self) -> bool {
        matches!(self.kind, Kind::Exchange(..) | Kind::And(_) | Kind::Add(_))
    }
}

/// Where operations go.
pub(crate) trait Port {
    fn lines(&self) -> u32;
    fn perform(&self, op: Op) -> u64;
    fn note(&self, event: Event);
}

/// The number of four-byte words of a line.
const CELLS: u32 = 16;

macro_rules! memory_by_port {
    ($type:ty) => {
        impl Memory for $type {
            type Line = u32;

            fn line(&self, index: u32) -> Option<u32> {
                (index < self.lines()).then(|| index * CELLS)
            }

            fn cold(&self, index: u32) -> Option<u32> {
                (index < self.lines()).then(|| (self.lines() + index) * CELLS)
            }

            fn load32<const AT: usize>(&self, line: u32) -> u32 {
                self.perform(op(line, AT, false, Kind::Load)) as u32
            }

            fn load64<const AT: usize>(&self, line: u32) -> u64 {
                self.perform(op(line, AT, true, Kind::Load))
            }

            fn store32<const AT: usize>(&self, line: u32, value: u32) {
                self.perform(op(line, AT, false, Kind::Store(value.into())));
            }

            fn store64<const AT: usize>(&self, line: u32, value: u64) {
                self.perform(op(line, AT, true, Kind::Store(value)));
            }

            fn exchange32<const AT: usize>(&self, line: u32, old: u32, new: u32) -> bool {
                self.perform(op(line, AT, false, Kind::Exchange(old.into(), new.into()))) != 0
            }

            fn exchange64<const AT: usize>(&self, line: u32, old: u64, new: u64) -> bool {
                self.perform(op(line, AT, true, Kind::Exchange(old, new))) != 0
            }

            fn and32<const AT: usize>(&self, line: u32, mask: u32) {
                self.perform(op(line, AT, false, Kind::And(mask.into())));
            }

            fn add32<const AT: usize>(&self, line: u32, addend: u32) {
                self.perform(op(line, AT, false, Kind::Add(addend.into())));
            }
        }
    };
}

fn op(line: u32, at: usize, wide: bool, kind: Kind) -> Op {
    assert!(at.is_multiple_of(if wide { 8 } else { 4 }));
    Op {
        cell: line + at as u32 / 4,
        wide,
        kind,
    }
}

/// The words of a table: hot lines, then cold ones.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    pub(crate) cells: RefCell<Vec<u32>>,
    lines: u32,
}

impl Board {
    pub(crate) fn new(lines: u32) -> Self {
        Self::of(lines, vec![0; (2 * lines * CELLS) as usize])
    }

    pub(crate) fn of(lines: u32, cells: Vec<u32>) -> Self {
        Self {
            cells: RefCell::new(cells),
            lines,
        }
    }

    /// The row in a line, if it is live and reached from its home.
    pub(crate) fn reached(&self, index: u32) -> Option<(ConnectionKey, Connection)> {
        reached(&self.cells.borrow(), self.lines, index).expect("a row that can be read")
    }
}

/// A hot line of some words; of these no line is anything but a line.
pub(crate) fn hot(cells: &[u32], index: u32) -> Line {
    let at = (index * CELLS) as usize;
    Line::try_read_from_bytes(cells[at..at + CELLS as usize].as_bytes()).expect("a line")
}

/// The row in a line, if it is live and reached from its home; an error where it cannot be read.
pub(crate) fn reached(
    cells: &[u32],
    lines: u32,
    index: u32,
) -> Result<Option<(ConnectionKey, Connection)>, String> {
    // Most lines are told by one byte.
    if cells[(index * CELLS) as usize] as u8 != Occupancy::Live as u8 {
        return Ok(None);
    }
    let line = hot(cells, index);
    let home = index.checked_sub(u32::from(line.hop) & (WINDOW - 1));
    let home = home.ok_or_else(|| format!("line {index} has no home"))?;
    if hot(cells, home).hops >> line.hop & 1 == 0 {
        return Ok(None);
    }
    let at = ((lines + index) * CELLS) as usize;
    let cold = Cold::read_from_bytes(cells[at..at + CELLS as usize].as_bytes()).expect("a line");
    match Connection::read(&line, &cold) {
        Some(row) => Ok(Some(row)),
        None => Err(format!(
            "the row in line {index} cannot be read: {line:?} {cold:?}"
        )),
    }
}

/// What stands at a place.
pub(crate) fn word(cells: &[u32], cell: u32, wide: bool) -> u64 {
    let cell = cell as usize;
    let high = if wide { u64::from(cells[cell + 1]) } else { 0 };
    u64::from(cells[cell]) | high << 32
}

/// Writes what is to stand at a place.
pub(crate) fn set_word(cells: &mut [u32], cell: u32, wide: bool, value: u64) {
    let cell = cell as usize;
    cells[cell] = value as u32;
    if wide {
        cells[cell + 1] = (value >> 32) as u32;
    }
}

impl Port for Board {
    fn lines(&self) -> u32 {
        self.lines
    }

    fn perform(&self, op: Op) -> u64 {
        let mut cells = self.cells.borrow_mut();
        let (result, new) = op.on(word(&cells, op.cell, op.wide));
        if let Some(new) = new {
            set_word(&mut cells, op.cell, op.wide, new);
        }
        result
    }

    fn note(&self, _event: Event) {}
}

memory_by_port!(Board);

/// Answers the operations of a script with what they returned before, and stops it at the first one
/// that has no answer yet.
pub(crate) struct Recorder {
    lines: u32,
    answers: Vec<u64>,
    position: Cell<usize>,
    next: Cell<Option<Op>>,
    events: RefCell<Vec<Event>>,
}

/// How a script is stopped.
struct Suspended;

impl Recorder {
    /// Runs a script on these answers: the operation that it stops at, `None` where it ends, and
    /// what it noted.
    pub(crate) fn run(
        lines: u32,
        answers: Vec<u64>,
        script: &dyn Fn(&Self),
    ) -> (Option<Op>, Vec<Event>) {
        let recorder = Self {
            lines,
            answers,
            position: Cell::new(0),
            next: Cell::new(None),
            events: RefCell::default(),
        };
        let ended = panic::catch_unwind(panic::AssertUnwindSafe(|| script(&recorder)));
        if let Err(payload) = ended
            && !payload.is::<Suspended>()
        {
            panic::resume_unwind(payload);
        }
        (recorder.next.get(), recorder.events.into_inner())
    }

    /// Waits until every other thread is done.
    pub(crate) fn wait(&self) {
        self.perform(Op {
            cell: 0,
            wide: false,
            kind: Kind::Wait,
        });
    }

    /// A copy of the row in a line, word by word, as user space makes it.
    pub(crate) fn copy(&self, index: u32) -> Option<(ConnectionKey, Connection)> {
        let words = |line: u32| -> Vec<u64> {
            (0..CELLS / 2)
                .map(|word| {
                    self.perform(Op {
                        cell: line + 2 * word,
                        wide: true,
                        kind: Kind::Load,
                    })
                })
                .collect()
        };
        let line = Line::try_read_from_bytes(words(self.line(index)?).as_bytes()).ok()?;
        let cold = Cold::read_from_bytes(words(self.cold(index)?).as_bytes()).ok()?;
        Connection::read(&line, &cold)
    }
}

impl Port for Recorder {
    fn lines(&self) -> u32 {
        self.lines
    }

    fn perform(&self, op: Op) -> u64 {
        let position = self.position.get();
        if let Some(&answer) = self.answers.get(position) {
            self.position.set(position + 1);
            return answer;
        }
        self.next.set(Some(op));
        panic::resume_unwind(Box::new(Suspended));
    }

    fn note(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }
}

memory_by_port!(Recorder);
