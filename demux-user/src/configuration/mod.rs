//! The configuration file: what `demux apply` makes true, `demux export` writes and `demux schema`
//! describes.
//!
//! ```toml
//! version = 1
//!
//! [instance]
//! max_connections = 131072       # where apply makes the instance
//!
//! [settings]                     # the keys of `demux set`
//! track = "local"
//! timeout.syn-sent = 60
//!
//! [[interface]]                  # the options of `demux load`
//! name = "eth0"
//! default = "drop"
//!
//! [[binding]]                    # the options of `demux bind`
//! name = "web"
//! protocol = "tcp"
//! local = ":80"
//! ```
//!
//! [`source`] reads the bytes, [`sections`] has their form, [`check`] what can be wrong with them without
//! asking the machine, and [`model`] what they mean. Nothing here looks at the running state.

pub mod check;
pub mod fault;
pub mod model;
pub mod schema;
pub mod sections;
pub mod source;

pub use self::{
    fault::{Fault, Faults},
    model::{BindingWish, Configuration, InterfaceWish},
    source::{Source, read},
};
