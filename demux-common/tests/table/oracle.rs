//! The table beside a list of rows that does the same in the simplest way.

use std::{cell::Cell, cmp::Reverse};

use demux_common::{
    address::Address,
    clock::Clock,
    connection::{Connection, ConnectionKey, State, Timeouts},
    protocol::Protocol,
    table::{
        self, Flags, Found, Head, Inserted, Line, Memory, New, Occupancy, Probe, Recorded, Secret,
        WINDOW, sweep,
    },
    tcp::Half,
};
use proptest::prelude::*;

use super::{names::secret, stress::Flat};

/// A memory that notes which line is asked for first, and has none.
struct Asked(Cell<u32>);

impl Memory for Asked {
    type Line = ();

    fn line(&self, index: u32) -> Option<()> {
        self.0.set(index);
        None
    }

    fn cold(&self, _index: u32) -> Option<()> {
        None
    }

    fn load32<const AT: usize>(&self, (): ()) -> u32 {
        0
    }

    fn load64<const AT: usize>(&self, (): ()) -> u64 {
        0
    }

    fn store32<const AT: usize>(&self, (): (), _value: u32) {}

    fn store64<const AT: usize>(&self, (): (), _value: u64) {}

    fn exchange32<const AT: usize>(&self, (): (), _old: u32, _new: u32) -> bool {
        false
    }

    fn exchange64<const AT: usize>(&self, (): (), _old: u64, _new: u64) -> bool {
        false
    }

    fn and32<const AT: usize>(&self, (): (), _mask: u32) {}

    fn add32<const AT: usize>(&self, (): (), _addend: u32) {}
}

/// The home of a key.
pub(crate) fn home(key: &ConnectionKey, secret: &Secret, homes: u32) -> u32 {
    let asked = Asked(Cell::new(u32::MAX));
    assert!(table::find(&asked, &Probe::new(key, secret, homes), key).is_none());
    asked.0.get()
}

const HOMES: u32 = 3;
const KEYS: u8 = 48;

/// IPv4 and IPv6, TCP and UDP.
fn key(number: u8) -> ConnectionKey {
    let (local_address, remote_address) = if number & 1 == 0 {
        (
            Address::from_v4([10, 0, 0, 1]),
            Address::from_v4([192, 0, 2, number >> 2]),
        )
    } else {
        let mut remote = [0; 16];
        remote[number as usize % 16] = number | 1;
        remote[0] |= 0x20;
        (Address::from_v6([0xfd; 16]), Address::from_v6(remote))
    };
    ConnectionKey {
        local_address,
        remote_address,
        local_port: 443,
        remote_port: u16::from(number),
        protocol: if number & 2 == 0 {
            Protocol::Tcp
        } else {
            Protocol::Udp
        },
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        key: u8,
        confirmed: bool,
        state: u8,
    },
    Find {
        key: u8,
    },
    Remove {
        key: u8,
    },
    Confirm {
        key: u8,
    },
    Count {
        key: u8,
        is_rx: bool,
        packets: u32,
        bytes: u32,
    },
    Touch {
        key: u8,
    },
    AddCold {
        key: u8,
    },
    Say {
        key: u8,
        number: u32,
    },
    Wait {
        units: u32,
    },
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    let big = prop_oneof![1..3u32, 0x00ff_0000..0x0100_0000u32];
    let huge = prop_oneof![40..1500u32, 0xf000_0000..=u32::MAX];
    prop_oneof![
        12 => (key.clone(), any::<bool>(), 0..13u8)
            .prop_map(|(key, confirmed, state)| Step::Insert { key, confirmed, state }),
        3 => key.clone().prop_map(|key| Step::Find { key }),
        2 => key.clone().prop_map(|key| Step::Remove { key }),
        2 => key.clone().prop_map(|key| Step::Confirm { key }),
        6 => (key.clone(), any::<bool>(), big, huge).prop_map(|(key, is_rx, packets, bytes)| {
            Step::Count { key, is_rx, packets, bytes }
        }),
        3 => key.clone().prop_map(|key| Step::Touch { key }),
        2 => key.clone().prop_map(|key| Step::AddCold { key }),
        2 => (key, any::<u32>()).prop_map(|(key, number)| Step::Say { key, number }),
        3 => prop_oneof![1..4u32, 400..1000u32, 1..200_000u32]
            .prop_map(|units| Step::Wait { units }),
        1 => Just(Step::Sweep),
    ]
}

