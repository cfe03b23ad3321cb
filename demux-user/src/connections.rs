//! The rows of the connection table as users see them: joined with the bindings and the clock.

use std::{borrow::Cow, collections::HashMap, net::SocketAddr};

use demux_common::{
    binding::Binding,
    clock::Clock,
    connection::{Connection, ConnectionKey, Direction, State, since},
    protocol::Protocol,
};

use crate::{
    Result,
    bindings::{Labels, change::name_of, pattern::to_ip},
    tables::{Tables, now},
};

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

/// Where the packets of a connection were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Arriving and leaving.
    Both,
    /// Arriving only.
    Ingress,
    /// Leaving only.
    Egress,
    /// Nowhere yet: the kernel had the connection before demux was loaded.
    Nowhere,
}

impl Seen {
    /// The name that users read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Nowhere => "nowhere",
        }
    }
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// This host's side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
    /// The state.
    pub state: State,
    /// Which side opened it.
    pub direction: Direction,
    /// Whether this host consented to it.
    pub is_confirmed: bool,
    /// The name of the binding that owns it, while there is one.
    pub binding: Option<String>,
    /// Where its packets go.
    pub target: Cow<'static, str>,
    /// Packets that arrived.
    pub rx_packets: u64,
    /// Bytes that arrived.
    pub rx_bytes: u64,
    /// Packets that left.
    pub tx_packets: u64,
    /// Bytes that left.
    pub tx_bytes: u64,
    /// Milliseconds since the row was made.
    pub age_ms: u64,
    /// Milliseconds since a packet proved it alive.
    pub idle_ms: u64,
    /// Milliseconds until it expires.
    pub expires_ms: u64,
    /// Where its packets were seen.
    pub seen: Seen,
}

/// What rows are joined with, read at one moment.
#[derive(Debug)]
pub struct Reader<'t> {
    tables: &'t Tables,
    joiner: Joiner,
}

impl<'t> Reader<'t> {
    /// Reads what rows are joined with.
    ///
    /// # Errors
    ///
    /// Where a map cannot be read.
    pub fn new(tables: &'t Tables) -> Result<Self> {
        Ok(Self {
            tables,
            joiner: Joiner::read(tables)?,
        })
    }

    /// Calls `visit` with every row that has not expired, as it is read; ends at its first error.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read, and what `visit` returns.
    pub fn for_each(&self, mut visit: impl FnMut(Row) -> Result<()>) -> Result<()> {
        self.for_each_with_parts(|row, _, _| visit(row))
    }

    /// As [`Reader::for_each`], with what the row was put together from.
    ///
    /// # Errors
    ///
    /// As [`Reader::for_each`].
    pub fn for_each_with_parts(
        &self,
        mut visit: impl FnMut(Row, &ConnectionKey, &Connection) -> Result<()>,
    ) -> Result<()> {
        self.tables.for_each_connection(|key, connection| {
            match self.joiner.row(&key, &connection) {
                Some(row) => visit(row, &key, &connection),
                None => Ok(()),
            }
        })
    }

    /// Calls `visit` with every row that has not expired, not yet put together; ends at its first
    /// error. Whoever wants few of many rows saves most of what [`Reader::for_each`] costs.
    ///
    /// # Errors
    ///
    /// As [`Reader::for_each`].
    pub fn for_each_live(&self, mut visit: impl FnMut(&Live<'_>) -> Result<()>) -> Result<()> {
        self.tables.for_each_connection(|key, connection| {
            if connection.is_expired(&self.joiner.lifetimes, self.joiner.now) {
                return Ok(());
            }
            visit(&Live {
                joiner: &self.joiner,
                key: &key,
                connection: &connection,
            })
        })
    }

    /// How many rows each binding owns, by its index, and how many rows and confirmed rows there are.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn totals(&self) -> Result<Totals> {
        let mut totals = Totals::default();
        self.tables.for_each_connection(|key, connection| {
            if !connection.is_expired(&self.joiner.lifetimes, self.joiner.now) {
                totals.rows += 1;
                let state = (key.protocol, connection.state);
                *totals.by_state.entry(state).or_default() += 1;
                totals.confirmed += u64::from(connection.is_confirmed());
                if self.joiner.owner(&connection).is_some() {
                    *totals.by_binding.entry(connection.binding).or_default() += 1;
                }
            }
            Ok(())
        })?;
        Ok(totals)
    }
}

