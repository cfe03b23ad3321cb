//! The way of a packet: from a frame to a verdict and its reason.

use crate::{
    binding::{Binding, Target},
    config::{Config, Interface, MAX_INTERFACES, Policy, Track},
    connection::{Connection, Direction, State, is_past},
    matcher::{self, Endpoint},
    packet::Packet,
    parse::{Parsed, parse},
    protocol::Protocol,
    reason::{Reason, Stage, Verdict},
    tables::{Change, KernelSocket, Tables, Update, View},
    tcp::{self, Kind, Step},
    wire::ethernet::Station,
};

/// What happens to a packet, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Which step decided.
    pub stage: Stage,
    /// Where it goes.
    pub target: Target,
    /// Index of the binding that decided, or owns the row that did; 0 for none.
    pub binding: u16,
}

impl Decision {
    const fn pass(stage: Stage, reason: Reason) -> Self {
        Self {
            verdict: Verdict::Pass,
            reason,
            stage,
            target: Target::Stack,
            binding: 0,
        }
    }

    const fn drop(stage: Stage, reason: Reason) -> Self {
        Self {
            verdict: Verdict::Drop,
            target: Target::Drop,
            ..Self::pass(stage, reason)
        }
    }

    const fn of_binding(self, binding: u16) -> Self {
        Self { binding, ..self }
    }
}

/// The slot under which packets of an interface without an entry are counted.
pub const UNKNOWN_INTERFACE: u32 = MAX_INTERFACES as u32;

/// The entry of an interface and its slot.
#[inline(always)]
fn interface<T: Tables>(tables: &T, ifindex: u32) -> Option<(u32, &Interface)> {
    for slot in Interface::slots(ifindex) {
        if let Some(interface) = tables.interface(slot)
            && interface.ifindex == ifindex
        {
            return Some((slot, interface));
        }
    }
    None
}

/// Decides about a frame that arrived on an interface, counts it, and keeps the connection table.
#[inline(always)]
pub fn decide<P, T>(packet: &P, ifindex: u32, tables: &T) -> Decision
where
    P: Packet + ?Sized,
    T: Tables,
{
    let bytes = packet.frame_len() as u64;
    let mut slot = UNKNOWN_INTERFACE;
    let mut decision = Decision::pass(Stage::Default, Reason::Unconfigured);
    if let Some((found, interface)) = interface(tables, ifindex) {
        slot = found;
        decision = match parse(packet) {
            Ok(parsed) => judge(&parsed, bytes, slot, interface, tables),
            Err(reason) => Decision::pass(Stage::Parse, reason),
        };
    }
    tables.count(slot, decision.verdict, decision.reason, bytes);
    if decision.binding != 0 {
        tables.count_binding(decision.binding, bytes);
    }
    decision
}

/// What the steps below need to know of the packet and its interface.
struct Context<'a, T> {
    parsed: &'a Parsed,
    /// What a TCP segment asks for; `None` for UDP, and for flags that no sane sender sends.
    kind: Option<Kind>,
    bytes: u64,
    slot: u32,
    interface: &'a Interface,
    config: &'a Config,
    now: u64,
    tables: &'a T,
}

