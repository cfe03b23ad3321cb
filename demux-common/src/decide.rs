//! The way of a packet: from a frame to a verdict and its reason.

use crate::{
    address::{Address, Family},
    binding::{Binding, Target},
    config::{Config, Interface, MAX_INTERFACES, Policy, Track},
    connection::{ConnectionKey, State},
    follow::{self, Aftermath, Followed},
    matcher::{self, Endpoint},
    packet::Packet,
    parse::{Parsed, parse_into},
    protocol::Protocol,
    reason::{REASON_SLOTS, Reason, Stage, Verdict},
    related, rows, steering,
    table::{self, Flags, Probe},
    tables::{Kernel, KernelSocket, Tables},
    tcp::{Kind, Side, Visibility},
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
    pub(crate) const fn pass(stage: Stage, reason: Reason) -> Self {
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

    const fn reject(stage: Stage, reason: Reason) -> Self {
        Self {
            verdict: Verdict::Reject,
            target: Target::Reject,
            ..Self::pass(stage, reason)
        }
    }

    const fn steer(stage: Stage, reason: Reason, target: Target) -> Self {
        Self {
            verdict: Verdict::Redirect,
            target,
            ..Self::pass(stage, reason)
        }
    }

    /// What becomes of a packet that has this target.
    pub(crate) const fn by(target: Target, stage: Stage, reason: Reason) -> Self {
        match target {
            Target::Stack => Self::pass(stage, reason),
            Target::Drop => Self::drop(stage, reason),
            Target::Reject => Self::reject(stage, reason),
            Target::Cpu | Target::Xsk => Self::steer(stage, reason, target),
        }
    }

    pub(crate) const fn of_binding(self, binding: u16) -> Self {
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

    /// What one step asks of the next, above the decision itself: nothing is decided yet, because
    /// the packet belongs to no row.
    pub const OPEN: u64 = 1 << 48;
    /// The packet's row is of another configuration.
    pub const REVIEW: u64 = 1 << 49;
    /// Only the kernel's sockets know whether this host has consented to the packet's row.
    pub const SOCKET: u64 = 1 << 50;
    /// The packet is to make a row.
    pub const ROW: u64 = 1 << 51;
    /// The packet is to make a row that is confirmed from the start.
    pub const CONFIRMED_ROW: u64 = 1 << 52;

    #[inline(always)]
    const fn asks(self, bits: u64) -> bool {
        self.0 & bits != 0
    }

    #[inline(always)]
    const fn asking(self, bits: u64) -> Self {
        Self(self.0 | bits)
    }

    /// The same, with what is left to be done about the row.
    #[inline(always)]
    pub(crate) const fn leaving(self, left: Aftermath) -> Self {
        Self(self.0 | left.0)
    }

    /// Whether something is left to be done about the row: see [`Tables::settle`].
    #[inline(always)]
    #[must_use]
    pub const fn leaves_something(self) -> bool {
        self.asks(Aftermath::BITS)
    }

    /// Whether the packet belongs to no row.
    #[inline(always)]
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.asks(Self::OPEN)
    }

    /// The decision alone.
    #[inline(always)]
    #[must_use]
    pub const fn plain(self) -> Self {
        Self(self.0 & 0xffff_ffff_ffff)
    }

    /// The refusal is to leave by XDP_REDIRECT.
    const REDIRECTED: u64 = 1 << 53;

    /// Another outcome than was decided, at the same stage and for the same binding.
    #[inline(always)]
    #[must_use]
    pub const fn instead(self, verdict: Verdict, target: Target, reason: Reason) -> Self {
        const OUTCOME: u64 = 0xffff_00ff;
        Self(self.0 & !OUTCOME | verdict as u64 | (target as u64) << 16 | (reason as u64) << 24)
    }

    /// The same, and the refusal is to leave by XDP_REDIRECT.
    #[inline(always)]
    #[must_use]
    pub const fn by_redirect(self) -> Self {
        self.asking(Self::REDIRECTED)
    }

    /// Whether the refusal is to leave by XDP_REDIRECT.
    #[inline(always)]
    #[must_use]
    pub const fn is_by_redirect(self) -> bool {
        self.asks(Self::REDIRECTED)
    }

    /// The same, handed on to another target.
    #[inline(always)]
    #[must_use]
    pub const fn to(self, target: Target) -> Self {
        const WHERE: u64 = 0x00ff_00ff;
        Self(self.0 & !WHERE | Verdict::Redirect as u64 | (target as u64) << 16)
    }

    /// Whether the target is the given one.
    #[inline(always)]
    #[must_use]
    pub const fn is_to(self, target: Target) -> bool {
        (self.0 >> 16) as u8 == target as u8
    }

    /// Index of the binding that decided, or owns the row that did; 0 for none.
    #[inline(always)]
    #[must_use]
    pub const fn binding(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The epoch of the row that asks for a [review](Self::REVIEW).
    #[inline(always)]
    const fn epoch(self) -> u32 {
        self.0 as u32
    }

    /// Whether the packet was parsed, so that its endpoints are known.
    #[inline(always)]
    #[must_use]
    pub const fn is_of_parsed(self) -> bool {
        (self.0 >> 8) as u8 != Stage::Parse as u8
            || self.reason_number() == Reason::OtherHost as usize
    }

    /// The number of the reason, within those that counters have room for.
    #[inline(always)]
    #[must_use]
    pub const fn reason_number(self) -> usize {
        (self.0 >> 24) as usize & (REASON_SLOTS - 1)
    }

    /// The number of the verdict.
    #[inline(always)]
    #[must_use]
    pub const fn verdict_number(self) -> usize {
        self.0 as usize & 3
    }
}

/// The slot under which packets of an interface without an entry are counted.
pub const UNKNOWN_INTERFACE: u32 = MAX_INTERFACES as u32;

/// The slot that holds the entry of an interface, and the entry.
#[inline(always)]
pub(crate) fn interface_of<T: Tables + ?Sized>(
    tables: &T,
    ifindex: u32,
) -> Option<(u32, &Interface)> {
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
pub fn decide<P, T>(packet: &P, ifindex: u32, tables: &T) -> PackedDecision
where
    P: Packet + ?Sized,
    T: Kernel,
{
    if let Some(decision) = tables.arrives(packet, ifindex) {
        return decision;
    }
    let Some((slot, _)) = interface_of(tables, ifindex) else {
        let bytes = packet.frame_len() as u64;
        tables.count(
            UNKNOWN_INTERFACE,
            Verdict::Pass,
            Reason::Unconfigured,
            bytes,
        );
        return Decision::pass(Stage::Default, Reason::Unconfigured).pack();
    };
    let mut parsed = Parsed::EMPTY;
    match parse_into(packet, &mut parsed) {
        Ok(()) => judge(packet, tables, &parsed, slot),
        Err(reason) => {
            let mut decision = related::decide(packet, tables, slot, &mut parsed, reason);
            let bytes = u64::from(parsed.frame_len);
            if decision.asks(PackedDecision::OPEN) {
                tables.count(slot, Verdict::Pass, reason, bytes);
                decision = Decision::pass(Stage::Parse, reason).pack();
            } else {
                tables.count_packed(slot, decision, bytes);
                tables.count_binding(decision.binding(), bytes);
            }
            tables.trace(&parsed, decision);
            decision
        }
    }
}

/// Decides about a packet of no steady connection, counts it, and keeps the connection table.
#[inline(always)]
fn judge<P, T>(packet: &P, tables: &T, parsed: &Parsed, slot: u32) -> PackedDecision
where
    P: Packet + ?Sized,
    T: Kernel,
{
    let mut decision = tables.follow(parsed, slot, Review::NONE);
    if decision.asks(PackedDecision::REVIEW) {
        let review = tables.review(parsed, slot, decision);
        decision = tables.follow(parsed, slot, review);
    }
    if decision.leaves_something() {
        tables.settle(parsed, decision);
    }
    if decision.asks(PackedDecision::SOCKET) {
        tables.confirm(parsed);
    }
    if decision.asks(PackedDecision::OPEN) {
        decision = tables.judge_unknown(parsed, slot);
        if decision.asks(PackedDecision::ROW | PackedDecision::CONFIRMED_ROW) {
            let left = tables.track(parsed, slot, decision);
            if left.leaves_something() {
                tables.settle(parsed, left);
            }
        }
    }
    let mut decision = decision.plain();
    if decision.is(Verdict::Reject) {
        decision = tables.refuse(packet, parsed, slot, decision);
    } else if decision.is(Verdict::Redirect) {
        decision = hand_on(packet, tables, parsed, slot, decision);
    }
    let bytes = u64::from(parsed.frame_len);
    tables.count_packed(slot, decision, bytes);
    if decision.binding() != 0 {
        tables.count_binding(decision.binding(), bytes);
    }
    tables.trace(parsed, decision);
    decision
}

/// Hands a packet on to the CPU or the socket that it is bound to.
#[inline(always)]
fn hand_on<P, T>(
    packet: &P,
    tables: &T,
    parsed: &Parsed,
    slot: u32,
    decision: PackedDecision,
) -> PackedDecision
where
    P: Packet + ?Sized,
    T: Kernel,
{
    let Some(interface) = tables.interface(slot) else {
        return steering::stays(decision);
    };
    if decision.is_to(Target::Xsk) {
        return tables.to_socket(interface.ifindex, parsed.frame_len, decision);
    }
    if steering::reaches_cpus(interface) && tables.complete(packet, parsed) {
        return tables.to_cpu(&parsed.key, decision);
    }
    // Here the stack knows that the checksum is still to come.
    steering::stays(decision)
}

/// What became of a row's binding when the configuration changed, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Review(pub u64);

impl Review {
    /// It was not asked.
    pub const NONE: Self = Self(0);
    const DONE: u64 = 1 << 16;
    const LIVES_ON: u64 = 1 << 17;

    #[inline(always)]
    const fn new(binding: u16, lives_on: bool) -> Self {
        Self(binding as u64 | Self::DONE | if lives_on { Self::LIVES_ON } else { 0 })
    }

    #[inline(always)]
    const fn binding(self) -> u16 {
        self.0 as u16
    }

    #[inline(always)]
    const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }
}

/// Applies a packet to the row of its connection, and says what becomes of it. Where there is none,
/// or none any more, the decision is [open](PackedDecision::OPEN); where the configuration has
/// changed since the row was made, it asks for a [review](PackedDecision::REVIEW) first.
#[inline(always)]
pub fn follow<T: Tables + ?Sized>(
    tables: &T,
    parsed: &Parsed,
    slot: u32,
    review: Review,
) -> PackedDecision {
    let (Some(interface), Some(config)) = (tables.interface(slot), tables.config()) else {
        return Decision::pass(Stage::Default, Reason::Unconfigured).pack();
    };
    if parsed.station != Station::new(interface.station) {
        return Decision::pass(Stage::Parse, Reason::OtherHost).pack();
    }
    let probe = Probe::new(&parsed.key, tables, tables.homes());
    let now = config.clock.at_ticks(tables.ticks());
    let found = match rows::find(tables, &probe, &parsed.key, config, now) {
        Ok(found) => found,
        Err(expired) => {
            return PackedDecision(PackedDecision::OPEN).leaving(Aftermath::of_absent(&expired));
        }
    };
    if matches!(found.head.state(), State::Reserved) {
        // It only holds the local port: this host has not sent anything to be answered.
        return PackedDecision(PackedDecision::OPEN);
    }
    let mut binding = found.head.binding();
    if table::epoch(tables, found.line) != config.epoch {
        if !review.has(Review::DONE) {
            let epoch = table::epoch(tables, found.line);
            return PackedDecision(
                PackedDecision::REVIEW | (binding as u64) << 32 | u64::from(epoch),
            );
        }
        if !review.has(Review::LIVES_ON) {
            let ends = Aftermath::ends(found.head);
            return PackedDecision(PackedDecision::OPEN).leaving(ends);
        }
        binding = review.binding();
    }
    let packet = follow::Arrival {
        parsed,
        kind: kind_of(parsed),
        visibility: visibility(interface),
        packets: 1,
        bytes: parsed.frame_len,
        epoch: config.epoch,
        binding,
        now,
    };
    let target = match target_of(tables, binding).0 {
        target if target.is_steered() => target,
        // A row of the present epoch is believed: another target has made another epoch.
        _ => Target::Stack,
    };
    let decision = Decision::by(target, Stage::Connection, Reason::Connection)
        .of_binding(binding)
        .pack();
    match follow::follow(tables, &found, Side::Remote, &packet) {
        Followed::Yes(left) => decision.leaving(left),
        // The handshake cannot be seen from here: the kernel knows whether it is done.
        Followed::NeedsSocket(left) => decision.asking(PackedDecision::SOCKET).leaving(left),
        Followed::Gone(left) => PackedDecision(PackedDecision::OPEN).leaving(left),
    }
}

/// The binding that a row has from now on, which was made under another configuration, and whether it
/// lives on. `row` has its binding and its epoch so far.
///
/// - Where a binding drops or rejects, or is not tracked, no row lives on.
/// - A row of a steered binding keeps that as long as it exists, and ends with it. One that is not proved
///   to be such a binding's, because it is older, is treated as the stack's.
/// - A row of the stack lives on where the stack still has the packets; where neither a binding nor the
///   default would let them pass, or a steered binding would take them, it needs a socket of the
///   kernel, as its first packet would today.
#[inline(always)]
pub fn review<T: Kernel + ?Sized>(
    tables: &T,
    parsed: &Parsed,
    slot: u32,
    row: PackedDecision,
) -> Review {
    let (Some(interface), Some(config)) = (tables.interface(slot), tables.config()) else {
        return Review::new(0, true);
    };
    let context = Context::new(tables, parsed, interface, config);
    let (current, epoch) = (row.binding(), row.epoch());
    let binding = context.binding(current);
    let (target, untracked) = context.target(binding);
    if untracked || matches!(target, Target::Drop | Target::Reject) {
        return Review::new(binding, false);
    }
    let (mut is_steered, mut was_steered) = (false, false);
    if current != 0
        && let Some(own) = tables.binding(current)
    {
        is_steered = own.target.is_steered() && own.is_of(epoch);
        was_steered = !is_steered && own.was_steered(epoch);
    }
    if is_steered {
        return Review::new(current, true);
    }
    let is_let_in = binding != 0 && matches!(target, Target::Stack)
        || binding == 0
            && (matches!(interface.default, Policy::Pass)
                || context.is_probation_over()
                || config.kernel_sockets == 0);
    let lives_on = !was_steered
        && (is_let_in
            || config.kernel_sockets != 0
                && tables.kernel_socket(&parsed.key) != KernelSocket::None);
    // A steered binding does not get what the kernel has.
    let binding = if target.is_steered() { 0 } else { binding };
    Review::new(binding, lives_on)
}

/// Confirms the row of a packet if the kernel has a connected socket for it.
#[inline(always)]
pub fn confirm<T: Kernel + ?Sized>(tables: &T, parsed: &Parsed) {
    let key = &parsed.key;
    let asks = tables
        .config()
        .is_some_and(|config| config.kernel_sockets != 0);
    if asks && tables.kernel_socket(key) == KernelSocket::Connected {
        let probe = Probe::new(key, tables, tables.homes());
        if let Some(found) = table::find(tables, &probe, key) {
            follow::confirm(tables, &found);
        }
    }
}

/// Decides about a packet that belongs to no row; the decision may ask for a
/// [row](PackedDecision::ROW).
#[inline(always)]
pub fn judge_unknown<T: Kernel + ?Sized>(tables: &T, parsed: &Parsed, slot: u32) -> PackedDecision {
    match (tables.interface(slot), tables.config()) {
        (Some(interface), Some(config)) => {
            let (decision, tracking) =
                Context::new(tables, parsed, interface, config).judge_unknown();
            decision.pack().asking(tracking as u64)
        }
        _ => Decision::pass(Stage::Default, Reason::Unconfigured).pack(),
    }
}

/// Enters a row for a packet that arrived, as the decision about it asks for. The answer decides nothing, but
/// may leave something to be [settled](Tables::settle).
#[inline(always)]
pub fn track<T: Tables + ?Sized>(
    tables: &T,
    parsed: &Parsed,
    slot: u32,
    decision: PackedDecision,
) -> PackedDecision {
    const NOTHING: PackedDecision = PackedDecision(0);
    let (Some(interface), Some(config)) = (tables.interface(slot), tables.config()) else {
        return NOTHING;
    };
    let probe = Probe::new(&parsed.key, tables, tables.homes());
    let kind = kind_of(parsed);
    let Some(mut new) = rows::opened(parsed, kind, Side::Remote, visibility(interface)) else {
        return NOTHING;
    };
    new.rx_packets = 1;
    new.rx_bytes = parsed.frame_len;
    new.now = config.clock.at_ticks(tables.ticks());
    new.epoch = config.epoch;
    new.binding = decision.binding();
    if decision.asks(PackedDecision::CONFIRMED_ROW) {
        new.flags = Flags(new.flags.0 | Flags::CONFIRMED);
    }
    NOTHING.leaving(rows::enter(
        tables,
        &probe,
        &parsed.key,
        &new,
        config,
        slot,
        Side::Remote,
    ))
}

/// What a TCP segment asks for; `None` for UDP, and for flags that no sane sender sends.
#[inline(always)]
pub(crate) fn kind_of(parsed: &Parsed) -> Option<Kind> {
    match parsed.key.protocol {
        Protocol::Tcp => parsed.segment.flags.kind(),
        Protocol::Udp => None,
    }
}

#[inline(always)]
fn visibility(interface: &Interface) -> Visibility {
    if interface.egress != 0 {
        Visibility::Both
    } else {
        Visibility::IngressOnly
    }
}

/// What the steps below need to know of the packet and its interface.
struct Context<'a, T: ?Sized> {
    parsed: &'a Parsed,
    interface: &'a Interface,
    config: &'a Config,
    tables: &'a T,
}

/// Whether a packet without a row makes one.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Tracking {
    No = 0,
    Yes = PackedDecision::ROW,
    /// And the row is confirmed from the start.
    Confirmed = PackedDecision::CONFIRMED_ROW,
}

