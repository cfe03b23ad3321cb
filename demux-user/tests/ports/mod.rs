//! What the tests of the port allocator share.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test program is compiled with all of it"
)]

pub mod rfc6056;
pub mod uniform;
