//! AF_XDP: frames that go to and come from user space without the kernel's stack, and named sets of
//! sockets, to which bindings send packets.

pub mod area;
mod cookie;
pub mod mapping;
pub mod port;
pub mod queue;
pub mod region;
pub mod registry;
pub mod remote;
pub mod ring;
pub mod socket;
