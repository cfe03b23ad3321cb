//! The rings of AF_XDP in both roles: beside a naive queue, with a hostile other side, and between threads.

#[path = "common/chance.rs"]
mod chance;

#[path = "xsk_rings/board.rs"]
mod board;
#[path = "xsk_rings/hostile.rs"]
mod hostile;
#[path = "xsk_rings/model.rs"]
mod model;
#[path = "xsk_rings/port.rs"]
mod port;
#[path = "xsk_rings/threads.rs"]
mod threads;
