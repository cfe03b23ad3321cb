//! Making the running state what a [configuration](crate::configuration) asks for, and writing the running
//! state as one.
//!
//! [`state`] is what runs, [`plan`] compares it with what is asked for and touches nothing, and `execute`
//! does what the plan says. What a file does not name stays as it is, unless it is to be pruned: then
//! bindings and interfaces that it does not name go. Settings that it does not name always stay, because
//! a setting has no absence to go back to.

pub mod change;
mod execute;
mod export;
pub mod plan;
pub mod signals;
pub mod state;

pub use self::{
    change::{Action, Change, Kind},
    execute::{Applied, Options, Progress, apply, diff},
    export::export,
};
