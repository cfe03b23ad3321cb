//! AF_XDP: frames for user space.

pub mod checksum;
pub mod link;