/// A row as the oracle has it; it stands at the index of its line.
#[derive(Clone, Debug)]
struct Row {
    key: u8,
    row: Connection,
    has_cold: bool,
    /// How long ago a packet proved it alive, by a clock that never wraps.
    seen: u64,
}

struct Oracle {
    lines: Vec<Option<Row>>,
    homes: Vec<u32>,
    lifetimes: [u32; State::SLOTS],
    now: u64,
}

impl Oracle {
    fn is_expired(&self, row: &Row) -> bool {
        self.now - row.seen >= u64::from(self.lifetimes[row.row.state as usize])
    }

    fn position(&self, key: u8) -> Option<usize> {
        self.lines
            .iter()
            .position(|line| line.as_ref().is_some_and(|row| row.key == key))
    }

    /// Where a new row goes, and over whom.
    fn choice(&self, key: u8) -> Option<usize> {
        let home = self.homes[usize::from(key)] as usize;
        let window = home..home + WINDOW as usize;
        // Of equal ones that which is nearest to the home.
        let rank = |index: usize| match &self.lines[index] {
            None => Some((3, 0, Reverse(index))),
            Some(row) if self.is_expired(row) => Some((2, self.now - row.seen, Reverse(index))),
            Some(row) if row.row.is_confirmed() => None,
            Some(row) => Some((1, self.now - row.seen, Reverse(index))),
        };
        window
            .filter(|&index| rank(index).is_some())
            .max_by_key(|&index| rank(index))
    }

    fn insert(&mut self, key: u8, new: &New) -> &'static str {
        let Some(index) = self.choice(key) else {
            return "full";
        };
        let over = match &self.lines[index] {
            None => "entered",
            Some(row) if self.is_expired(row) => "over expired",
            Some(_) => "over unconfirmed",
        };
        if let Some(at) = self.position(key)
            && at != index
        {
            let row = self.lines[at].as_ref().expect("a row");
            if !self.is_expired(row) {
                // What stood there has given way in vain.
                self.lines[index] = None;
                return "present";
            }
            self.lines[at] = None;
        }
        let is_v6 = key & 1 != 0;
        let udp = if key & 2 == 0 { 0 } else { Flags::UDP };
        let v6 = if is_v6 { Flags::IPV6 } else { 0 };
        self.lines[index] = Some(Row {
            key,
            has_cold: is_v6 || new.flags.has(Flags::CONFIRMED),
            seen: self.now,
            row: Connection {
                rx_packets: new.rx_packets.into(),
                rx_bytes: new.rx_bytes.into(),
                tx_packets: new.tx_packets.into(),
                tx_bytes: new.tx_bytes.into(),
                created: self.now as u32,
                last_seen: self.now as u32,
                remote: new.remote,
                local: new.local,
                epoch: new.epoch,
                binding: new.binding,
                state: new.state,
                flags: Flags(new.flags.0 | udp | v6),
            },
        });
        over
    }

    fn count(&mut self, index: usize, is_rx: bool, packets: u32, bytes: u32) {
        let row = self.lines[index].as_mut().expect("a row");
        let (all_packets, all_bytes) = if is_rx {
            (&mut row.row.rx_packets, &mut row.row.rx_bytes)
        } else {
            (&mut row.row.tx_packets, &mut row.row.tx_bytes)
        };
        *all_packets += u64::from(packets);
        *all_bytes += u64::from(bytes);
        if !row.has_cold {
            // There is nowhere to carry to.
            *all_packets &= 0x00ff_ffff;
            *all_bytes &= 0xffff_ffff;
        }
    }
}

fn new(key: u8, now: u32, confirmed: bool, state: u8) -> New {
    let half = |side: u32| Half {
        next: u32::from(key) << 8 | side,
        ack: u32::from(key) << 16 | side,
    };
    New {
        now,
        epoch: u32::from(key) + 1,
        remote: half(1),
        local: half(2),
        rx_packets: 1,
        rx_bytes: 60,
        tx_packets: 2,
        tx_bytes: 120,
        binding: u16::from(key) + 7,
        state: State::from_number(state),
        flags: Flags(if confirmed { Flags::CONFIRMED } else { 0 } | key & Flags::MARKS),
    }
}

