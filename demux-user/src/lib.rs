//! The controller of demux: what the `demux` command does, as a library that never prints.
//!
//! [`Demux`] is the way in; the command is a client of it and of the modules behind it.
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/example.rs"));
//! # fn main() { example(|| {
//! use demux_user::{Demux, bindings::{BindRequest, Destination}};
//! use demux_common::protocol::Protocol;
//!
//! let demux = Demux::open()?;
//! let name = demux.bind(&BindRequest::new(Protocol::Tcp, ":8080", Destination::Drop)?)?;
//! assert_eq!(name, "tcp-8080");
//! assert_eq!(demux.bindings()?.len(), 1);
//! demux.unbind_name(&name)?;
//! # Ok(()) }); }
//! ```

pub mod accounts;
pub mod attach;
pub mod bindings;
pub mod bpf;
pub mod bpffs;
pub mod capability;
pub mod cli;
pub mod clock;
pub mod connections;
pub mod daemon;
mod demux;
pub mod doctor;
pub mod error;
pub mod ethtool;
pub mod exec;
pub mod explain;
pub mod filter;
pub mod interface;
pub mod kernel;
pub mod kill;
pub mod listen;
pub mod load;
pub mod local_address;
pub mod locals;
pub mod metrics;
pub mod netlink;
pub mod netns;
pub mod object;
pub mod owned;
pub mod ports;
pub mod ports_in_use;
pub mod preflight;
pub mod process;
pub mod render;
mod repair;
mod secret;
pub mod settings;
pub mod sockets;
pub mod sources;
pub mod state;
pub mod tables;
pub mod top;
pub mod upgrade;
pub mod verify;
pub mod xsk;

pub use self::{
    demux::Demux,
    error::{Error, Result},
};
