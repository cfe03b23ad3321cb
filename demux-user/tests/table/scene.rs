//! Connections by chance, and packets of them: most of a stream that goes on, the rest anything.

use std::collections::HashMap;

use demux_common::{
    connection::{Connection, ConnectionKey, Direction, State},
    protocol::Protocol,
    tcp::{Half, Marks, WINDOW},
};

use super::{
    check::Leaving,
    frames::{
        ACK, ECE, FIN, Frame, HOP_BY_HOP, OTHER_MAC, PSH, RST, SYN, URG, datagram, extension,
        segment,
    },
    random::{Random, damage},
    row::{Row, Said},
    world::{Bound, EPOCH, World, dropping, key, passing},
};

/// The endpoints that talk to each other, the remote first.
const PAIRS: [[&str; 2]; 6] = [
    ["10.0.0.1:40000", "10.0.0.2:80"],
    ["10.0.0.1:40001", "10.0.0.2:22"],
    ["10.0.0.1:443", "10.0.0.3:50000"],
    ["[2001:db8::1]:40000", "[2001:db8::2]:80"],
    ["[2001:db8::1]:40001", "[2001:db8::2]:22"],
    ["[2001:db8::1]:443", "[2001:db8::3]:50000"],
];

/// A world with a row of each pair of endpoints.
#[derive(Debug)]
pub struct Scene {
    pub world: World,
    pub rows: Vec<Row>,
}

/// A packet of one of the connections.
#[derive(Debug)]
pub struct Packet {
    pub bytes: Vec<u8>,
    /// How it leaves, if it does not arrive.
    pub leaving: Option<Leaving>,
}

impl Scene {
    pub fn new(random: &mut Random) -> Self {
        Self {
            world: world(random),
            rows: PAIRS.iter().map(|pair| row(random, *pair)).collect(),
        }
    }

    /// A packet that goes on from what the rows say now.
    pub fn packet(&self, random: &mut Random, rows: &HashMap<ConnectionKey, Connection>) -> Packet {
        let place = random.below(PAIRS.len());
        let ([remote, local], row) = (PAIRS[place], &self.rows[place]);
        let (theirs, ours) = rows
            .get(&row.key)
            .map_or((Half::UNKNOWN, Half::UNKNOWN), |row| {
                (row.remote, row.local)
            });
        let protocol = row.key.protocol;
        let arrives = !random.one_in(3);
        let frame = if arrives {
            frame(random, protocol, [remote, local], (theirs, ours))
        } else {
            frame(random, protocol, [local, remote], (ours, theirs))
        };
        let mut bytes = frame.bytes;
        if random.one_in(4) {
            damage(random, &mut bytes);
        }
        let leaving = Leaving {
            segments: random.pick(&[0, 0, 1, 3, 60]),
            is_forwarded: random.one_in(8),
            is_reported: false,
            packets: 0,
            bytes: 0,
            binding: 0,
        };
        Packet {
            bytes,
            leaving: (!arrives).then_some(leaving),
        }
    }
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