fn check(steps: &[Step], seed: u64, start: u64, generation: u16) {
    let secret = secret(seed);
    let memory = Flat::new(HOMES + WINDOW - 1);
    for index in 0..HOMES + WINDOW - 1 {
        let line = memory.line(index).expect("a line");
        // Generations wrap too.
        let empty = Head::new(Occupancy::Empty, generation);
        assert!(table::change_head(&memory, line, Head(0), empty));
    }
    let mut oracle = Oracle {
        lines: vec![None; (HOMES + WINDOW - 1) as usize],
        homes: (0..KEYS)
            .map(|number| home(&key(number), &secret, HOMES))
            .collect(),
        lifetimes: Clock::new(0, 1 << 26).lifetimes(&Timeouts::default()),
        now: start,
    };
    for step in steps {
        apply(step, &memory, &mut oracle, &secret);
        compare(&memory, &oracle, &secret);
    }
}

fn probe(number: u8, secret: &Secret) -> Probe {
    Probe::new(&key(number), secret, HOMES)
}

fn find(memory: &Flat, number: u8, secret: &Secret) -> Option<Found<usize>> {
    table::find(memory, &probe(number, secret), &key(number))
}

fn apply(step: &Step, memory: &Flat, oracle: &mut Oracle, secret: &Secret) {
    let now = oracle.now as u32;
    // The row of a key, if it is there: expired or not.
    let with = |number: u8, oracle: &mut Oracle, then: &mut dyn FnMut(&Found<usize>, &mut Row)| {
        let found = find(memory, number, secret);
        let position = oracle.position(number);
        assert_eq!(
            found.map(|found| found.index as usize),
            position,
            "{number}"
        );
        if let (Some(found), Some(position)) = (found, position) {
            then(&found, oracle.lines[position].as_mut().expect("a row"));
        }
    };
    match *step {
        Step::Insert {
            key: number,
            confirmed,
            state,
        } => {
            let is_there = oracle
                .position(number)
                .and_then(|index| oracle.lines[index].as_ref())
                .is_some_and(|row| !oracle.is_expired(row));
            if is_there {
                // Whoever inserts has not found it.
                return;
            }
            let new = new(number, now, confirmed, state);
            let inserted = table::insert(
                memory,
                &probe(number, secret),
                &key(number),
                &new,
                &oracle.lifetimes,
            );
            let inserted = match inserted {
                Inserted::Entered(_) => "entered",
                Inserted::OverExpired(_) => "over expired",
                Inserted::OverUnconfirmed(_) => "over unconfirmed",
                Inserted::Present(_) => "present",
                Inserted::Full => "full",
            };
            assert_eq!(inserted, oracle.insert(number, &new));
        }
        Step::Find { key } => with(key, oracle, &mut |_, _| {}),
        Step::Remove { key } => {
            with(key, oracle, &mut |found, _| {
                assert!(table::remove(memory, found));
                assert!(!table::remove(memory, found));
                let counted = table::count::<{ Line::RX }, _>(memory, found, 0, 0);
                assert_ne!(counted, Recorded::Contended);
            });
            if let Some(position) = oracle.position(key) {
                oracle.lines[position] = None;
            }
        }
        Step::Confirm { key } => with(key, oracle, &mut |found, row| {
            let flags = Flags(found.head.flags().0 | Flags::CONFIRMED);
            assert!(table::change_head(
                memory,
                found.line,
                found.head,
                found.head.with_flags(flags)
            ));
            row.row.flags = flags;
        }),
        Step::Count {
            key,
            is_rx,
            packets,
            bytes,
        } => {
            if let Some(position) = oracle.position(key) {
                let found = find(memory, key, secret).expect("a row");
                let recorded = if is_rx {
                    table::count::<{ Line::RX }, _>(memory, &found, packets, bytes)
                } else {
                    table::count::<{ Line::TX }, _>(memory, &found, packets, bytes)
                };
                assert_eq!(recorded, Recorded::Yes);
                oracle.count(position, is_rx, packets, bytes);
                count_simply(memory, &found, key, oracle);
            }
        }
        Step::Touch { key } => {
            let at = oracle.now;
            with(key, oracle, &mut |found, row| {
                table::touch(memory, found.line, now);
                row.row.last_seen = now;
                row.seen = at;
            });
        }
        Step::AddCold { key } => with(key, oracle, &mut |found, row| {
            assert_eq!(table::has_cold(memory, found), row.has_cold);
            if !row.has_cold {
                table::add_cold(memory, found, row.row.last_seen);
                row.row.created = row.row.last_seen;
                row.has_cold = true;
            }
        }),
        Step::Say { key, number } => with(key, oracle, &mut |found, row| {
            let next = Half {
                next: number,
                ack: row.row.remote.ack,
            };
            let (old, new) = (row.row.remote.word(), next.word());
            assert!(table::put_half::<{ Line::REMOTE }, _>(
                memory, found.line, old, new
            ));
            assert!(
                old == new || !table::put_half::<{ Line::REMOTE }, _>(memory, found.line, old, new)
            );
            row.row.remote = next;
        }),
        Step::Wait { units } => oracle.now += u64::from(units),
        Step::Sweep => {
            for index in 0..HOMES + WINDOW - 1 {
                let row = oracle.lines[index as usize].as_ref();
                let expected = match row.is_some_and(|row| oracle.is_expired(row)) {
                    true => sweep::Finding::Expired,
                    false => sweep::Finding::Kept,
                };
                let finding = sweep::visit(memory, index, now, &oracle.lifetimes);
                assert_eq!(finding, expected);
                if finding == sweep::Finding::Expired {
                    oracle.lines[index as usize] = None;
                }
            }
        }
    }
}

