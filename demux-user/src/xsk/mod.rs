//! AF_XDP sockets: named sets of them, to which bindings send packets, and what a stack needs to use them.

pub mod checksum;
mod cookie;
pub mod link;
pub mod registry;