impl<'a, T: Kernel + ?Sized> Context<'a, T> {
    #[inline(always)]
    fn new(
        tables: &'a T,
        parsed: &'a Parsed,
        interface: &'a Interface,
        config: &'a Config,
    ) -> Self {
        Self {
            parsed,
            interface,
            config,
            tables,
        }
    }

    /// The binding of the packet's local endpoint; of a group `current`, if it is a member.
    #[inline(always)]
    fn binding(&self, current: u16) -> u16 {
        binding_of(
            self.tables,
            &self.parsed.key,
            self.parsed.family,
            self.interface,
            current,
        )
    }

    /// Where a binding sends its packets, and whether they are to make no rows.
    #[inline(always)]
    fn target(&self, binding: u16) -> (Target, bool) {
        target_of(self.tables, binding)
    }

    #[inline(always)]
    fn is_probation_over(&self) -> bool {
        self.interface.probation_ends != 0
            && self.interface.is_probation_over(self.tables.coarse_ns())
    }

    /// Decides about a packet that belongs to no row.
    #[inline(always)]
    fn judge_unknown(&self) -> (Decision, Tracking) {
        let binding = self.binding(0);
        let (target, untracked) = self.target(binding);
        let is_default_pass = matches!(self.interface.default, Policy::Pass);
        let tracks_all = matches!(self.config.track, Track::Local);
        if binding == 0 && is_default_pass && !tracks_all {
            return (
                Decision::pass(Stage::Default, Reason::Unbound),
                Tracking::No,
            );
        }
        let is_local = self.is_local();
        let mut tracking = if is_local {
            Tracking::Yes
        } else {
            Tracking::No
        };
        let decision = if binding != 0 {
            let decision = Decision::by(target, Stage::Binding, Reason::Bound).of_binding(binding);
            let decision = if matches!(target, Target::Stack) {
                decision
            } else {
                self.if_ours(is_local, decision)
            };
            let is_handed_on = matches!(decision.verdict, Verdict::Redirect);
            if !matches!(target, Target::Stack) && !is_handed_on {
                return (decision, Tracking::No);
            }
            if untracked {
                tracking = Tracking::No;
            }
            decision
        } else if is_default_pass {
            Decision::pass(Stage::Default, Reason::Unbound)
        } else if self.is_probation_over() {
            return (
                Decision::pass(Stage::Default, Reason::Probation),
                Tracking::No,
            );
        } else if !is_local {
            return (
                Decision::pass(Stage::Default, Reason::NotLocal),
                Tracking::No,
            );
        } else if self.config.kernel_sockets == 0 {
            let decision = self.if_ours(true, self.by_default(Reason::Unbound));
            return (decision, Tracking::No);
        } else {
            let socket = self.tables.kernel_socket(&self.parsed.key);
            if socket == KernelSocket::None {
                let decision = self.if_ours(true, self.by_default(Reason::NoSocket));
                return (decision, Tracking::No);
            }
            tracking = if tracks_all {
                self.learn(socket)
            } else {
                Tracking::No
            };
            Decision::pass(Stage::KernelSocket, Reason::KernelSocket)
        };
        if !self.parsed.may_be_tracked() {
            tracking = Tracking::No;
        }
        (decision, tracking)
    }

