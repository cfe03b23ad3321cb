//! Bindings: what users write, what is stored of it, and the tables that the datapath matches against.

mod admission;
pub mod change;
pub mod compile;
mod conflict;
pub mod pattern;
pub mod publish;

pub use self::{
    change::{BindRequest, Selector, bind, bind_all, unbind},
    compile::{Compiled, compile},
    pattern::{LocalAddress, Pattern, Ports},
};
