//! The controller of demux: what the `demux` command does, as a library that never prints.

pub mod attach;
pub mod bindings;
pub mod bpf;
pub mod bpffs;
pub mod capability;
pub mod cli;
pub mod clock;
pub mod connections;
pub mod error;
pub mod ethtool;
pub mod exec;
pub mod explain;
pub mod filter;
pub mod interface;
pub mod kernel;
pub mod load;
pub mod local_address;
pub mod locals;
pub mod netlink;
pub mod netns;
pub mod object;
pub mod ports;
pub mod preflight;
pub mod render;
mod secret;
pub mod settings;
pub mod sockets;
pub mod sources;
pub mod state;
pub mod tables;
pub mod verify;

pub use error::{Error, Result};
