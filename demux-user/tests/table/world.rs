//! What a packet meets: settings, bindings, rows, addresses. The same on the host model and in the kernel.

use std::net::IpAddr;

use demux_common::{
    address::Address,
    binding::Binding,
    clock::Clock,
    command::Command,
    config::{Config, Interface, Mode, Policy, Reply, Track},
    connection::{State, Timeouts},
    fragments::{Datagram, Owner},
    layout::LocalPrefix,
    steering::{CpuList, XskSet},
};
use demux_user::bindings::pattern::{from_ip, to_ip};

use super::frames::HOST_MAC;
pub use super::{
    bound::{Bound, Device},
    row::{Row, SECOND, Said, key},
    steering::{Kept, Place, Set, Targets},
};

/// The addresses that the host has.
pub const HOST: [&str; 6] = [
    "10.0.0.2",
    "10.0.0.3",
    "10.1.2.3",
    "2001:db8::2",
    "2001:db8::3",
    "2001:db8:1:2::3",
];

/// Addresses that demux believes local and the host has no more. They lie on a connected network.
pub const GONE: [&str; 2] = ["10.0.0.50", "2001:db8::50"];

/// The networks that the host has a route to.
pub const CONNECTED: [&str; 2] = ["10.0.0.0/24", "2001:db8::/64"];

/// The configuration epoch of every test.
pub const EPOCH: u32 = 5;

#[derive(Clone, Debug, PartialEq)]
pub struct World {
    pub default: Policy,
    pub track: Track,
    pub kernel_sockets: bool,
    pub probation: Probation,
    pub entry: Entry,
    /// How a refusal leaves.
    pub reply: Reply,
    /// Whether what leaves by the interface is seen too.
    pub egress: bool,
    pub bindings: Vec<Bound>,
    /// Entries of bindings that nobody has, and until which epoch a steered one had them.
    pub freed: Vec<(u16, u32)>,
    pub row: Option<Row>,
    /// What packets are handed to.
    pub targets: Targets,
    /// A packet in fragments whose first has come.
    pub kept: Option<Kept>,
    /// What demux believes local.
    pub locals: Vec<IpAddr>,
    /// A prefix that demux believes local.
    pub local_prefix: Option<&'static str>,
    /// Whether the host forwards packets.
    pub forwarding: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probation {
    Confirmed,
    Running,
    Over,
}

/// Where the entry of the interface stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    AtHome,
    /// Its home is taken by another interface.
    Displaced,
    Missing,
}

/// A world as the tables tell it, on an interface with an index, at a time.
#[derive(Clone, Debug)]
pub struct Tabulated {
    pub config: Config,
    pub interfaces: Vec<(u32, Interface)>,
    pub bindings: Vec<(u16, Binding)>,
    /// Of the bindings to CPUs.
    pub cpu_lists: Vec<(u16, CpuList)>,
    pub sets: Vec<(u16, XskSet)>,
    pub kept: Option<(Datagram, Owner)>,
    /// What enters the row that is there, while the settings are of this epoch.
    pub row: Option<(u32, Command)>,
    pub locals: Vec<Address>,
    pub local_prefixes: Vec<LocalPrefix>,
}

/// A world in which nothing is configured but the interface, with a default of pass.
pub fn passing() -> World {
    World {
        default: Policy::Pass,
        track: Track::Local,
        kernel_sockets: true,
        probation: Probation::Confirmed,
        entry: Entry::AtHome,
        reply: Reply::Transmit,
        egress: false,
        bindings: Vec::new(),
        freed: Vec::new(),
        row: None,
        targets: Targets::default(),
        kept: None,
        locals: HOST
            .iter()
            .chain(&GONE)
            .map(|address| address.parse().expect("an address"))
            .collect(),
        local_prefix: None,
        forwarding: false,
    }
}

/// The same with a default of drop.
pub fn dropping() -> World {
    World {
        default: Policy::Drop,
        ..passing()
    }
}

/// The same with a default of reject.
pub fn rejecting() -> World {
    World {
        default: Policy::Reject,
        ..passing()
    }
}

/// A world that drops whatever it has any right to.
pub fn hostile() -> World {
    dropping().with([Bound::tcp("*:*").drop(), Bound::udp("*:*").drop()])
}

/// The CPU that takes packets, and one that does not.
pub const CPU: u16 = 0;
pub const NO_CPU: u16 = 200;

/// The set that has sockets on the queues 0 and 2 of the interface that packets arrive on, the set that
/// has some elsewhere only, and the one that nobody owns.
pub const SET: u16 = 1;
pub const SET_ELSEWHERE: u16 = 2;
pub const SET_OF_NOBODY: u16 = 3;

/// The slot of the first queue of [`SET`].
pub const FIRST_SLOT: u16 = 10;

/// The longest frame that its sockets take.
pub const LONGEST: u32 = 2000;

/// A world that drops what nobody claims, and has CPUs and sockets to hand packets to.
pub fn steering() -> World {
    let place = |device, first_slot, queues| Place {
        device,
        first_slot,
        queues,
    };
    World {
        targets: Targets {
            cpus: vec![CPU],
            sets: vec![
                Set {
                    places: vec![
                        place(Device::Another, 100, 4),
                        place(Device::This, FIRST_SLOT, 3),
                    ],
                    longest: LONGEST,
                },
                Set {
                    places: vec![place(Device::Another, FIRST_SLOT, 4)],
                    longest: LONGEST,
                },
                Set {
                    places: Vec::new(),
                    longest: LONGEST,
                },
            ],
            // That of the second queue is empty; the one behind the last queue is somebody else's.
            slots: vec![FIRST_SLOT, FIRST_SLOT + 2, FIRST_SLOT + 3, 100],
            queue: 0,
        },
        ..dropping()
    }
}

