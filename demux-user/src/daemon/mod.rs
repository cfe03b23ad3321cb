//! The daemon.

pub mod config;
pub mod listener;
pub mod peer;
pub mod protocol;
pub mod transport;
