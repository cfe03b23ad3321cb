//! What a configuration asks for, with every value understood.

use std::path::PathBuf;

use demux_common::config::Policy;

use super::sections::Instance;
use crate::{
    attach::{EgressChoice, ModeChoice},
    bindings::{BindRequest, Destination, Fallback, Pattern},
    settings::Assignment,
};

/// Everything that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// The files that it was read from.
    pub files: Vec<PathBuf>,
    /// What is decided when the tables are made.
    pub instance: Instance,
    /// Settings of the whole instance; defaults of interfaces are in `interfaces`.
    pub settings: Vec<Assignment>,
    /// Interfaces, each once.
    pub interfaces: Vec<InterfaceWish>,
    /// Bindings, in the order in which they are to be bound.
    pub bindings: Vec<BindingWish>,
}

/// An interface to attach to.
#[derive(Clone, Debug)]
pub struct InterfaceWish {
    /// Its name.
    pub name: String,
    /// How to attach; `None` leaves it as it is.
    pub mode: Option<ModeChoice>,
    /// How to see what leaves; `None` leaves it as it is.
    pub egress: Option<EgressChoice>,
    /// Where packets go that nothing claims; `None` leaves it as it is.
    pub default: Option<Policy>,
    /// Whether the default is set although it could hurt.
    pub force: bool,
}

/// A binding.
#[derive(Clone, Debug)]
pub struct BindingWish {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The local endpoints.
    pub pattern: Pattern,
    /// The device it is bound to.
    pub device: Option<String>,
    /// Where their packets go.
    pub target: Destination,
    /// What becomes of packets that the target cannot take; `None` for what is usual.
    pub fallback: Option<Fallback>,
    /// As in [`BindRequest`].
    pub flags: u8,
    /// As in [`BindRequest`].
    pub freebind: bool,
}

impl BindingWish {
    /// What `demux bind` would have asked for. `ifindex` is the index of the device.
    #[must_use]
    pub fn request(&self, ifindex: u32) -> BindRequest {
        BindRequest {
            pattern: self.pattern,
            target: self.target.clone(),
            fallback: self.fallback,
            name: self.name.clone(),
            ifindex,
            flags: self.flags,
            freebind: self.freebind,
        }
    }
}
