//! The receive queues that sockets are bound to.

use std::fmt;

/// A receive queue of an interface, in this network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    /// The index of the interface.
    pub ifindex: u32,
    /// The number of the queue, from 0.
    pub queue: u32,
}

/// A queue with the name of its interface, as messages have it: `eth0 queue 3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which queue it is.
    pub id: QueueId,
    /// The name of the interface.
    pub interface: String,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} queue {}", self.interface, self.id.queue)
    }
}
