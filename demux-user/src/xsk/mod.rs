//! AF_XDP sockets: named sets of them, to which bindings send packets.

mod cookie;
pub mod registry;
