//! Rows that are there before the packet, and what rows say after it.

use demux_common::{
    clock::Clock,
    command::Command,
    connection::{Connection, ConnectionKey, Direction, State},
    protocol::Protocol,
    table::Flags,
    tcp::{Half, Marks},
    udp,
};
use demux_user::bindings::pattern::from_ip;

use super::{
    frames::{ACKNOWLEDGED, socket},
    world::EPOCH,
};

pub const SECOND: u64 = 1_000_000_000;

/// What a row says of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    pub state: State,
    pub marks: u8,
    pub remote: Half,
    pub local: Half,
}

impl Said {
    /// By the remote alone, over TCP: it has sent up to `next`, and acknowledged what segments of the
    /// tests do.
    pub const fn remote(state: State, next: u32) -> Self {
        Self {
            state,
            marks: Marks::REMOTE_SEEN,
            remote: Half {
                next,
                ack: ACKNOWLEDGED,
            },
            local: Half::UNKNOWN,
        }
    }

    /// By this host alone, over TCP: it has sent up to `next`.
    pub const fn local(state: State, next: u32) -> Self {
        Self {
            state,
            marks: Marks::LOCAL_SEEN,
            remote: Half::UNKNOWN,
            local: Half {
                next,
                ack: ACKNOWLEDGED,
            },
        }
    }

    /// A SYN that ends at `next`, and no answer.
    pub const fn syn(next: u32) -> Self {
        Self {
            remote: Half { next, ack: 0 },
            ..Self::remote(State::Listen, next)
        }
    }

    /// Over UDP.
    pub const fn udp(state: State, marks: u8) -> Self {
        Self {
            state,
            marks,
            remote: Half::UNKNOWN,
            local: Half::UNKNOWN,
        }
    }

    /// By both sides, of a connection that is under way: all that the remote has sent is acknowledged,
    /// and this host has sent what the remote acknowledges.
    pub const fn both(state: State, next: u32) -> Self {
        Self {
            marks: Marks::LOCAL_SEEN | Marks::REMOTE_SEEN,
            local: Half {
                next: ACKNOWLEDGED,
                ack: next,
            },
            ..Self::remote(state, next)
        }
    }

    pub const fn marked(self, marks: u8) -> Self {
        Self {
            marks: self.marks | marks,
            ..self
        }
    }

    pub const fn state(self, state: State) -> Self {
        Self { state, ..self }
    }

    pub const fn with_remote(self, next: u32, ack: u32) -> Self {
        Self {
            remote: Half { next, ack },
            ..self
        }
    }

    pub const fn with_local(self, next: u32, ack: u32) -> Self {
        Self {
            local: Half { next, ack },
            ..self
        }
    }

    /// Puts it into a row.
    pub fn write(self, row: &mut Connection) {
        row.state = self.state;
        row.remote = self.remote;
        row.local = self.local;
        row.flags = Flags(row.flags.0 & !Flags::MARKS | self.marks);
    }
}

/// A row that is there before the packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: ConnectionKey,
    pub said: Said,
    pub direction: Direction,
    /// How long ago its last packet came, in seconds.
    pub age: u64,
    pub epoch: u32,
    pub binding: u16,
    pub confirmed: bool,
}

impl Row {
    /// A row of the present epoch, opened by the remote, whose last packet came a second ago.
    pub fn new(protocol: Protocol, remote: &str, local: &str, said: Said) -> Self {
        Self {
            key: key(protocol, remote, local),
            said,
            direction: Direction::In,
            age: 1,
            epoch: EPOCH,
            binding: 0,
            confirmed: false,
        }
    }

    /// Of a connection of which only what the remote sends is seen.
    pub fn tcp(remote: &str, local: &str, state: State, next: u32) -> Self {
        Self::new(Protocol::Tcp, remote, local, Said::remote(state, next))
    }

    pub fn udp(remote: &str, local: &str, state: State) -> Self {
        let marks = match state {
            State::Unreplied => udp::REMOTE_SENT,
            _ => udp::REMOTE_SENT | udp::ANSWERED,
        };
        Self::new(Protocol::Udp, remote, local, Said::udp(state, marks))
    }

    pub fn saying(mut self, said: Said) -> Self {
        self.said = said;
        self
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

    /// Opened by this host.
    pub fn out(mut self) -> Self {
        self.direction = Direction::Out;
        self
    }

    /// What enters the row under a configuration of the epoch after its own.
    pub fn command(&self, clock: &Clock) -> Command {
        let mut flags = self.said.marks;
        if self.direction == Direction::Out {
            flags |= Flags::OUT;
        }
        if self.confirmed {
            flags |= Flags::CONFIRMED;
        }
        let mut command = Command::enter(self.key, self.said.state, Flags(flags));
        // Never less than its age: what is to have expired has.
        command.idle = (self.age * SECOND).div_ceil(clock.unit_ns()) as u32;
        command.remote = self.said.remote;
        command.local = self.said.local;
        command.binding = self.binding;
        command
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
