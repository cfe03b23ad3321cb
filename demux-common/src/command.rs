//! What the controller asks the program `demux_control` to do in the connection table: the table is
//! changed by BPF programs only.
//!
//! Commands stand one behind the other in the packet of a test run, behind a [`Preamble`], and come
//! back with their outcome.

use crate::{
    connection::{ConnectionKey, State},
    ports::Request,
    table::{self, Flags, Found, Head, Inserted, New, Occupancy, Probe, sweep},
    tables::{TableEvent, Tables},
    tcp::Half,
};

/// How many commands fit into one run: with room for its headers the packet is one page.
pub const BATCH: usize = 24;

/// What stands before the commands.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Preamble {
    /// Answered: the kernel's tick counter; see [`crate::clock`].
    pub ticks: u64,
    /// How many commands follow, up to [`BATCH`].
    pub count: u64,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Enter a connection, unless its four-tuple has a row.
    Enter = 1,
    /// Remove the row of a four-tuple.
    Remove = 2,
    /// Remove the row in the line at an index, if the head is as given and the row has expired.
    Expire = 3,
    /// Empty the line at an index that its writer has left, if the head is as given; see
    /// [`crate::table::sweep::give_back`].
    GiveBack = 4,
    /// Reserve a local port for the four-tuple: see [`crate::ports`].
    Allocate = 5,
    /// Give back the local port of a four-tuple that is only reserved.
    Release = 6,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not looked at.
    None = 0,
    /// It was done.
    Done = 1,
    /// The four-tuple has a row already.
    Present = 2,
    /// There is no room.
    Full = 3,
    /// There is no such row, or the line is not as given.
    Absent = 4,
}

/// A command.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Command {
    /// [`Operation`].
    pub operation: u32,
    /// [`Outcome`]; 0 in a question.
    pub outcome: u32,
    /// The four-tuple, and what a port is asked for with.
    pub request: Request,
    /// The head of the line. Of [`Operation::Allocate`], where it is answered, [`crate::ports::Answer::pack`].
    pub head: u64,
    /// The index of the line.
    pub index: u32,
    /// How long nothing has been seen of the connection, in units of [`crate::clock`].
    pub idle: u32,
    /// What the remote has said.
    pub remote: Half,
    /// What this host has said.
    pub local: Half,
    /// Index of the binding that owns the connection; 0 for none.
    pub binding: u16,
    /// The number of the state.
    pub state: u8,
    /// Marks, direction and whether it is confirmed.
    pub flags: u8,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Command>() == 104);

impl Command {
    const EMPTY: Self = Self {
        operation: 0,
        outcome: 0,
        request: Request::of(crate::parse::Parsed::EMPTY.key),
        head: 0,
        index: 0,
        idle: 0,
        remote: Half::UNKNOWN,
        local: Half::UNKNOWN,
        binding: 0,
        state: 0,
        flags: 0,
        reserved: 0,
    };

    /// To enter a connection.
    #[must_use]
    pub const fn enter(key: ConnectionKey, state: State, flags: Flags) -> Self {
        Self {
            operation: Operation::Enter as u32,
            request: Request::of(key),
            state: state as u8,
            flags: flags.0,
            ..Self::EMPTY
        }
    }

    /// To remove the row of a four-tuple.
    #[must_use]
    pub const fn remove(key: ConnectionKey) -> Self {
        Self {
            operation: Operation::Remove as u32,
            request: Request::of(key),
            ..Self::EMPTY
        }
    }

    /// To do something to the line at an index.
    #[must_use]
    pub const fn at(operation: Operation, index: u32, head: Head) -> Self {
        Self {
            operation: operation as u32,
            index,
            head: head.0,
            ..Self::EMPTY
        }
    }

    /// To reserve a local port.
    #[must_use]
    pub const fn allocate(request: Request) -> Self {
        Self {
            operation: Operation::Allocate as u32,
            request,
            ..Self::EMPTY
        }
    }

    /// To give back a local port.
    #[must_use]
    pub const fn release(key: ConnectionKey) -> Self {
        Self {
            operation: Operation::Release as u32,
            request: Request::of(key),
            ..Self::EMPTY
        }
    }

    /// The connection to enter.
    #[inline(always)]
    #[must_use]
    pub const fn new_connection(&self, now: u32, epoch: u32) -> New {
        New {
            now: now.wrapping_sub(self.idle),
            // Its binding is for its next packet to find out.
            epoch: epoch.wrapping_sub(1),
            remote: self.remote,
            local: self.local,
            rx_packets: 0,
            rx_bytes: 0,
            tx_packets: 0,
            tx_bytes: 0,
            binding: self.binding,
            state: State::from_number(self.state),
            flags: Flags(self.flags),
        }
    }
}

/// Does what a command says, of those that ask for no port.
#[inline(always)]
pub fn execute<T: Tables + ?Sized>(tables: &T, command: &Command) -> Outcome {
    const ENTER: u32 = Operation::Enter as u32;
    const REMOVE: u32 = Operation::Remove as u32;
    const EXPIRE: u32 = Operation::Expire as u32;
    const GIVE_BACK: u32 = Operation::GiveBack as u32;
    let Some(config) = tables.config() else {
        return Outcome::None;
    };
    let now = config.clock.at_ticks(tables.ticks());
    let done = |is_done| {
        if is_done {
            Outcome::Done
        } else {
            Outcome::Absent
        }
    };
    match command.operation {
        ENTER => {
            let probe = Probe::new(&command.request.key, tables, tables.homes());
            let new = command.new_connection(now, config.epoch);
            match table::insert(
                tables,
                &probe,
                &command.request.key,
                &new,
                &config.lifetimes,
            ) {
                Inserted::Present(_) => Outcome::Present,
                Inserted::Full => Outcome::Full,
                Inserted::Entered(_) | Inserted::OverExpired(_) => Outcome::Done,
                Inserted::OverUnconfirmed(_) => {
                    tables.count_event(TableEvent::OverUnconfirmed);
                    Outcome::Done
                }
            }
        }
        REMOVE => {
            let probe = Probe::new(&command.request.key, tables, tables.homes());
            match table::find(tables, &probe, &command.request.key) {
                Some(found) => done(table::remove(tables, &found)),
                None => Outcome::Absent,
            }
        }
        EXPIRE => {
            let head = Head(command.head);
            let Some(line) = tables.line(command.index) else {
                return Outcome::Absent;
            };
            let index = command.index;
            done(
                head.is(Occupancy::Live)
                    && table::is_expired(tables, line, head, now, &config.lifetimes)
                    && table::remove(tables, &Found { index, line, head }),
            )
        }
        GIVE_BACK => done(sweep::give_back(tables, command.index, Head(command.head))),
        _ => Outcome::None,
    }
}
