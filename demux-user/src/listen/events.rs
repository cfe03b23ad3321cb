//! What becomes of connections, as users see it.

use demux_common::{
    connection::{Connection, State},
    event::{Event, Happening},
    listen::Channel,
    table::Flags,
    tcp::Half,
};
use jiff::Timestamp;

use super::{Counts, Session, ring::Ring, wall::Wall};
use crate::{
    Result,
    bpffs::BpfFs,
    connections::{Joiner, Row},
};

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A row was made.
    New,
    /// Both sides have spoken: TCP is ESTABLISHED, UDP is ASSURED.
    Established,
    /// The state changed to another one.
    State,
    /// It ended by its packets, by its binding, or because somebody ended it.
    Closed,
    /// It was silent for too long; told when that is noticed, by a packet or by a sweep.
    Expired,
    /// This host had not consented to it, and it had to go for another one.
    Evicted,
    /// There was no room for a row.
    Untracked,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::New,
        Self::Established,
        Self::State,
        Self::Closed,
        Self::Expired,
        Self::Evicted,
        Self::Untracked,
    ];

    /// The name that users read and write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::State => "state",
            Self::Closed => "closed",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Untracked => "untracked",
        }
    }

    const fn of(what: Happening, state: State) -> Self {
        match (what, state) {
            (Happening::New, _) => Self::New,
            (Happening::State, State::Established | State::Assured) => Self::Established,
            (Happening::State, _) => Self::State,
            (Happening::Closed, _) => Self::Closed,
            (Happening::Expired, _) => Self::Expired,
            (Happening::Evicted, _) => Self::Evicted,
            (Happening::Untracked, _) => Self::Untracked,
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    pub kind: Kind,
    /// The state before, where it changed.
    pub previous: Option<State>,
    /// The connection, as it was then. Of one for which there was no room only the endpoints mean
    /// something.
    pub connection: Row,
}

/// A listener to events.
#[derive(Debug)]
pub struct Events {
    session: Session,
    ring: Ring,
    joiner: Joiner,
}

impl Events {
    /// Begins to listen in this network namespace.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NotLoaded`]; [`crate::Error::ListenerTaken`] while another process listens; and
    /// what the kernel refuses to users without root.
    pub fn open(bpffs: &BpfFs) -> Result<Self> {
        let (session, ring) = Session::open(bpffs, Channel::Events, None)?;
        let joiner = Joiner::read(&session.tables)?;
        Ok(Self {
            session,
            ring,
            joiner,
        })
    }

    /// Calls `visit` with what was told since the last time, at most `most` events, in order. Returns how
    /// many there were. To be called every [`super::LOOK`].
    ///
    /// # Errors
    ///
    /// Where the maps cannot be read, or demux was unloaded.
    pub fn read(&mut self, most: usize, visit: &mut dyn FnMut(EventRow)) -> Result<usize> {
        self.session.renew()?;
        let mut wall = None;
        let (joiner, tables) = (&mut self.joiner, &self.session.tables);
        let mut result = Ok(());
        let count = self.ring.read(most, &mut |event: Event| {
            let wall = *wall.get_or_insert_with(|| {
                // Once for all that is there: bindings change seldom.
                result = joiner.refresh(tables);
                Wall::now()
            });
            // One that was copied while its line changed hands says nothing.
            if let Some(row) = row(&event, joiner, wall) {
                visit(row);
            }
        });
        result.map(|()| count)
    }

    /// What was told since the beginning, and what was lost.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        self.session.counts()
    }
}

fn row(event: &Event, joiner: &Joiner, wall: Wall) -> Option<EventRow> {
    let now = joiner.clock().at_ticks(event.ticks);
    let told = event.read(joiner.lifetimes(), now)?;
    let connection = told.row.unwrap_or(NO_ROW);
    Some(EventRow {
        time: wall.at(event.time_ns),
        kind: Kind::of(told.what, connection.state),
        previous: (told.what == Happening::State).then_some(told.before),
        connection: joiner.join(&told.key, &connection, now),
    })
}

/// In place of the row for which there was no room.
const NO_ROW: Connection = Connection {
    rx_packets: 0,
    rx_bytes: 0,
    tx_packets: 0,
    tx_bytes: 0,
    created: 0,
    last_seen: 0,
    remote: Half::UNKNOWN,
    local: Half::UNKNOWN,
    epoch: 0,
    binding: 0,
    state: State::Listen,
    flags: Flags(0),
};