#[inline(always)]
fn judge<T: Tables>(
    parsed: &Parsed,
    bytes: u64,
    slot: u32,
    interface: &Interface,
    tables: &T,
) -> Decision {
    if parsed.station != Station::new(interface.station) {
        return Decision::pass(Stage::Parse, Reason::OtherHost);
    }
    let Some(config) = tables.config() else {
        return Decision::pass(Stage::Default, Reason::Unconfigured);
    };
    let context = Context {
        parsed,
        kind: match parsed.key.protocol {
            Protocol::Tcp => parsed.segment.flags.kind(),
            Protocol::Udp => None,
        },
        bytes,
        slot,
        interface,
        config,
        now: tables.now(),
        tables,
    };

    let mut known = None;
    if let Some(row) = tables.find(&parsed.key) {
        let view = tables.view(row);
        if !is_past(
            config.timeouts.expiry(view.state, view.last_seen),
            context.now,
        ) {
            known = Some((row, view));
        }
    }
    let binding = match known {
        Some((_, view)) if view.epoch == config.epoch => view.binding,
        // The bindings may have changed since the row was made.
        _ => context.binding(),
    };
    if context.target(binding) == Target::Drop {
        if known.is_some() {
            tables.remove(&parsed.key);
        }
        return context.drop_bound(binding);
    }
    if let Some((row, view)) = known {
        return context.follow(row, &view, binding);
    }
    if binding != 0 {
        if !context.is_untracked(binding) {
            context.track_local(binding);
        }
        return Decision::pass(Stage::Binding, Reason::Bound).of_binding(binding);
    }
    context.apply_default()
}

