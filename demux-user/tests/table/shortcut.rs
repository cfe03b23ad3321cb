//! The shortest way of a packet beside the long one: the same packets, by chance, through two
//! tables that are alike.

use demux_common::{
    command::Outcome,
    connection::{Direction, State},
    protocol::Protocol,
    table::{Cold, Line},
    tcp::{Half, Marks, WINDOW},
};

use super::{
    check::Leaving,
    frames::{
        ACK, ECE, FIN, Frame, HOP_BY_HOP, OTHER_MAC, PSH, RST, SYN, URG, datagram, extension,
        segment,
    },
    model::{Model, STEADY, WRAPPED},
    random::{Random, damage},
    row::{Row, SECOND, Said},
    world::{Bound, EPOCH, World, dropping, key, passing},
};

const IFINDEX: u32 = 7;

/// Few, so that rows stand in each other's windows.
const CONNECTIONS: u32 = 8;

/// The endpoints that talk to each other, the remote first.
const PAIRS: [[&str; 2]; 6] = [
    ["10.0.0.1:40000", "10.0.0.2:80"],
    ["10.0.0.1:40001", "10.0.0.2:22"],
    ["10.0.0.1:443", "10.0.0.3:50000"],
    ["[2001:db8::1]:40000", "[2001:db8::2]:80"],
    ["[2001:db8::1]:40001", "[2001:db8::2]:22"],
    ["[2001:db8::1]:443", "[2001:db8::3]:50000"],
];

/// How many packets took which way.
#[derive(Debug, Default)]
pub struct Ways {
    /// Arriving packets that a steady row had.
    pub arrived: usize,
    /// Leaving packets that a steady row had.
    pub left: usize,
    pub all: usize,
}

/// Sends so many packets through tables with rows of every kind; ends the test at a difference.
pub fn compare(random: &mut Random, packets: usize) -> Ways {
    const OF_A_WORLD: usize = 12;
    let mut ways = Ways::default();
    for _ in 0..packets.div_ceil(OF_A_WORLD) {
        let mut both = Both::new(random);
        for _ in 0..OF_A_WORLD {
            both.step(random, &mut ways);
        }
    }
    ways
}

struct Both {
    short: Model,
    long: Model,
    rows: Vec<Row>,
}

impl Both {
    fn new(random: &mut Random) -> Self {
        let (world, clock) = (world(random), random.pick(&[STEADY, WRAPPED]));
        let rows: Vec<Row> = PAIRS.iter().map(|pair| row(random, *pair)).collect();
        // Where the tallies stand: at their beginning, and short of what they can hold.
        let filled: Vec<[u32; 2]> = rows
            .iter()
            .map(|_| {
                let bytes = random.pick(&[0, 700, u32::MAX, u32::MAX - 60, u32::MAX - 300]);
                [random.pick(&[7, 7, 0x00ff_fffe, 0x00ff_ffff]), bytes]
            })
            .collect();
        let model = || {
            let mut model = Model::at(&world, IFINDEX, clock).with_connections(CONNECTIONS);
            for (row, [packets, bytes]) in rows.iter().zip(&filled) {
                let command = row.command(&clock);
                assert_eq!(model.enter(row.epoch + 1, &command), Outcome::Done);
                model.count_before(&row.key, *packets, *bytes);
            }
            model
        };
        Self {
            short: model(),
            long: model().without_shortcut(),
            rows,
        }
    }

    fn step(&mut self, random: &mut Random, ways: &mut Ways) {
        let passed = random.pick(&[0, 0, 1, 64_000_000, SECOND, 70 * SECOND, 9000 * SECOND]);
        let passed = if random.one_in(6) { passed } else { 0 };
        self.short.advance_ns(passed);
        self.long.advance_ns(passed);
        let arrives = !random.one_in(3);
        let (pair, row) = {
            let place = random.below(PAIRS.len());
            (PAIRS[place], &self.rows[place])
        };
        // What the row says now is what a sender goes on from.
        let said = self
            .short
            .lines()
            .rows()
            .get(&row.key)
            .map_or((Half::UNKNOWN, Half::UNKNOWN), |connection| {
                (connection.remote, connection.local)
            });
        let frame = if arrives {
            frame(random, row.key.protocol, pair, said)
        } else {
            frame(
                random,
                row.key.protocol,
                [pair[1], pair[0]],
                (said.1, said.0),
            )
        };
        let mut bytes = frame.bytes;
        if random.one_in(4) {
            damage(random, &mut bytes);
        }
        ways.all += 1;
        if arrives {
            let (short, long) = (self.short.decide(&bytes), self.long.decide(&bytes));
            assert_eq!(short, long, "{bytes:02x?}");
        } else {
            let leaving = Leaving {
                segments: random.pick(&[0, 0, 1, 3, 60]),
                is_forwarded: random.one_in(8),
                packets: 0,
                bytes: 0,
                binding: 0,
            };
            self.short.leave(&bytes, &leaving);
            self.long.leave(&bytes, &leaving);
        }
        let [arrived, left] = self.short.taken();
        ways.arrived += arrived;
        ways.left += left;
        let (short, long) = (lines(&self.short), lines(&self.long));
        for (index, (short, long)) in short.iter().zip(&long).enumerate() {
            assert_eq!(short, long, "line {index} after {bytes:02x?}");
        }
        assert!(self.short.counts_as(&self.long), "{bytes:02x?}");
        self.short.lines().assert_sound();
    }
}