/// A row that has not expired, and what it is joined with.
#[derive(Clone, Copy, Debug)]
pub struct Live<'r> {
    joiner: &'r Joiner,
    /// Its four-tuple.
    pub key: &'r ConnectionKey,
    /// What the table says of it.
    pub connection: &'r Connection,
}

impl Live<'_> {
    /// The row as users see it.
    #[must_use]
    pub fn row(&self) -> Row {
        self.joiner.join(self.key, self.connection, self.joiner.now)
    }

    /// The binding that owns it, while there is one.
    #[must_use]
    pub fn binding(&self) -> Option<&Binding> {
        self.joiner.owner(self.connection)
    }

    /// Milliseconds since it was made.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        let joiner = self.joiner;
        joiner.milliseconds(since(self.connection.created, joiner.now))
    }

    /// Milliseconds since a packet proved it alive.
    #[must_use]
    pub fn idle_ms(&self) -> u64 {
        let joiner = self.joiner;
        joiner.milliseconds(self.connection.idle(joiner.now))
    }

    /// Milliseconds until it expires.
    #[must_use]
    pub fn expires_ms(&self) -> u64 {
        self.joiner.expires_ms(self.connection, self.joiner.now)
    }
}

/// How many rows there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Those that have not expired.
    pub rows: u64,
    /// Those of them that this host consented to.
    pub confirmed: u64,
    /// By protocol and state.
    pub by_state: HashMap<(Protocol, State), u64>,
    /// Those of them that a binding owns, by the index of the binding.
    pub by_binding: HashMap<u16, u64>,
}

/// What rows are joined with: the bindings, the timeouts and the clock.
#[derive(Debug)]
pub(crate) struct Joiner {
    bindings: HashMap<u16, Binding>,
    labels: Labels,
    lifetimes: [u32; State::SLOTS],
    clock: Clock,
    epoch: u32,
    now: u32,
}

impl Joiner {
    /// Reads it.
    pub(crate) fn read(tables: &Tables) -> Result<Self> {
        let config = tables.config()?;
        let bindings = tables.bindings()?;
        Ok(Self {
            labels: Labels::read(tables, &bindings)?,
            bindings: bindings.into_iter().collect(),
            lifetimes: config.lifetimes,
            clock: config.clock,
            epoch: config.epoch,
            now: config.clock.at(now()),
        })
    }

    /// Reads it again, if bindings or settings have changed.
    pub(crate) fn refresh(&mut self, tables: &Tables) -> Result<()> {
        let config = tables.config()?;
        if config.epoch != self.epoch || config.lifetimes != self.lifetimes {
            *self = Self::read(tables)?;
        }
        Ok(())
    }

    /// The clock of the table.
    pub(crate) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How long rows live without a packet, by the number of their state, in units of the clock.
    pub(crate) const fn lifetimes(&self) -> &[u32; State::SLOTS] {
        &self.lifetimes
    }

    /// The name of a binding, and its target; neither for 0 and for one that is not there.
    pub(crate) fn labels_of(&self, index: u16) -> (Option<String>, String) {
        match self.bindings.get(&index) {
            Some(binding) => (
                Some(name_of(binding)),
                self.labels.of(index, binding).into_owned(),
            ),
            None => (None, "stack".to_owned()),
        }
    }

    /// The row as users see it, unless it has expired.
    fn row(&self, key: &ConnectionKey, connection: &Connection) -> Option<Row> {
        let is_expired = connection.is_expired(&self.lifetimes, self.now);
        (!is_expired).then(|| self.join(key, connection, self.now))
    }

    /// The row as users see it at a moment of the table's clock.
    pub(crate) fn join(&self, key: &ConnectionKey, connection: &Connection, now: u32) -> Row {
        let binding = self.owner(connection);
        Row {
            protocol: key.protocol,
            local: SocketAddr::new(to_ip(&key.local_address), key.local_port),
            remote: SocketAddr::new(to_ip(&key.remote_address), key.remote_port),
            state: connection.state,
            direction: connection.flags.direction(),
            is_confirmed: connection.is_confirmed(),
            binding: binding.map(name_of),
            target: binding.map_or("stack".into(), |binding| {
                self.labels.of(connection.binding, binding)
            }),
            rx_packets: connection.rx_packets,
            rx_bytes: connection.rx_bytes,
            tx_packets: connection.tx_packets,
            tx_bytes: connection.tx_bytes,
            age_ms: self.milliseconds(since(connection.created, now)),
            idle_ms: self.milliseconds(connection.idle(now)),
            expires_ms: self.expires_ms(connection, now),
            seen: match (connection.rx_packets != 0, connection.tx_packets != 0) {
                (true, true) => Seen::Both,
                (true, false) => Seen::Ingress,
                (false, true) => Seen::Egress,
                (false, false) => Seen::Nowhere,
            },
        }
    }

