//! AF_XDP: frames that go to and come from user space without the kernel's stack. Named sets of sockets, to
//! which bindings send packets, and what a stack needs to use them.

pub mod area;
pub mod checksum;
mod cookie;
pub mod inspect;
pub mod link;
pub mod mapping;
pub mod port;
pub mod queue;
pub mod region;
pub mod registry;
pub mod remote;
pub mod ring;
pub mod socket;
