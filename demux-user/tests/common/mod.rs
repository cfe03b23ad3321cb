//! What several test programs share. Each uses its part of it.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test program is compiled with all of it"
)]

pub mod bpf;
pub mod bpffs;
pub mod netns;
pub mod nftables;
pub mod user;
