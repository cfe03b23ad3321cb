//! The way of a packet: from a frame to a verdict and its reason.

use crate::{
    binding::{Binding, Target},
    config::{Config, Interface, MAX_INTERFACES, Policy, Track},
    connection::{Connection, ConnectionKey, Direction, State, is_past},
    matcher::{self, Endpoint},
    packet::Packet,
    parse::{Parsed, parse_into},
    protocol::Protocol,
    reason::{Reason, Stage, Verdict},
    tables::{Change, KernelSocket, Tables, Update, View},
    tcp::{self, Kind, Step},
    wire::ethernet::Station,
};

/// What happens to a packet, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// The decision in one word.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> PackedDecision {
        PackedDecision(
            self.verdict as u64
                | (self.stage as u64) << 8
                | (self.target as u64) << 16
                | (self.reason as u64) << 24
                | (self.binding as u64) << 32,
        )
    }
}

/// A [`Decision`] in one word, as functions of the kernel program hand it on: from the lowest byte
/// up the verdict, the stage, the target and the reason, then two bytes of the binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct PackedDecision(pub u64);

impl PackedDecision {
    /// Whether the verdict is the given one.
    #[inline(always)]
    #[must_use]
    pub const fn is(self, verdict: Verdict) -> bool {
        self.0 as u8 == verdict as u8
    }
}

/// The slot under which packets of an interface without an entry are counted.
pub const UNKNOWN_INTERFACE: u32 = MAX_INTERFACES as u32;

/// The slot that holds the entry of an interface.
#[inline(always)]
fn interface_slot<T: Tables>(tables: &T, ifindex: u32) -> Option<u32> {
    for slot in Interface::slots(ifindex) {
        if let Some(interface) = tables.interface(slot)
            && interface.ifindex == ifindex
        {
            return Some(slot);
        }
    }
    None
}

/// Decides about a frame that arrived on an interface, counts it, and keeps the connection table.
#[inline(always)]
pub fn decide<P, T>(packet: &P, ifindex: u32, tables: &T) -> PackedDecision
where
    P: Packet + ?Sized,
    T: Tables,
{
    let mut slot = UNKNOWN_INTERFACE;
    let mut reason = Reason::Unconfigured;
    let mut stage = Stage::Default;
    if let Some(found) = interface_slot(tables, ifindex) {
        slot = found;
        let mut parsed = Parsed::EMPTY;
        match parse_into(packet, &mut parsed) {
            Ok(()) => return tables.judge(&parsed, slot),
            Err(refused) => {
                reason = refused;
                stage = Stage::Parse;
            }
        }
    }
    tables.count(slot, Verdict::Pass, reason, packet.frame_len() as u64);
    Decision::pass(stage, reason).pack()
}

/// Decides about a packet that was parsed, counts it, and keeps the connection table.
#[inline(always)]
pub fn judge<T: Tables + ?Sized>(tables: &T, parsed: &Parsed, slot: u32) -> PackedDecision {
    let decision = match (tables.interface(slot), tables.config()) {
        (Some(interface), Some(config)) => {
            judge_configured(tables, parsed, slot, interface, config)
        }
        _ => Decision::pass(Stage::Default, Reason::Unconfigured),
    };
    let bytes = u64::from(parsed.frame_len);
    tables.count(slot, decision.verdict, decision.reason, bytes);
    if decision.binding != 0 {
        tables.count_binding(decision.binding, bytes);
    }
    decision.pack()
}

#[inline(always)]
fn judge_configured<T: Tables + ?Sized>(
    tables: &T,
    parsed: &Parsed,
    slot: u32,
    interface: &Interface,
    config: &Config,
) -> Decision {
    if parsed.station != Station::new(interface.station) {
        return Decision::pass(Stage::Parse, Reason::OtherHost);
    }
    // Before Linux 6.2 a key must lie on the stack of the function that looks it up.
    let key = parsed.key;
    let context = Context {
        parsed,
        key: &key,
        kind: match parsed.key.protocol {
            Protocol::Tcp => parsed.segment.flags.kind(),
            Protocol::Udp => None,
        },
        slot,
        interface,
        config,
        now: tables.now(),
        tables,
    };

    let mut known = None;
    if let Some(row) = tables.find(&key) {
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
    let (target, untracked) = context.target(binding);
    if let Some((row, view)) = known {
        if target != Target::Drop && (view.epoch == config.epoch || context.may_live_on(binding)) {
            return context.follow(row, &view, binding);
        }
        tables.remove(&key);
    }
    context.judge_unknown(binding, target, untracked)
}

/// What the steps below need to know of the packet and its interface.
struct Context<'a, T: ?Sized> {
    parsed: &'a Parsed,
    /// The four-tuple of `parsed`.
    key: &'a ConnectionKey,
    /// What a TCP segment asks for; `None` for UDP, and for flags that no sane sender sends.
    kind: Option<Kind>,
    slot: u32,
    interface: &'a Interface,
    config: &'a Config,
    now: u64,
    tables: &'a T,
}

/// Whether a packet without a row makes one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tracking {
    No,
    Yes,
    /// And the row is confirmed from the start.
    Confirmed,
}

