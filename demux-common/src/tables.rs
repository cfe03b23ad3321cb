//! What the packet path needs of the tables: in the kernel BPF maps, on the host whatever a test brings.

use crate::{
    address::Address,
    binding::{AddressKey, Binding, PortProfile, PortSlot, PrefixKey, PrefixMatch},
    config::{Config, Interface},
    connection::ConnectionKey,
    decide::{self, PackedDecision, Review},
    egress::{self, Departure},
    fast, follow,
    fragments::{self, Datagram, Kind, Owner},
    group, icmp,
    matcher::{self, Endpoint},
    packet::Packet,
    parse::Parsed,
    protocol::Protocol,
    reason::{Reason, Verdict},
    reject::Budget,
    related,
    steering::{self, XskSet},
    table::{self, Memory, Numbers},
    wire::loose::{self, Loose},
};

/// What the kernel's own tables of sockets say of a four-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelSocket {
    /// No socket would take the packet.
    None,
    /// A listener, a UDP socket, or what is left of a connection in TIME-WAIT: only a SYN opens
    /// a connection there.
    Listener,
    /// A TCP handshake that the kernel has answered and the remote has not completed.
    Request,
    /// A connected TCP socket.
    Connected,
}

/// The tables that say to whom a local endpoint is bound.
pub trait BindingTables {
    /// The slot of a port.
    fn port(&self, protocol: Protocol, port: u16) -> Option<PortSlot>;
    /// The profile at an index.
    fn profile(&self, index: u16) -> Option<&PortProfile>;
    /// The index of the binding with exactly this address and device.
    fn address(&self, key: &AddressKey) -> Option<u16>;
    /// The longest prefix that covers the key.
    fn prefix(&self, key: &PrefixKey) -> Option<PrefixMatch>;
    /// The binding at an index.
    fn binding(&self, index: u16) -> Option<&Binding>;
    /// [`matcher::search`]; the kernel program puts it into a function of its own.
    #[inline(always)]
    fn search(&self, profile: u16, endpoint: &Endpoint, any: u16) -> u16 {
        matcher::search(self, profile, endpoint, any)
    }
}

/// Something that happened in the connection table, counted per CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableEvent {
    /// A row was made.
    Entered,
    /// A row was made in the line of one that had expired.
    OverExpired,
    /// A row was made in the line of one that this host had not consented to.
    OverUnconfirmed,
    /// There was no room for a row.
    Untracked,
    /// A row ended.
    Ended,
}

impl TableEvent {
    /// All of them, in the order of [`crate::counters::TableCounters`].
    pub const ALL: [Self; 5] = [
        Self::Entered,
        Self::OverExpired,
        Self::OverUnconfirmed,
        Self::Untracked,
        Self::Ended,
    ];
}

