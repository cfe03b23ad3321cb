//! What the packet path needs of the tables: in the kernel BPF maps, on the host whatever a test brings.

use crate::{
    address::Address,
    binding::{AddressKey, Binding, PortProfile, PortSlot, PrefixKey, PrefixMatch},
    config::{Config, Interface},
    connection::{Connection, ConnectionKey, Direction, State},
    decide::{self, PackedDecision},
    matcher::{self, Endpoint},
    parse::Parsed,
    protocol::Protocol,
    reason::{Reason, Verdict},
};

/// What the kernel's own tables of sockets say of a four-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelSocket {
    /// No socket would take the packet.
    None,
    /// A listener, a UDP socket, or what is left of a connection in TIME-WAIT: only a SYN opens
    /// a connection there.
    Listener,
    /// A TCP handshake that the kernel has answered and the remote has not completed.
    Request,
    /// A connected TCP socket.
    Connected,
}

/// The tables that say to whom a local endpoint is bound.
pub trait BindingTables {
    /// The slot of a port.
    fn port(&self, protocol: Protocol, port: u16) -> Option<PortSlot>;
    /// The profile at an index.
    fn profile(&self, index: u16) -> Option<&PortProfile>;
    /// The index of the binding with exactly this address and device.
    fn address(&self, key: &AddressKey) -> Option<u16>;
    /// The longest prefix that covers the key.
    fn prefix(&self, key: &PrefixKey) -> Option<PrefixMatch>;
    /// The binding at an index.
    fn binding(&self, index: u16) -> Option<&Binding>;
    /// [`matcher::search`]; the kernel program puts it into a function of its own.
    #[inline(always)]
    fn search(&self, profile: u16, endpoint: &Endpoint, any: u16) -> u16 {
        matcher::search(self, profile, endpoint, any)
    }
}

/// What the packet path reads of a row; see [`Connection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The state.
    pub state: State,
    /// The sequence number that the remote sends next.
    pub remote_next: u32,
    /// When a packet last proved the connection alive.
    pub last_seen: u64,
    /// The configuration epoch for which `binding` was looked up.
    pub epoch: u32,
    /// Index of the binding that owns the row; 0 for none.
    pub binding: u16,
}

/// What an arriving packet changes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Bytes of the frame.
    pub bytes: u64,
    /// The time, where the packet proves the connection alive.
    pub alive: Option<u64>,
    /// The state.
    pub state: State,
    /// The sequence number that the remote sends next.
    pub remote_next: u32,
    /// The configuration epoch for which `binding` was looked up.
    pub epoch: u32,
    /// Index of the binding that owns the row; 0 for none.
    pub binding: u16,
    /// What becomes of the row besides.
    pub change: Change,
}

/// What becomes of a row besides its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It is confirmed.
    Confirmed,
    /// It starts anew, for a new connection that the remote opened with the same four-tuple.
    Reopened,
}

impl Update {
    /// Applies the packet.
    #[inline(always)]
    pub fn apply(&self, connection: &mut Connection) {
        connection.rx_packets += 1;
        connection.rx_bytes += self.bytes;
        connection.binding = self.binding;
        connection.epoch = self.epoch;
        connection.state = self.state;
        connection.remote_next = self.remote_next;
        if let Some(now) = self.alive {
            connection.last_seen = now;
        }
        match self.change {
            Change::None => {}
            Change::Confirmed => connection.flags |= Connection::CONFIRMED,
            Change::Reopened => {
                connection.flags = 0;
                connection.direction = Direction::In;
                connection.created = connection.last_seen;
                connection.rx_packets = 1;
                connection.rx_bytes = self.bytes;
                connection.tx_packets = 0;
                connection.tx_bytes = 0;
            }
        }
    }
}

/// The connection table.
pub trait ConnectionTable {
    /// A handle to a row; the row may change or vanish under it at any time.
    type Row: Copy;

    /// The row of a four-tuple, expired or not.
    fn find(&self, key: &ConnectionKey) -> Option<Self::Row>;
    /// What the packet path needs to know of the row.
    fn view(&self, row: Self::Row) -> View;
    /// Applies a packet to the row.
    fn update(&self, row: Self::Row, update: &Update);
    /// Enters a row, replacing one with the same key; `false` where there is no room.
    fn insert(&self, key: &ConnectionKey, connection: &Connection) -> bool;
    /// Removes a row.
    fn remove(&self, key: &ConnectionKey);
}

/// Everything else that the packet path reads, and the counters that it writes.
pub trait Tables: BindingTables + ConnectionTable {
    /// The settings of the instance.
    fn config(&self) -> Option<&Config>;
    /// The entry of an interface slot.
    fn interface(&self, slot: u32) -> Option<&Interface>;
    /// The coarse monotonic clock, in nanoseconds.
    fn now(&self) -> u64;
    /// Asks the kernel's own sockets.
    fn kernel_socket(&self, key: &ConnectionKey) -> KernelSocket;
    /// Whether this is one of the host's own addresses; `prefixes` says whether AnyIP routes exist.
    fn is_local(&self, address: &Address, prefixes: bool) -> bool;
    /// Whether the routing table might send the packet on, or has no answer.
    fn may_forward(&self, key: &ConnectionKey) -> bool;
    /// Counts a packet of an interface slot.
    fn count(&self, slot: u32, verdict: Verdict, reason: Reason, bytes: u64);
    /// Counts a packet that found no room in the connection table.
    fn count_untracked(&self, slot: u32, bytes: u64);
    /// Counts a packet of a binding.
    fn count_binding(&self, index: u16, bytes: u64);
    /// [`decide::judge`]; the kernel program puts it into a function of its own.
    #[inline(always)]
    fn judge(&self, parsed: &Parsed, slot: u32) -> PackedDecision {
        decide::judge(self, parsed, slot)
    }
}
