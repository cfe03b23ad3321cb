//! Source ports for outgoing connections: reserving one, giving it back, and the settings.
//!
//! Which port comes next is decided by the BPF program `demux_control`, which claims the four-tuple
//! in the connection table; here is what only user space knows: the kernel's settings, and the ports
//! that its sockets hold.

mod allocator;
mod barred;
mod kernel;
mod range;
mod settings;

pub use self::{
    allocator::{AllocateRequest, Allocation, Allocator, release},
    barred::{bar_bound, refresh},
    range::{PortRange, PortRanges},
    settings::{Change, PortSettings, change, initialize, parse_algorithm, settings},
};