impl<T: Tables> Context<'_, T> {
    /// The binding of the packet's local endpoint.
    #[inline(always)]
    fn binding(&self) -> u16 {
        let key = &self.parsed.key;
        matcher::find(
            self.tables,
            &Endpoint {
                address: key.local_address,
                family: self.parsed.family,
                protocol: key.protocol,
                ifindex: self.interface.ifindex,
                port: key.local_port,
                reserved: 0,
            },
        )
    }

    #[inline(always)]
    fn target(&self, binding: u16) -> Target {
        if binding == 0 {
            return Target::Stack;
        }
        match self.tables.binding(binding) {
            Some(binding) => binding.target,
            None => Target::Stack,
        }
    }

    #[inline(always)]
    fn is_untracked(&self, binding: u16) -> bool {
        match self.tables.binding(binding) {
            Some(binding) => binding.has(Binding::UNTRACKED),
            None => false,
        }
    }

    /// Applies a packet to the row of its connection.
    #[inline(always)]
    fn follow(&self, row: T::Row, view: &View, binding: u16) -> Decision {
        let decision = Decision::pass(Stage::Connection, Reason::Connection).of_binding(binding);
        let segment = &self.parsed.segment;
        let mut update = Update {
            bytes: self.bytes,
            alive: None,
            state: view.state,
            remote_next: view.remote_next,
            epoch: self.config.epoch,
            binding,
            change: Change::None,
        };
        match (self.parsed.key.protocol, self.kind) {
            (Protocol::Udp, _) => update.alive = Some(self.now),
            (Protocol::Tcp, Some(kind)) => match tcp::step(
                view.state,
                view.remote_next,
                kind,
                segment.sequence,
                segment.length,
            ) {
                Step::Goes(state, next) => {
                    if matches!(view.state, State::SynReceived)
                        && matches!(state, State::Established)
                    {
                        update.change = Change::Confirmed;
                    }
                    update.state = state;
                    update.remote_next = next;
                    update.alive = Some(self.now);
                }
                Step::Reopened => {
                    update.state = State::SynReceived;
                    update.remote_next = segment.sequence.wrapping_add(segment.length);
                    update.alive = Some(self.now);
                    update.change = Change::Reopened;
                }
                Step::Ends => {
                    self.tables.remove(&self.parsed.key);
                    return decision;
                }
                Step::Ignored => {}
            },
            (Protocol::Tcp, None) => {}
        }
        self.tables.update(row, &update);
        decision
    }

    /// Drops for a binding, but only what this host would have received.
    #[inline(always)]
    fn drop_bound(&self, binding: u16) -> Decision {
        if self.is_ours() {
            Decision::drop(Stage::Binding, Reason::Bound).of_binding(binding)
        } else {
            Decision::pass(Stage::Binding, Reason::NotLocal)
        }
    }

    #[inline(always)]
    fn apply_default(&self) -> Decision {
        if matches!(self.interface.default, Policy::Pass) {
            if matches!(self.config.track, Track::Local) {
                self.track_local(0);
            }
            return Decision::pass(Stage::Default, Reason::Unbound);
        }
        if self.interface.is_probation_over(self.now) {
            return Decision::pass(Stage::Default, Reason::Probation);
        }
        if !self.is_local() {
            return Decision::pass(Stage::Default, Reason::NotLocal);
        }
        let mut reason = Reason::Unbound;
        if self.config.kernel_sockets != 0 {
            reason = Reason::NoSocket;
            let socket = self.tables.kernel_socket(&self.parsed.key);
            if socket != KernelSocket::None {
                if matches!(self.config.track, Track::Local) {
                    self.learn(socket);
                }
                return Decision::pass(Stage::KernelSocket, Reason::KernelSocket);
            }
        }
        if self.tables.may_forward(&self.parsed.key) {
            return Decision::pass(Stage::Default, Reason::NotLocal);
        }
        Decision::drop(Stage::Default, reason)
    }

    /// Whether the destination is one of this host's own addresses.
    #[inline(always)]
    fn is_local(&self) -> bool {
        let address = &self.parsed.key.local_address;
        address.is_v4_loopback(self.parsed.family)
            || self
                .tables
                .is_local(address, self.config.local_prefixes != 0)
    }

    /// Whether this host itself would receive the packet, asked of the routing table too:
    /// addresses may have gone since they were entered.
    #[inline(always)]
    fn is_ours(&self) -> bool {
        self.is_local() && !self.tables.may_forward(&self.parsed.key)
    }

    /// Enters a row for a packet to one of this host's own addresses.
    #[inline(always)]
    fn track_local(&self, binding: u16) {
        if self.parsed.may_be_tracked() && self.is_local() {
            self.track(binding, false);
        }
    }

    /// Enters a row for a packet that a socket of the kernel takes, so that the next one need not ask.
    #[inline(always)]
    fn learn(&self, socket: KernelSocket) {
        if !self.parsed.may_be_tracked() {
            return;
        }
        // A listener takes ACKs too, for SYN cookies; but such an ACK may as well be a forgery.
        if matches!(socket, KernelSocket::Listener)
            && matches!(self.parsed.key.protocol, Protocol::Tcp)
            && !matches!(self.kind, Some(Kind::Syn))
        {
            return;
        }
        let confirmed = matches!(socket, KernelSocket::Connected)
            && matches!(self.parsed.key.protocol, Protocol::Tcp);
        self.track(0, confirmed);
    }

    #[inline(always)]
    fn track(&self, binding: u16, confirmed: bool) {
        let parsed = self.parsed;
        let segment = &parsed.segment;
        let opened = match parsed.key.protocol {
            Protocol::Udp => Some((State::Unreplied, 0)),
            Protocol::Tcp => match self.kind {
                Some(kind) => tcp::opens(kind, segment.sequence, segment.length),
                None => None,
            },
        };
        let Some((state, remote_next)) = opened else {
            return;
        };
        let connection = Connection {
            rx_packets: 1,
            rx_bytes: self.bytes,
            tx_packets: 0,
            tx_bytes: 0,
            created: self.now,
            last_seen: self.now,
            remote_next,
            epoch: self.config.epoch,
            binding,
            state,
            direction: self.direction(),
            flags: if confirmed { Connection::CONFIRMED } else { 0 },
            reserved: [0; 3],
        };
        if !self.tables.insert(&parsed.key, &connection) {
            self.tables.count_untracked(self.slot, self.bytes);
        }
    }

    /// Who opened the connection. A SYN tells; in the middle of a stream the lower port is taken
    /// for the server's.
    #[inline(always)]
    fn direction(&self) -> Direction {
        match self.kind {
            Some(Kind::Syn) => Direction::In,
            Some(Kind::SynAck) => Direction::Out,
            _ if self.parsed.key.local_port <= self.parsed.key.remote_port => Direction::In,
            _ => Direction::Out,
        }
    }
}