    /// What a default other than `pass` does with what nothing claims.
    #[inline(always)]
    fn by_default(&self, reason: Reason) -> Decision {
        if matches!(self.interface.default, Policy::Reject) {
            Decision::reject(Stage::Default, reason)
        } else {
            Decision::drop(Stage::Default, reason)
        }
    }

    /// Drops, refuses or steers only what this host itself would have received. The routing table is asked
    /// too: addresses may have gone since they were entered.
    #[inline(always)]
    fn if_ours(&self, is_local: bool, decision: Decision) -> Decision {
        if is_local && !self.tables.may_forward(&self.parsed.key) {
            decision
        } else {
            Decision::pass(decision.stage, Reason::NotLocal)
        }
    }

    /// Whether the destination is one of this host's own addresses.
    #[inline(always)]
    fn is_local(&self) -> bool {
        let key = &self.parsed.key;
        is_own(
            self.tables,
            &key.local_address,
            self.parsed.family,
            self.config,
        )
    }

    /// Whether a packet that a socket of the kernel takes makes a row, so that the next one need
    /// not ask.
    #[inline(always)]
    fn learn(&self, socket: KernelSocket) -> Tracking {
        if matches!(self.parsed.key.protocol, Protocol::Udp) {
            return Tracking::Yes;
        }
        let is_syn = matches!(kind_of(self.parsed), Some(Kind::Syn));
        match socket {
            // The owner answers with a challenge ACK (RFC 5961, section 4): nothing is proved.
            KernelSocket::Connected if is_syn => Tracking::No,
            KernelSocket::Connected => Tracking::Confirmed,
            // A listener takes ACKs too, for SYN cookies; but such an ACK may as well be a forgery.
            KernelSocket::Listener if !is_syn => Tracking::No,
            _ => Tracking::Yes,
        }
    }
}