/// The short way of counting: it counts, or a carry makes it leave everything as it is.
fn count_simply(memory: &Flat, found: &Found<usize>, key: u8, oracle: &mut Oracle) {
    let (line, generation) = (found.line, found.head.generation());
    let other = generation.wrapping_add(1);
    assert_eq!(
        table::simple_count::<{ Line::TX }, _>(memory, line, other, 1, 60),
        None
    );
    let position = oracle.position(key).expect("a row");
    let row = &oracle.lines[position].as_ref().expect("a row").row;
    let fits = row.tx_packets & 0x00ff_ffff != 0x00ff_ffff && row.tx_bytes as u32 <= u32::MAX - 60;
    let counted = table::simple_count::<{ Line::TX }, _>(memory, line, generation, 1, 60);
    assert_eq!(counted.is_some(), fits);
    if let Some(counted) = counted {
        assert!(table::put_count::<{ Line::TX }, _>(memory, line, counted));
        assert!(!table::put_count::<{ Line::TX }, _>(memory, line, counted));
        oracle.count(position, false, 1, 60);
    }
}

fn compare(memory: &Flat, oracle: &Oracle, secret: &Secret) {
    for (index, expected) in oracle.lines.iter().enumerate() {
        let row = memory.reached(index as u32);
        let expected = expected.as_ref().map(|row| {
            let mut connection = row.row;
            if !row.has_cold {
                connection.created = connection.last_seen;
            }
            (key(row.key), connection)
        });
        assert_eq!(row, expected, "line {index}");
        if let Some((_, connection)) = row {
            let row = oracle.lines[index].as_ref().expect("a row");
            let is_expired = connection.is_expired(&oracle.lifetimes, oracle.now as u32);
            assert_eq!(is_expired, oracle.is_expired(row));
        }
    }
    for number in 0..KEYS {
        let found = find(memory, number, secret).map(|found| found.index as usize);
        assert_eq!(found, oracle.position(number));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_table_does_what_the_oracle_does(
        steps in prop::collection::vec(step(), 1..250),
        seed in 0..1000u64,
        start in prop_oneof![Just(u64::from(u32::MAX) - 300), Just(1 << 31), Just(1 << 40), Just(0)],
        generation in prop_oneof![Just(0u16), Just(0x00fd), Just(0xfffd)],
    ) {
        check(&steps, seed, start, generation);
    }
}