/// What both directions need: bindings, the connection table, settings and counters.
pub trait Tables: BindingTables + Memory + Numbers {
    /// The settings of the instance.
    fn config(&self) -> Option<&Config>;
    /// The entry of an interface slot.
    fn interface(&self, slot: u32) -> Option<&Interface>;
    /// How many homes the connection table has.
    fn homes(&self) -> u32;
    /// The kernel's tick counter: see [`crate::clock`].
    fn ticks(&self) -> u64;
    /// Whether this is one of the host's own addresses; `prefixes` says whether AnyIP routes exist.
    fn is_local(&self, address: &Address, prefixes: bool) -> bool;
    /// Counts a packet of an interface slot.
    fn count(&self, slot: u32, verdict: Verdict, reason: Reason, bytes: u64);
    /// As [`Tables::count`], by a packed decision.
    fn count_packed(&self, slot: u32, decision: PackedDecision, bytes: u64);
    /// Counts a packet that found no room in the connection table.
    fn count_untracked(&self, slot: u32, bytes: u64);
    /// Counts a packet of a binding.
    fn count_binding(&self, index: u16, bytes: u64);
    /// Counts what happened in the connection table.
    fn count_event(&self, event: TableEvent);
    /// Tells whoever listens that there was no room for the row of a four-tuple: see [`crate::event`].
    #[inline(always)]
    fn tell_untracked(&self, key: &ConnectionKey) {
        let _ = key;
    }
    /// As [`Kernel::trace`], of one that leaves.
    #[inline(always)]
    fn trace_departing(&self, parsed: &Parsed, departure: &Departure) {
        let _ = (parsed, departure);
    }
    /// The coarse monotonic clock, in nanoseconds.
    fn coarse_ns(&self) -> u64;
    /// Whose a packet in fragments is.
    fn kept_owner(&self, datagram: &Datagram) -> Option<Owner>;
    /// Keeps that; where there is no room, in the place of another.
    fn keep_owner(&self, datagram: &Datagram, owner: &Owner);
    /// The CPU of a binding for connections whose four-tuple has this hash.
    fn cpu(&self, binding: u16, hash: u32) -> Option<u16>;
    /// Gets the packet ready to be redirected to a CPU; `false` where that takes none.
    fn redirect_to_cpu(&self, cpu: u32) -> bool;
    /// [`group::member`]; the kernel program puts it into a function of its own.
    #[inline(always)]
    fn member(&self, leader: u16, key: &ConnectionKey, current: u16) -> u16 {
        group::member(self, leader, table::tuple_hash(key, self), current)
    }
    /// [`fast::leaves`]; the kernel program may put it into a function of its own.
    #[inline(always)]
    fn leaves(&self, parsed: &Parsed, packets: u32, bytes: u32) -> bool {
        fast::leaves(self, parsed, packets, bytes)
    }
    /// Does what [`decide::follow`] or [`egress::follow`] has left to be done about the row of a packet: it
    /// ends, or its state has changed, which is told.
    #[inline(always)]
    fn settle(&self, parsed: &Parsed, left: PackedDecision) {
        follow::settle(self, parsed, left.0);
    }
    /// [`egress::follow`]; the kernel program puts it into a function of its own.
    #[inline(always)]
    fn follow_departing(&self, parsed: &Parsed, departure: &Departure) -> PackedDecision {
        egress::follow(self, parsed, departure)
    }
    /// [`egress::admit`].
    #[inline(always)]
    fn admit_departing(&self, parsed: &Parsed, departure: &Departure, slot: u32) -> Option<u16> {
        egress::admit(self, parsed, departure, slot)
    }
    /// [`egress::track`].
    #[inline(always)]
    fn track_departing(
        &self,
        parsed: &Parsed,
        departure: &Departure,
        slot: u32,
        binding: u16,
    ) -> PackedDecision {
        egress::track(self, parsed, departure, slot, binding)
    }
}

