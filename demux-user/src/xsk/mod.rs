//! AF_XDP: frames that go to and come from user space without the kernel's stack.

pub mod area;
pub mod mapping;
pub mod port;
pub mod queue;
pub mod region;
pub mod ring;
pub mod socket;