    /// Milliseconds until a row expires. Not from the idle time: a reserved port may expire later
    /// than its state says.
    fn expires_ms(&self, connection: &Connection, now: u32) -> u64 {
        let left = connection
            .last_seen
            .wrapping_add(self.lifetimes[connection.state as usize])
            .wrapping_sub(now);
        self.milliseconds(if (left as i32) < 0 { 0 } else { left })
    }

    /// The binding that the row was made or last looked up for, unless its place in the table has
    /// been given to another one since.
    fn owner(&self, connection: &Connection) -> Option<&Binding> {
        let binding = self.bindings.get(&connection.binding)?;
        let is_younger = connection.epoch.wrapping_sub(binding.created) as i32 >= 0;
        is_younger.then_some(binding)
    }

    fn milliseconds(&self, units: u32) -> u64 {
        u64::from(units) * self.clock.unit_ns() / NANOSECONDS_PER_MILLISECOND
    }
}

#[cfg(test)]
mod tests {
    use demux_common::{
        address::{Address, Family},
        binding::NAME_LEN,
        connection::Timeouts,
        table::Flags,
        tcp::Half,
    };

    use super::*;

    fn binding(created: u32) -> Binding {
        let mut name = [0; NAME_LEN];
        name[..3].copy_from_slice(b"web");
        Binding {
            address: demux_common::address::ANY_V4,
            name,
            created,
            ifindex: 0,
            first_port: 80,
            last_port: 80,
            family: Family::Ipv4,
            protocol: Protocol::Tcp,
            prefix_len: 0,
            ..Binding::FREE
        }
    }

    /// Ticks of 4 ms, 16 to a unit.
    const CLOCK: Clock = Clock::new(0, 4_000_000);

    fn joiner(created: u32, now: u32) -> Joiner {
        Joiner {
            labels: Labels::default(),
            bindings: HashMap::from([(3, binding(created))]),
            lifetimes: CLOCK.lifetimes(&Timeouts::default()),
            clock: CLOCK,
            epoch: 1,
            now,
        }
    }

    const KEY: ConnectionKey = ConnectionKey {
        local_address: Address::from_v4([10, 0, 0, 2]),
        remote_address: Address::from_v4([10, 0, 0, 9]),
        local_port: 80,
        remote_port: 40_000,
        protocol: Protocol::Tcp,
    };

    fn connection(epoch: u32) -> Connection {
        Connection {
            rx_packets: 2,
            rx_bytes: 100,
            tx_packets: 0,
            tx_bytes: 0,
            created: 100,
            last_seen: 200,
            remote: Half::UNKNOWN,
            local: Half::UNKNOWN,
            epoch,
            binding: 3,
            state: State::SynReceived,
            flags: Flags(Flags::CONFIRMED),
        }
    }

    #[test]
    fn times_are_relative_to_the_clock() {
        let row = joiner(1, 300).row(&KEY, &connection(1)).unwrap();
        assert_eq!((row.age_ms, row.idle_ms), (200 * 64, 100 * 64));
        // 60 s are 937.5 units, and never fewer are waited for.
        assert_eq!(row.expires_ms, (938 - 100) * 64);
        assert_eq!(row.local.to_string(), "10.0.0.2:80");
        assert_eq!(row.seen, Seen::Ingress);
    }

    #[test]
    fn a_row_that_changed_after_the_clock_was_read_is_not_from_the_future() {
        let row = joiner(1, 150).row(&KEY, &connection(1)).unwrap();
        assert_eq!(row.idle_ms, 0);
    }

    #[test]
    fn an_expired_row_is_absent() {
        assert!(joiner(1, 1137).row(&KEY, &connection(1)).is_some());
        assert!(joiner(1, 1138).row(&KEY, &connection(1)).is_none());
    }

    #[test]
    fn a_row_has_the_name_of_its_binding_and_not_of_a_later_one() {
        let named = |created, epoch| {
            joiner(created, 300)
                .row(&KEY, &connection(epoch))
                .unwrap()
                .binding
        };
        assert_eq!(named(5, 5).as_deref(), Some("web"));
        assert_eq!(named(5, 9).as_deref(), Some("web"));
        assert_eq!(named(5, 4), None);
        // The epoch may wrap.
        assert_eq!(named(u32::MAX, 2).as_deref(), Some("web"));
        assert_eq!(named(2, u32::MAX), None);
    }
}