/// What only arriving packets need: the kernel's own opinion.
pub trait Kernel: Tables {
    /// Asks the kernel's own sockets.
    fn kernel_socket(&self, key: &ConnectionKey) -> KernelSocket;
    /// Whether the routing table might send the packet on, or has no answer.
    fn may_forward(&self, key: &ConnectionKey) -> bool;
    /// Tells whoever traces packets what became of one: see [`crate::trace`].
    #[inline(always)]
    fn trace(&self, parsed: &Parsed, decision: PackedDecision) {
        let _ = (parsed, decision);
    }
    /// The receive queue by which the packet came.
    fn rx_queue(&self) -> u32;
    /// The set of AF_XDP sockets at an index.
    fn xsk_set(&self, index: u16) -> Option<&XskSet>;
    /// Gets the packet ready to be redirected to the socket in a slot; `false` where there is none.
    fn redirect_to_socket(&self, slot: u32) -> bool;
    /// Fills in the checksum of a TCP segment or UDP datagram if its sender has left that to a device,
    /// so that the stack takes it from another CPU, where it is not known that it has; `false` where that
    /// cannot be done.
    fn complete<P>(&self, packet: &P, parsed: &Parsed) -> bool
    where
        P: Packet + ?Sized,
        Self: Sized;
    /// [`steering::to_socket`]; the kernel program puts this step, like most below, into a function of
    /// its own.
    #[inline(always)]
    fn to_socket(&self, ifindex: u32, length: u32, decision: PackedDecision) -> PackedDecision {
        steering::to_socket(self, ifindex, length, decision)
    }
    /// [`steering::to_cpu`] of a packet's four-tuple.
    #[inline(always)]
    fn to_cpu(&self, key: &ConnectionKey, decision: PackedDecision) -> PackedDecision {
        let hash = (table::tuple_hash(key, self) >> 32) as u32;
        steering::to_cpu(self, hash, decision)
    }
    /// [`loose::read`].
    #[inline(always)]
    fn read_loose<P>(&self, packet: &P, offset: usize, header: &mut Loose) -> bool
    where
        P: Packet + ?Sized,
    {
        loose::read(packet, offset, header)
    }
    /// [`fragments::read`].
    #[inline(always)]
    fn read_fragment<P>(&self, packet: &P, slot: u32, parsed: &mut Parsed) -> Kind
    where
        P: Packet + ?Sized,
        Self: Sized,
    {
        fragments::read(packet, self, slot, parsed)
    }
    /// [`fragments::binding`].
    #[inline(always)]
    fn binding_of_fragment(&self, parsed: &Parsed, slot: u32) -> u16 {
        fragments::binding(self, parsed, slot)
    }
    /// [`fragments::remember`].
    #[inline(always)]
    fn remember_fragments(&self, parsed: &Parsed, binding: u16) {
        fragments::remember(self, parsed, binding);
    }
    /// [`fragments::recall`].
    #[inline(always)]
    fn recall_fragments(&self, parsed: &mut Parsed) -> u16 {
        fragments::recall(self, parsed)
    }
    /// [`icmp::read`].
    #[inline(always)]
    fn read_icmp<P>(&self, packet: &P, slot: u32, parsed: &mut Parsed) -> bool
    where
        P: Packet + ?Sized,
        Self: Sized,
    {
        icmp::read(packet, self, slot, parsed)
    }
    /// [`related::owner_of_row`].
    #[inline(always)]
    fn owner_of_row(&self, parsed: &Parsed, slot: u32) -> u32 {
        related::owner_of_row(self, parsed, slot)
    }
    /// How many refusals this CPU may still send.
    fn budget(&self) -> Budget;
    /// Keeps what is left of it.
    fn set_budget(&self, budget: &Budget);
    /// [`crate::reject::refuse`], which writes the answer over the packet; where nothing may be
    /// changed, the decision as it is.
    fn refuse<P>(
        &self,
        packet: &P,
        parsed: &Parsed,
        slot: u32,
        decision: PackedDecision,
    ) -> PackedDecision
    where
        P: Packet + ?Sized,
        Self: Sized;
    /// [`fast::arrives`].
    #[inline(always)]
    fn arrives<P>(&self, packet: &P, ifindex: u32) -> Option<PackedDecision>
    where
        P: Packet + ?Sized,
        Self: Sized,
    {
        fast::arrives(packet, ifindex, self)
    }
    /// [`decide::follow`].
    #[inline(always)]
    fn follow(&self, parsed: &Parsed, slot: u32, review: Review) -> PackedDecision {
        decide::follow(self, parsed, slot, review)
    }
    /// [`decide::review`].
    #[inline(always)]
    fn review(&self, parsed: &Parsed, slot: u32, row: PackedDecision) -> Review {
        decide::review(self, parsed, slot, row)
    }
    /// [`decide::confirm`].
    #[inline(always)]
    fn confirm(&self, parsed: &Parsed) {
        decide::confirm(self, parsed);
    }
    /// [`decide::judge_unknown`].
    #[inline(always)]
    fn judge_unknown(&self, parsed: &Parsed, slot: u32) -> PackedDecision {
        decide::judge_unknown(self, parsed, slot)
    }
    /// [`decide::track`].
    #[inline(always)]
    fn track(&self, parsed: &Parsed, slot: u32, decision: PackedDecision) -> PackedDecision {
        decide::track(self, parsed, slot, decision)
    }
}