impl<T: Tables + ?Sized> Context<'_, T> {
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

    /// Where a binding sends its packets, and whether they are to make no rows.
    #[inline(always)]
    fn target(&self, binding: u16) -> (Target, bool) {
        if binding == 0 {
            return (Target::Stack, false);
        }
        match self.tables.binding(binding) {
            Some(binding) => (binding.target, binding.has(Binding::UNTRACKED)),
            None => (Target::Stack, false),
        }
    }

    /// Whether a row outlives a change of the bindings or of the default. One that neither a binding
    /// nor the default would let pass needs a socket of the kernel, as its first packet would today.
    #[inline(always)]
    fn may_live_on(&self, binding: u16) -> bool {
        binding != 0
            || matches!(self.interface.default, Policy::Pass)
            || self.interface.is_probation_over(self.now)
            || self.config.kernel_sockets == 0
            || self.tables.kernel_socket(self.key) != KernelSocket::None
    }

    /// Applies a packet to the row of its connection.
    #[inline(always)]
    fn follow(&self, row: T::Row, view: &View, binding: u16) -> Decision {
        let decision = Decision::pass(Stage::Connection, Reason::Connection).of_binding(binding);
        let segment = &self.parsed.segment;
        let mut update = Update {
            bytes: u64::from(self.parsed.frame_len),
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
                    self.tables.remove(self.key);
                    return decision;
                }
                Step::Ignored => {}
            },
            (Protocol::Tcp, None) => {}
        }
        self.tables.update(row, &update);
        decision
    }

    /// Decides about a packet that belongs to no row.
    #[inline(always)]
    fn judge_unknown(&self, binding: u16, target: Target, untracked: bool) -> Decision {
        let is_default_pass = matches!(self.interface.default, Policy::Pass);
        let tracks_all = matches!(self.config.track, Track::Local);
        if binding == 0 && is_default_pass && !tracks_all {
            return Decision::pass(Stage::Default, Reason::Unbound);
        }
        let is_local = self.is_local();
        let mut tracking = if is_local {
            Tracking::Yes
        } else {
            Tracking::No
        };
        let decision = if binding != 0 {
            if target == Target::Drop {
                return self.drop_if_ours(is_local, Stage::Binding, Reason::Bound, binding);
            }
            if untracked {
                tracking = Tracking::No;
            }
            Decision::pass(Stage::Binding, Reason::Bound).of_binding(binding)
        } else if is_default_pass {
            Decision::pass(Stage::Default, Reason::Unbound)
        } else if self.interface.is_probation_over(self.now) {
            return Decision::pass(Stage::Default, Reason::Probation);
        } else if !is_local {
            return Decision::pass(Stage::Default, Reason::NotLocal);
        } else if self.config.kernel_sockets == 0 {
            return self.drop_if_ours(true, Stage::Default, Reason::Unbound, 0);
        } else {
            let socket = self.tables.kernel_socket(self.key);
            if socket == KernelSocket::None {
                return self.drop_if_ours(true, Stage::Default, Reason::NoSocket, 0);
            }
            tracking = if tracks_all {
                self.learn(socket)
            } else {
                Tracking::No
            };
            Decision::pass(Stage::KernelSocket, Reason::KernelSocket)
        };
        if tracking != Tracking::No && self.parsed.may_be_tracked() {
            self.track(binding, tracking == Tracking::Confirmed);
        }
        decision
    }

    /// Drops only what this host itself would have received. The routing table is asked too:
    /// addresses may have gone since they were entered.
    #[inline(always)]
    fn drop_if_ours(&self, is_local: bool, stage: Stage, reason: Reason, binding: u16) -> Decision {
        if is_local && !self.tables.may_forward(self.key) {
            Decision::drop(stage, reason).of_binding(binding)
        } else {
            Decision::pass(stage, Reason::NotLocal)
        }
    }

    /// Whether the destination is one of this host's own addresses.
    #[inline(always)]
    fn is_local(&self) -> bool {
        let address = &self.key.local_address;
        address.is_v4_loopback(self.parsed.family)
            || self
                .tables
                .is_local(address, self.config.local_prefixes != 0)
    }

    /// Whether a packet that a socket of the kernel takes makes a row, so that the next one need
    /// not ask.
    #[inline(always)]
    fn learn(&self, socket: KernelSocket) -> Tracking {
        if matches!(self.parsed.key.protocol, Protocol::Udp) {
            return Tracking::Yes;
        }
        match socket {
            // The owner answers with a challenge ACK (RFC 5961, section 4): nothing is proved.
            KernelSocket::Connected if matches!(self.kind, Some(Kind::Syn)) => Tracking::No,
            KernelSocket::Connected => Tracking::Confirmed,
            // A listener takes ACKs too, for SYN cookies; but such an ACK may as well be a forgery.
            KernelSocket::Listener if !matches!(self.kind, Some(Kind::Syn)) => Tracking::No,
            _ => Tracking::Yes,
        }
    }

    /// Enters a row for a packet to one of this host's own addresses.
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
            rx_bytes: u64::from(self.parsed.frame_len),
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
        };
        if !self.tables.insert(self.key, &connection) {
            self.tables
                .count_untracked(self.slot, u64::from(parsed.frame_len));
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
