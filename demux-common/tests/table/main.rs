//! The connection table: that its protocol holds under every schedule, that it does what a simple
//! map would, that it spreads its keys, and that real threads agree.

mod board;
mod explore;
mod hash;
mod names;
mod oracle;
mod room;
mod schedules;
mod stress;
mod world;
