//! The case table, the host model, the oracle, and what they are made of.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test program is compiled with all of it"
)]

pub mod answer;
pub mod bound;
pub mod cases;
pub mod check;
pub mod conversation;
pub mod damaged;
pub mod frames;
pub mod memory;
pub mod model;
pub mod oracle;
pub mod ports;
pub mod random;
pub mod row;
pub mod scene;
pub mod shortcut;
pub mod sockets;
pub mod steering;
pub mod world;
