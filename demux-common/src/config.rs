//! The settings that the datapath reads: of the instance, and of each interface.

use crate::{
    clock::Clock,
    connection::{State, Timeouts, is_past},
};

/// Which local endpoints get rows in the connection table.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u8)]
pub enum Track {
    /// Every one.
    Local = 0,
    /// Those with a binding.
    Bound = 1,
}

impl Track {
    /// The name that users write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Bound => "bound",
        }
    }
}

/// Settings of the whole instance.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Config {
    /// Grows with every change of the bindings or of a default, after the tables were written;
    /// a row of another epoch asks for its binding again. Never 0.
    pub epoch: u32,
    /// Which endpoints get rows.
    pub track: Track,
    /// 1 where the kernel's own sockets are asked before a default other than `pass` applies.
    pub kernel_sockets: u8,
    /// 1 where this host has local prefixes (AnyIP routes) besides single addresses.
    pub local_prefixes: u8,
    /// Zero.
    pub reserved: u8,
    /// When rows expire, in seconds.
    pub timeouts: Timeouts,
    /// The same in units of `clock`, by the number of the state: what the datapath reads.
    pub lifetimes: [u32; State::SLOTS],
    /// The clock of the connection table.
    pub clock: Clock,
    /// Until when somebody listens to what becomes of connections, in units of `clock`; 0 for nobody.
    pub events_until: u32,
    /// Until when somebody traces packets.
    pub trace_until: u32,
}

const _: () = assert!(size_of::<Config>() == 160);

impl Config {
    /// Brings the lifetimes into line with the timeouts.
    pub fn renew_lifetimes(&mut self) {
        self.lifetimes = self.clock.lifetimes(&self.timeouts);
    }

    /// Lets every row of the connection table ask for its binding again.
    pub const fn move_epoch_on(&mut self) {
        self.epoch = Self::next_epoch(self.epoch);
    }

    /// The epoch that comes after another.
    #[must_use]
    pub const fn next_epoch(epoch: u32) -> u32 {
        match epoch.wrapping_add(1) {
            0 => 1,
            epoch => epoch,
        }
    }
}

/// What happens to packets that nothing claims.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u8)]
pub enum Policy {
    /// They go up the stack.
    Pass = 0,
    /// They end at the driver, where this host would have received them.
    Drop = 1,
    /// As [`Policy::Drop`], and the sender is told.
    Reject = 2,
}

impl Policy {
    /// The name that users write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }
}

/// How the program is attached.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u8)]
pub enum Mode {
    /// In the driver.
    Native = 0,
    /// Behind the driver, on socket buffers.
    Generic = 1,
}

impl Mode {
    /// The name that users write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// How an answer that the datapath makes itself leaves by the interface on which the packet arrived.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u8)]
pub enum Reply {
    /// It would reach nobody: the packet goes up the stack, which refuses it.
    #[default]
    None = 0,
    /// By XDP_TX.
    Transmit = 1,
    /// By XDP_REDIRECT to the interface itself.
    Redirect = 2,
}

impl Reply {
    /// The name that users read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Transmit => "transmit",
            Self::Redirect => "redirect",
        }
    }
}

/// How many interfaces an instance can serve.
pub const MAX_INTERFACES: usize = 64;

/// How far from its home an interface's entry may stand.
const INTERFACE_PROBES: u32 = 8;

/// Settings of one interface. An entry whose `ifindex` is 0 is free.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Interface {
    /// When a default on probation turns into `pass` again: nanoseconds of the coarse monotonic
    /// clock; 0 where the default is confirmed.
    pub probation_ends: u64,
    /// The index of the interface.
    pub ifindex: u32,
    /// Its station address; frames to another are not judged.
    pub station: [u8; 6],
    /// What happens to packets that nothing claims.
    pub default: Policy,
    /// How the program is attached.
    pub mode: Mode,
    /// 1 where packets that leave by the interface are seen too.
    pub egress: u8,
    /// How a refusal leaves by the interface.
    pub reply: Reply,
    /// Zero.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<Interface>() == 24);

impl Interface {
    /// Whether the default was on probation, and the probation has run out unconfirmed.
    #[inline(always)]
    #[must_use]
    pub const fn is_probation_over(&self, now: u64) -> bool {
        self.probation_ends != 0 && is_past(self.probation_ends, now)
    }

    /// The slots in which the entry of an interface may stand, in the order of probing.
    #[inline(always)]
    pub fn slots(ifindex: u32) -> impl Iterator<Item = u32> {
        (0..INTERFACE_PROBES)
            .map(move |probe| ifindex.wrapping_add(probe) & (MAX_INTERFACES as u32 - 1))
    }
}
