//! Bindings: what users write, what is stored of it, and the tables that the datapath matches against.

pub mod change;
pub mod compile;
pub mod pattern;
pub mod publish;

pub use self::{
    change::{BindRequest, Selector, bind, unbind},
    compile::{Compiled, compile},
    pattern::{LocalAddress, Pattern, Ports},
};