fn lines(model: &Model) -> Vec<(Line, Cold)> {
    let lines = model.lines();
    (0..lines.count())
        .map(|index| (lines.hot(index), lines.cold_line(index)))
        .collect()
}

fn world(random: &mut Random) -> World {
    let mut world = if random.one_in(2) {
        passing()
    } else {
        dropping()
    };
    world.egress = random.one_in(2);
    if random.one_in(4) {
        world = world.tracking_bound();
    }
    world.with([
        Bound::tcp(":80"),
        Bound::tcp("*:22").drop(),
        Bound::udp("*:*").untracked(),
    ])
}

/// A row that is steady more often than not, or nearly so.
fn row(random: &mut Random, [remote, local]: [&str; 2]) -> Row {
    if random.one_in(8) {
        let state = random.pick(&[State::Unreplied, State::Replied, State::Assured]);
        return Row::udp(remote, local, state);
    }
    let near_the_end = random.pick(&[1000, 1000, 0, u32::MAX - 2, 1 << 31]);
    let state = if random.one_in(6) {
        random.pick(&[
            State::SynSent,
            State::SynReceived,
            State::FinWait1,
            State::CloseWait,
            State::TimeWait,
            State::Listen,
        ])
    } else {
        State::Established
    };
    let mut said = if random.one_in(3) {
        Said::remote(state, near_the_end)
    } else {
        Said::both(state, near_the_end)
    };
    if random.one_in(8) {
        said.marks ^= random.pick(&[
            Marks::LOCAL_FIN,
            Marks::REMOTE_FIN,
            Marks::LOCAL_SEEN,
            Marks::REMOTE_SEEN,
        ]);
    }
    Row {
        key: key(Protocol::Tcp, remote, local),
        said,
        direction: random.pick(&[Direction::In, Direction::Out]),
        age: random.pick(&[0, 1, 50, 7990]),
        epoch: EPOCH - u32::from(random.one_in(8)),
        binding: random.pick(&[0, 0, 1, 2]),
        confirmed: !random.one_in(8),
    }
}

/// A packet of one endpoint to another: of a stream that goes on from `sender`, and mostly nothing
/// else.
fn frame(
    random: &mut Random,
    protocol: Protocol,
    [from, to]: [&str; 2],
    (sender, receiver): (Half, Half),
) -> Frame {
    let data = vec![7; random.pick(&[0, 0, 1, 4, 100, 1400])];
    let frame = match protocol {
        Protocol::Udp => datagram(from, to, &data),
        Protocol::Tcp => {
            let flags = if random.one_in(6) {
                random.pick(&[
                    0,
                    SYN,
                    SYN | ACK,
                    FIN | ACK,
                    FIN,
                    RST,
                    RST | ACK,
                    ACK | URG,
                    ACK | URG | PSH,
                    0xff,
                ])
            } else {
                random.pick(&[ACK, ACK | PSH, ACK | ECE])
            };
            let off = |random: &mut Random| {
                if random.one_in(5) {
                    let distance = random.pick(&[1, 4, 1000, WINDOW, WINDOW + 1, 1 << 31]);
                    random.pick(&[distance, distance.wrapping_neg()])
                } else {
                    0
                }
            };
            let sequence = sender.next.wrapping_add(off(random));
            let acknowledgement = receiver.next.wrapping_add(off(random));
            segment(from, to, flags, sequence, &data).acknowledging(acknowledgement)
        }
    };
    let frame = match random.below(16) {
        0 => frame.tag(0x8100, 7),
        1 if frame.is_v4() => frame.options(&[1; 4]),
        1 => frame.extensions(&[(HOP_BY_HOP, extension(0, 8))]),
        2 => frame.padded(9),
        3 => frame.station(OTHER_MAC),
        _ => frame,
    };
    let missing = 60_usize.saturating_sub(frame.bytes.len());
    frame.padded(missing)
}
