//! The tables that the datapath's own steps run on, above the memory of a schedule.

use demux_common::{
    address::Address,
    binding::{AddressKey, Binding, PortProfile, PortSlot, PrefixKey, PrefixMatch},
    clock::Clock,
    config::{Config, Interface, Mode, Policy, Reply, Track},
    connection::Timeouts,
    decide::{self, PackedDecision, Review},
    egress::{self, Departure},
    fast,
    fragments::{Datagram, Owner},
    parse::Parsed,
    protocol::Protocol,
    reason::{Reason, Verdict},
    table::{self, Memory, Numbers},
    tables::{BindingTables, TableEvent, Tables},
    tcp::Flags,
};

use super::{
    board::{Event, Port},
    names::{BYTES, EPOCH, Names, key, new},
};

/// The tables, at a moment.
pub(crate) struct World<'a, M> {
    memory: &'a M,
    names: &'a Names,
    config: Config,
    interface: Interface,
    now: u32,
}

impl<'a, M: Memory + Port> World<'a, M> {
    pub(crate) fn new(memory: &'a M, names: &'a Names, now: u32) -> Self {
        let mut config = Config {
            epoch: EPOCH,
            track: Track::Local,
            kernel_sockets: 0,
            local_prefixes: 0,
            reserved: 0,
            timeouts: Timeouts::default(),
            lifetimes: names.lifetimes,
            clock: Clock::new(0, 1 << 26),
            events_until: 0,
            trace_until: 0,
        };
        config.renew_lifetimes();
        let interface = Interface {
            probation_ends: 0,
            ifindex: 1,
            station: [0; 6],
            default: Policy::Pass,
            mode: Mode::Native,
            egress: 1,
            reply: Reply::Transmit,
            reserved: [0; 2],
        };
        Self {
            memory,
            names,
            config,
            interface,
            now,
        }
    }

    /// A segment arrives, with data at these numbers beyond what the sender had said.
    pub(crate) fn arrives(&self, name: u32, ahead: u32) {
        self.memory.note(Event::Sent { name });
        let parsed = segment(name, ahead);
        let decision = decide::follow(self, &parsed, 0, Review::NONE);
        if decision.leaves_something() {
            self.settle(&parsed, decision);
        }
        if decision.is_open() {
            let confirmed = match new(name).flags.has(table::Flags::CONFIRMED) {
                true => PackedDecision::CONFIRMED_ROW,
                false => 0,
            };
            let decision = PackedDecision(u64::from(name) << 32 | confirmed);
            decide::track(self, &parsed, 0, decision);
        }
    }

    /// A segment leaves.
    pub(crate) fn leaves(&self, name: u32, ahead: u32) {
        self.memory.note(Event::Sent { name });
        let parsed = segment(name, ahead);
        let departure = Departure {
            ifindex: 1,
            segments: 1,
            is_forwarded: 0,
            is_reported: 0,
        };
        if fast::leaves(self, &parsed, 1, BYTES) {
            return;
        }
        let followed = egress::follow(self, &parsed, &departure);
        if followed.leaves_something() {
            self.settle(&parsed, followed);
        }
        if !followed.is_open() {
            return;
        }
        egress::track(self, &parsed, &departure, 0, name as u16);
    }
}

fn segment(name: u32, ahead: u32) -> Parsed {
    let mut parsed = Parsed::EMPTY;
    parsed.key = key(name);
    parsed.frame_len = BYTES;
    parsed.segment.flags = Flags(Flags::ACK);
    parsed.segment.sequence = (name << 16 | 1 << 14) + ahead;
    parsed.segment.acknowledgement = parsed.segment.sequence;
    parsed.segment.length = 1;
    parsed
}

impl<M: Memory> Memory for World<'_, M> {
    type Line = M::Line;

    fn line(&self, index: u32) -> Option<M::Line> {
        self.memory.line(index)
    }

    fn cold(&self, index: u32) -> Option<M::Line> {
        self.memory.cold(index)
    }

    fn load32<const AT: usize>(&self, line: M::Line) -> u32 {
        self.memory.load32::<AT>(line)
    }

    fn load64<const AT: usize>(&self, line: M::Line) -> u64 {
        self.memory.load64::<AT>(line)
    }

    fn store32<const AT: usize>(&self, line: M::Line, value: u32) {
        self.memory.store32::<AT>(line, value);
    }

    fn store64<const AT: usize>(&self, line: M::Line, value: u64) {
        self.memory.store64::<AT>(line, value);
    }

    fn exchange32<const AT: usize>(&self, line: M::Line, old: u32, new: u32) -> bool {
        self.memory.exchange32::<AT>(line, old, new)
    }

    fn exchange64<const AT: usize>(&self, line: M::Line, old: u64, new: u64) -> bool {
        self.memory.exchange64::<AT>(line, old, new)
    }

    fn and32<const AT: usize>(&self, line: M::Line, mask: u32) {
        self.memory.and32::<AT>(line, mask);
    }

    fn add32<const AT: usize>(&self, line: M::Line, addend: u32) {
        self.memory.add32::<AT>(line, addend);
    }
}

impl<M> Numbers for World<'_, M> {
    fn number(&self, index: usize) -> u64 {
        self.names.secret.numbers[index]
    }
}

impl<M> BindingTables for World<'_, M> {
    fn port(&self, _protocol: Protocol, _port: u16) -> Option<PortSlot> {
        None
    }

    fn profile(&self, _index: u16) -> Option<&PortProfile> {
        None
    }

    fn address(&self, _key: &AddressKey) -> Option<u16> {
        None
    }

    fn prefix(&self, _key: &PrefixKey) -> Option<PrefixMatch> {
        None
    }

    fn binding(&self, _index: u16) -> Option<&Binding> {
        None
    }
}

impl<M: Memory + Port> Tables for World<'_, M> {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn interface(&self, _slot: u32) -> Option<&Interface> {
        Some(&self.interface)
    }

    fn homes(&self) -> u32 {
        self.names.homes
    }

    fn ticks(&self) -> u64 {
        self.now.into()
    }

    fn is_local(&self, _address: &Address, _prefixes: bool) -> bool {
        true
    }

    fn count(&self, _slot: u32, _verdict: Verdict, _reason: Reason, _bytes: u64) {}

    fn count_packed(&self, _slot: u32, _decision: PackedDecision, _bytes: u64) {}

    fn count_untracked(&self, _slot: u32, _bytes: u64) {
        self.memory.note(Event::Untracked);
    }

    fn count_binding(&self, _index: u16, _bytes: u64) {}

    fn count_event(&self, _event: TableEvent) {}

    fn coarse_ns(&self) -> u64 {
        0
    }

    fn kept_owner(&self, _datagram: &Datagram) -> Option<Owner> {
        None
    }

    fn keep_owner(&self, _datagram: &Datagram, _owner: &Owner) {}

    fn cpu(&self, _binding: u16, _hash: u32) -> Option<u16> {
        None
    }

    fn redirect_to_cpu(&self, _cpu: u32) -> bool {
        false
    }
}