/// The binding of the local endpoint of a packet; of a group `current`, if it is a member.
#[inline(always)]
pub(crate) fn binding_of<T: Tables + ?Sized>(
    tables: &T,
    key: &ConnectionKey,
    family: Family,
    interface: &Interface,
    current: u16,
) -> u16 {
    let binding = matcher::find(
        tables,
        &Endpoint {
            address: key.local_address,
            family,
            protocol: key.protocol,
            ifindex: interface.ifindex,
            port: key.local_port,
            reserved: 0,
        },
    );
    if binding == 0 {
        return 0;
    }
    match tables.binding(binding) {
        Some(bound) if bound.next_member != 0 => tables.member(binding, key, current),
        _ => binding,
    }
}

/// Where a binding sends its packets, and whether they are to make no rows.
#[inline(always)]
pub(crate) fn target_of<T: Tables + ?Sized>(tables: &T, binding: u16) -> (Target, bool) {
    if binding == 0 {
        return (Target::Stack, false);
    }
    match tables.binding(binding) {
        Some(binding) => (binding.target, binding.has(Binding::UNTRACKED)),
        None => (Target::Stack, false),
    }
}

/// Whether an address is one of this host's own.
#[inline(always)]
pub(crate) fn is_own<T: Tables + ?Sized>(
    tables: &T,
    address: &Address,
    family: Family,
    config: &Config,
) -> bool {
    address.is_v4_loopback(family) || tables.is_local(address, config.local_prefixes != 0)
}