/// The slot of interfaces without an entry.
pub const NO_SLOT: usize = demux_common::config::MAX_INTERFACES;

impl World {
    pub fn with<const N: usize>(mut self, bindings: [Bound; N]) -> Self {
        self.bindings = bindings.into();
        self
    }

    pub fn with_row(mut self, row: Row) -> Self {
        self.row = Some(row);
        self
    }

    /// The entry of a binding is free, and a steered one had it until an epoch.
    pub fn freed(mut self, index: u16, steered_until: u32) -> Self {
        self.freed.push((index, steered_until));
        self
    }

    pub fn by_queue(mut self, queue: u32) -> Self {
        self.targets.queue = queue;
        self
    }

    pub fn keeping(mut self, kept: Kept) -> Self {
        self.kept = Some(kept);
        self
    }

    pub fn forwarding(mut self) -> Self {
        self.forwarding = true;
        self
    }

    pub fn tracking_bound(mut self) -> Self {
        self.track = Track::Bound;
        self
    }

    pub fn without_kernel_sockets(mut self) -> Self {
        self.kernel_sockets = false;
        self
    }

    pub fn on_probation(mut self, probation: Probation) -> Self {
        self.probation = probation;
        self
    }

    pub fn entered(mut self, entry: Entry) -> Self {
        self.entry = entry;
        self
    }

    pub fn replying(mut self, reply: Reply) -> Self {
        self.reply = reply;
        self
    }

    pub fn seeing_both(mut self) -> Self {
        self.egress = true;
        self
    }

    pub fn with_local_prefix(mut self, prefix: &'static str) -> Self {
        self.local_prefix = Some(prefix);
        self
    }

    /// The slot that packets are counted in.
    pub fn slot(&self, ifindex: u32) -> usize {
        let mut places = Interface::slots(ifindex);
        match self.entry {
            Entry::AtHome => places.next().expect("a home") as usize,
            Entry::Displaced => places.nth(1).expect("a second place") as usize,
            Entry::Missing => NO_SLOT,
        }
    }

    pub fn tabulated(&self, ifindex: u32, now: u64, clock: Clock) -> Tabulated {
        let interface = Interface {
            probation_ends: match self.probation {
                Probation::Confirmed => 0,
                Probation::Running => now + 600 * SECOND,
                Probation::Over => now.saturating_sub(SECOND).max(1),
            },
            ifindex,
            station: HOST_MAC,
            default: self.default,
            mode: Mode::Native,
            egress: u8::from(self.egress),
            reply: self.reply,
            reserved: [0; 2],
        };
        let neighbour = Interface {
            ifindex: ifindex + demux_common::config::MAX_INTERFACES as u32,
            default: Policy::Pass,
            ..interface
        };
        let home = Interface::slots(ifindex).next().expect("a home");
        let interfaces = match self.entry {
            Entry::AtHome => vec![(home, interface)],
            Entry::Displaced => vec![(home, neighbour), (self.slot(ifindex) as u32, interface)],
            Entry::Missing => vec![(home, neighbour)],
        };
        let mut config = Config {
            epoch: EPOCH,
            track: self.track,
            kernel_sockets: u8::from(self.kernel_sockets),
            local_prefixes: u8::from(self.local_prefix.is_some()),
            reserved: 0,
            timeouts: Timeouts::default(),
            lifetimes: [0; State::SLOTS],
            clock,
            events_until: 0,
            trace_until: 0,
        };
        config.renew_lifetimes();
        Tabulated {
            config,
            interfaces,
            bindings: (1..)
                .zip(&self.bindings)
                .map(|(index, bound)| (index, bound.stored(index, ifindex)))
                .collect(),
            cpu_lists: (1..)
                .zip(&self.bindings)
                .filter(|(_, bound)| !bound.cpus.is_empty())
                .map(|(index, bound)| (index, bound.cpu_list()))
                .collect(),
            sets: self.targets.tabulated(ifindex),
            kept: self.kept.as_ref().map(|kept| kept.stored(now)),
            row: self
                .row
                .as_ref()
                .map(|row| (row.epoch + 1, row.command(&clock))),
            locals: self.locals.iter().copied().map(from_ip).collect(),
            local_prefixes: self.local_prefix.iter().map(|text| prefix(text)).collect(),
        }
    }
}

fn prefix(text: &str) -> LocalPrefix {
    let net: ipnet::IpNet = text.parse().expect("a prefix");
    let offset = if net.addr().is_ipv4() { 96 } else { 0 };
    LocalPrefix {
        prefix_len: LocalPrefix::FIXED_BITS + offset + u32::from(net.prefix_len()),
        reserved: 0,
        address: from_ip(net.network()),
    }
}

/// Whether the routing table of the host would send the packet on.
pub fn is_forwarded(world_forwards: bool, local: &Address) -> bool {
    let address = to_ip(local);
    let text = address.to_string();
    world_forwards
        && !HOST.contains(&text.as_str())
        && text != "10.0.0.255"
        && text != "10.0.0.0"
        && text != "2001:db8::"
        && CONNECTED.iter().any(|net| {
            net.parse::<ipnet::IpNet>()
                .expect("a network")
                .contains(&address)
        })
}
