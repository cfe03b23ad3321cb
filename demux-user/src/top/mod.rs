//! What is going on: samples of the tables, the rates between them, and what a live view of them does
//! with keys.
//!
//! A [`Sampler`] reads the tables and makes [`Snapshot`]s; a [`Worker`] does so in a thread of its own,
//! so that whoever shows them can answer keys at once; a [`Model`] holds what is shown. Nothing here
//! draws.

mod best;
mod column;
mod editor;
mod history;
mod model;
mod rates;
mod sampler;
#[cfg(test)]
pub(crate) mod samples;
mod snapshot;
mod worker;

pub use self::{
    column::{Column, Rank, Ranked, Sort, View},
    editor::Editor,
    model::{Action, Key, Model, Overlay, Settings, Shown},
    rates::Rates,
    sampler::{Sampler, Selection},
    snapshot::{
        BindingLine, ConnectionLine, CounterLine, Facts, Figures, InterfaceFact, Snapshot,
        VerdictFact,
    },
    worker::{Wanted, Worker},
};
