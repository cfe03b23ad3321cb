//! Rows that are there before the packet.

use demux_common::{
    connection::{Connection, ConnectionKey, State},
    protocol::Protocol,
};
use demux_user::bindings::pattern::from_ip;
use zerocopy::TryFromBytes as _;

use super::{frames::socket, world::EPOCH};

pub const SECOND: u64 = 1_000_000_000;

/// What a row made before the packet says, whatever its state and age.
pub fn earlier() -> Connection {
    let mut row = Connection::try_read_from_bytes(&[0; size_of::<Connection>()]).expect("a row");
    row.rx_packets = 7;
    row.rx_bytes = 700;
    row.tx_packets = 3;
    row.tx_bytes = 300;
    row
}

/// A row that is there before the packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: ConnectionKey,
    pub state: State,
    pub remote_next: u32,
    /// How long ago its last packet came.
    pub age: u64,
    pub epoch: u32,
    pub binding: u16,
    pub confirmed: bool,
}

impl Row {
    /// A row of the present epoch whose last packet came a second ago.
    pub fn new(
        protocol: Protocol,
        remote: &str,
        local: &str,
        state: State,
        remote_next: u32,
    ) -> Self {
        Self {
            key: key(protocol, remote, local),
            state,
            remote_next,
            age: 1,
            epoch: EPOCH,
            binding: 0,
            confirmed: false,
        }
    }

    pub fn tcp(remote: &str, local: &str, state: State, remote_next: u32) -> Self {
        Self::new(Protocol::Tcp, remote, local, state, remote_next)
    }

    pub fn udp(remote: &str, local: &str, state: State) -> Self {
        Self::new(Protocol::Udp, remote, local, state, 0)
    }

    pub fn aged(mut self, seconds: u64) -> Self {
        self.age = seconds;
        self
    }

    pub fn of_binding(mut self, binding: u16) -> Self {
        self.binding = binding;
        self
    }

    /// From before the last change of the bindings.
    pub fn outdated(mut self) -> Self {
        self.epoch = EPOCH - 1;
        self
    }

    pub fn confirmed(mut self) -> Self {
        self.confirmed = true;
        self
    }

    pub fn stored(&self, now: u64) -> Connection {
        // The clock may have started later than the row claims to be from; it wraps.
        let last_seen = now.wrapping_sub(self.age * SECOND);
        Connection {
            created: last_seen.wrapping_sub(5 * SECOND),
            last_seen,
            remote_next: self.remote_next,
            epoch: self.epoch,
            binding: self.binding,
            state: self.state,
            flags: if self.confirmed {
                Connection::CONFIRMED
            } else {
                0
            },
            ..earlier()
        }
    }
}

pub fn key(protocol: Protocol, remote: &str, local: &str) -> ConnectionKey {
    let (remote, local) = (socket(remote), socket(local));
    ConnectionKey {
        local_address: from_ip(local.ip()),
        remote_address: from_ip(remote.ip()),
        local_port: local.port(),
        remote_port: remote.port(),
        protocol,
    }
}
