//! AF_XDP: frames that go to and come from user space without the kernel's stack, and named sets of
//! sockets, to which bindings send packets.

pub mod area;
mod cookie;
mod direct;
pub mod inspect;
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
