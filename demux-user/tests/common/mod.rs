//! What several test programs share. Each uses its part of it.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    reason = "every test program is compiled with all of it"
)]

pub mod bpf;
pub mod bpffs;
pub mod chance;
pub mod crowd;
pub mod daemon;
pub mod demux;
pub mod egress;
pub mod flood;
pub mod frames;
pub mod inside;
pub mod mixture;
pub mod netns;
pub mod nftables;
pub mod owner;
pub mod pair;
pub mod places;
pub mod privileges;
pub mod scene;
pub mod snapshot;
pub mod sockets;
pub mod stream;
pub mod terminal;
pub mod user;
pub mod wait;
pub mod web;

/// Makes of each function, which takes the mode as an argument, a test for every mode of XDP.
macro_rules! in_both_modes {
    ($($name:ident)*) => {
        mod native {
            $(#[test] fn $name() { super::$name("native"); })*
        }
        mod generic {
            $(#[test] fn $name() { super::$name("generic"); })*
        }
    };
}
pub(crate) use in_both_modes;
