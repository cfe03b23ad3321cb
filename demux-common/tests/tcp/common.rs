//! What the tests share: segments in short, an observer with its row, and chance.

use std::{env, time::SystemTime};

use demux_common::{
    connection::State,
    tcp::{
        Flags, Half, Marks, Seen, Side, Step, Tracked, Visibility, advance, is_plain, opens, step,
    },
};

/// A segment; `length` is that of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) flags: u32,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) length: u32,
}

impl Segment {
    /// A segment with the flags of a string: `S`, `A`, `F`, `R`, or none.
    pub(crate) fn new(flags: &str, sequence: u32, acknowledgement: u32, length: u32) -> Self {
        let flags = flags
            .chars()
            .map(|flag| match flag {
                'S' => Flags::SYN,
                'A' => Flags::ACK,
                'F' => Flags::FIN,
                'R' => Flags::RST,
                other => panic!("no flag is called {other}"),
            })
            .sum();
        Self {
            flags,
            sequence,
            acknowledgement,
            length,
        }
    }

    pub(crate) fn has(self, bits: u32) -> bool {
        self.flags & bits != 0
    }

    pub(crate) fn space(self) -> u32 {
        self.length + Flags(self.flags).sequence_space()
    }

    pub(crate) fn end(self) -> u32 {
        self.sequence.wrapping_add(self.space())
    }

    /// As the state machine wants it; `None` where the flags make no sense.
    pub(crate) fn seen(self) -> Option<Seen> {
        Some(Seen {
            kind: Flags(self.flags).kind()?,
            sequence: self.sequence,
            acknowledgement: self.acknowledgement,
            has_ack: self.has(Flags::ACK),
            length: self.space(),
        })
    }
}

/// One row, and who watches its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observer {
    pub(crate) row: Option<Tracked>,
    pub(crate) is_confirmed: bool,
    pub(crate) visibility: Visibility,
}

impl Observer {
    pub(crate) fn new() -> Self {
        Self {
            row: None,
            is_confirmed: false,
            visibility: Visibility::Both,
        }
    }

    pub(crate) fn of(row: Tracked) -> Self {
        Self {
            row: Some(row),
            ..Self::new()
        }
    }

    pub(crate) fn state(&self) -> Option<State> {
        self.row.map(|row| row.state)
    }

    /// What a segment does to the row, as the datapath does it; whether the shortcut agrees.
    pub(crate) fn sees(&mut self, side: Side, segment: Segment) {
        let Some(seen) = segment.seen() else { return };
        let open = opens(side, &seen, self.visibility);
        let Some(row) = self.row else {
            self.row = open;
            self.is_confirmed = false;
            return;
        };
        let went = step(row, side, &seen, self.visibility);
        shortcut_agrees(row, side, segment, self.visibility);
        match went {
            Step::Goes(row) => self.row = Some(row),
            Step::Confirmed(row) => {
                self.row = Some(row);
                self.is_confirmed = true;
            }
            Step::Reopened(row) => {
                // The datapath does not use it, but begins anew.
                assert_eq!(Some(row), open, "{segment:?}");
                self.row = open;
                self.is_confirmed = false;
            }
            Step::Ends => self.row = None,
            Step::Ignored => {}
        }
    }
}

/// Whenever [`advance`] knows the answer for an established row, [`step`] gives the same.
pub(crate) fn shortcut_agrees(row: Tracked, side: Side, segment: Segment, visibility: Visibility) {
    if row.state != State::Established || !is_plain(Flags(segment.flags)) {
        return;
    }
    let seen = segment.seen().expect("an acknowledgement");
    let (sender, receiver) = match side {
        Side::Local => (row.local, row.remote),
        Side::Remote => (row.remote, row.local),
    };
    let Some(half) = advance(sender, receiver, row.marks, side, &seen) else {
        return;
    };
    let expected = match side {
        Side::Local => Tracked { local: half, ..row },
        Side::Remote => Tracked {
            remote: half,
            ..row
        },
    };
    match step(row, side, &seen, visibility) {
        Step::Goes(after) | Step::Confirmed(after) if after == expected => {}
        other => panic!("{row:x?} and {segment:x?} of {side:?}: {half:x?}, but {other:x?}"),
    }
}

/// A row with all that can be known of it.
pub(crate) fn row(state: State, marks: u8, local: (u32, u32), remote: (u32, u32)) -> Tracked {
    let half = |(next, ack)| Half { next, ack };
    Tracked {
        state,
        marks: Marks(marks),
        local: half(local),
        remote: half(remote),
    }
}

/// `most` cases, or as many as the environment allows.
pub(crate) fn cases(most: usize) -> usize {
    env::var("DEMUX_TEST_CASES").map_or(most, |text| {
        let fewer: usize = text.parse().expect("a number of cases");
        most.min(fewer)
    })
}

/// SplitMix64: small, and good enough for this.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Seeded by the environment, or by the clock; says which.
    pub(crate) fn new() -> Self {
        let seed = env::var("DEMUX_TEST_SEED").map_or_else(
            |_| {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                now.expect("a time after 1970").as_nanos() as u64
            },
            |text| text.parse().expect("a number as seed"),
        );
        println!("to repeat this: DEMUX_TEST_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn number(&mut self) -> u32 {
        self.next() as u32
    }

    /// A sequence number, often before the end of them, further than a reset with number 0 reaches.
    pub(crate) fn initial(&mut self) -> u32 {
        if self.one_in(2) {
            self.number()
        } else {
            (self.below(100_000) as u32).wrapping_sub(200_000)
        }
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}
