//! Connections with names: a small number says everything about one, so that a row that is mixed of
//! two gives itself away.

use demux_common::{
    address::Address,
    clock::Clock,
    connection::{Connection, ConnectionKey, State, Timeouts},
    protocol::Protocol,
    table::{self, Flags, Found, Inserted, Memory, New, Probe, Secret},
    tcp::{Half, Marks},
};

use super::board::Board;

/// Now. The clock wraps while the tests are at it.
pub(crate) const NOW: u32 = 5;
/// Longer than any connection lives without a packet.
pub(crate) const LONG: u32 = 1_000_000;
/// Bytes of each packet.
pub(crate) const BYTES: u32 = 100;

/// What kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// TCP over IPv4, confirmed.
    Confirmed,
    /// TCP over IPv4, not confirmed: without a cold line at first.
    Unconfirmed,
    /// TCP over IPv6, confirmed.
    Confirmed6,
    /// TCP over IPv6, not confirmed.
    Unconfirmed6,
}

/// A table's settings, and the connections that have names.
pub(crate) struct Names {
    pub(crate) secret: Secret,
    pub(crate) homes: u32,
    pub(crate) lifetimes: [u32; State::SLOTS],
    next: u32,
}

/// As many random numbers as a secret has, out of one.
pub(crate) fn secret(mut seed: u64) -> Secret {
    let mut secret = Secret::ZERO;
    for number in &mut secret.numbers {
        *number = random(&mut seed);
    }
    secret
}

/// The next number of a sequence that looks random.
pub(crate) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Names {
    pub(crate) fn new(homes: u32) -> Self {
        Self {
            secret: secret(7),
            homes,
            lifetimes: Clock::new(0, 1 << 26).lifetimes(&Timeouts::default()),
            next: 0,
        }
    }

    pub(crate) fn lines(&self) -> u32 {
        self.homes + table::WINDOW - 1
    }

    /// The name of a connection with such a home.
    pub(crate) fn at(&mut self, home: u32, kind: Kind) -> u32 {
        loop {
            self.next += 1;
            let name = self.next << 2 | kind as u32;
            if self.home(name) == home {
                return name;
            }
        }
    }

    pub(crate) fn probe(&self, name: u32) -> Probe {
        Probe::new(&key(name), &self.secret, self.homes)
    }

    /// Where a connection goes in an empty table.
    fn home(&self, name: u32) -> u32 {
        match self.insert(&Board::new(self.lines()), name, &new(name)) {
            Inserted::Entered(found) => found.index,
            other => panic!("no room in an empty table: {other:?}"),
        }
    }

    pub(crate) fn find<M: Memory>(&self, memory: &M, name: u32) -> Option<Found<M::Line>> {
        table::find(memory, &self.probe(name), &key(name))
    }

    pub(crate) fn insert<M: Memory>(&self, memory: &M, name: u32, new: &New) -> Inserted<M::Line> {
        table::insert(memory, &self.probe(name), &key(name), new, &self.lifetimes)
    }

    /// Fills every line with a confirmed connection, apart from these.
    pub(crate) fn filled_but(&mut self, free: &[u32]) -> Board {
        let board = Board::new(self.lines());
        let last = self.homes - 1;
        for index in 0..self.lines() {
            let home = index.min(last);
            let name = self.at(home, Kind::Confirmed);
            self.insert(&board, name, &new(name));
        }
        let fillers: Vec<_> = (0..self.lines())
            .map(|index| board.reached(index).expect("a filler").0)
            .collect();
        for &index in free {
            let key = fillers[index as usize];
            let probe = Probe::new(&key, &self.secret, self.homes);
            let found = table::find(&board, &probe, &key).expect("a filler");
            assert!(table::remove(&board, &found));
        }
        board
    }

    /// Enters a connection, silent for so long.
    pub(crate) fn enter(&self, board: &Board, name: u32, idle: u32) {
        let mut new = new(name);
        new.now = created(name, idle);
        let inserted = self.insert(board, name, &new);
        assert!(
            matches!(inserted, Inserted::Entered(_)),
            "a line is free: {inserted:?}"
        );
    }
}

/// The four-tuple of a connection.
pub(crate) fn key(name: u32) -> ConnectionKey {
    let (local_address, remote_address) = if name & 2 == 0 {
        (
            Address::from_v4([10, 0, 0, 1]),
            Address::from_v4([192, 0, (name >> 8) as u8, name as u8]),
        )
    } else {
        let mut remote = [0x20; 16];
        remote[3..7].copy_from_slice(&name.to_be_bytes());
        remote[11..15].copy_from_slice(&name.to_be_bytes());
        (Address::from_v6([0xfd; 16]), Address::from_v6(remote))
    };
    ConnectionKey {
        local_address,
        remote_address,
        local_port: 443,
        remote_port: name as u16,
        protocol: Protocol::Tcp,
    }
}

/// What a connection begins with.
pub(crate) fn new(name: u32) -> New {
    let half = |side: u32| Half {
        next: name << 16 | side << 14,
        ack: name << 16 | side << 14,
    };
    let confirmed = if name & 1 == 0 { Flags::CONFIRMED } else { 0 };
    New {
        now: created(name, 0),
        epoch: EPOCH,
        remote: half(1),
        local: half(1),
        rx_packets: 1,
        rx_bytes: BYTES,
        tx_packets: 0,
        tx_bytes: 0,
        binding: name as u16,
        state: State::Established,
        flags: Flags(confirmed | Marks::LOCAL_SEEN | Marks::REMOTE_SEEN),
    }
}

/// The epoch of all rows.
pub(crate) const EPOCH: u32 = 77;

/// When a connection was made that was entered so long ago.
fn created(name: u32, idle: u32) -> u32 {
    NOW.wrapping_sub(idle).wrapping_sub(name % 13)
}

/// Whether a row is all of one connection.
pub(crate) fn is_of_one(key_read: &ConnectionKey, row: &Connection) -> Result<u32, String> {
    let name = u32::from(key_read.remote_port);
    let is_own_half =
        |half: Half| half == Half::UNKNOWN || half.next >> 16 == name && half.ack >> 16 == name;
    let has_own_halves = is_own_half(row.remote) && is_own_half(row.local);
    let is_own_time = [0, 1, 3, LONG]
        .map(|idle| created(name, idle))
        .contains(&row.created)
        || row.created == NOW
        || row.created == row.last_seen;
    if *key_read != key(name)
        || !has_own_halves
        || row.epoch != EPOCH
        || u32::from(row.binding) != name
        || !is_own_time
    {
        return Err(format!(
            "a row of several connections: {key_read:?} {row:?}"
        ));
    }
    Ok(name)
}
