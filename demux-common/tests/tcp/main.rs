//! The TCP state machine: tables, conversations, guesses, and a simulation to compare it with.

mod common;
mod conversations;
mod flags;
mod guesses;
mod simulation;
mod table;
