//! AF_XDP: frames that go to and come from user space without the kernel's stack. Named sets of sockets,
//! to which bindings send packets, and what a stack needs to use them.

pub mod area;
pub mod checksum;
mod cookie;
mod direct;
pub mod inspect;
pub mod link;
pub mod mapping;
mod options;
pub mod port;
pub mod queue;
mod received;
pub mod region;
pub mod registry;
pub mod remote;
mod reports;
pub mod ring;
mod set;
pub mod socket;

pub use self::{
    options::{Access, Options},
    queue::QueueId,
    received::Received,
    set::{Queue, QueueStatistics, Sent, Set, Via},
    socket::CopyMode,
};
