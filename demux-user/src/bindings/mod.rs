//! Bindings: what users write, what is stored of it, and the tables that the datapath matches against.

pub(crate) mod admission;
pub mod change;
pub mod compile;
pub(crate) mod conflict;
pub mod destination;
pub mod pattern;
pub mod publish;
pub(crate) mod replace;
mod stages;
pub(crate) mod steering;

pub use self::{
    change::{BindRequest, Fallback, Selector, bind, bind_all, unbind},
    compile::{Compiled, compile},
    destination::{Destination, Labels, SetName},
    pattern::{LocalAddress, Pattern, Ports},
};
