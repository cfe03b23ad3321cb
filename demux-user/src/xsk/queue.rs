//! The receive queues that sockets are bound to.

use std::fmt;

use crate::{ethtool, interface::Interface};

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

/// How many receive queues of an interface are in use, as its driver tells, or else as many as there are.
#[must_use]
pub fn receive_queues(interface: &Interface) -> u16 {
    let in_use = ethtool::channels(&interface.name).map_or(0, |channels| channels.rx);
    let queues = if in_use == 0 {
        interface.rx_queues
    } else {
        in_use
    };
    u16::try_from(queues).unwrap_or(u16::MAX)
}
