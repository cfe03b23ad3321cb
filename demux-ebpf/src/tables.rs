//! The maps as [`demux_common::tables::Tables`], and the questions to the kernel.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_and, atomic_cxchg, atomic_xadd};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NOT_FWDED, bpf_fib_lookup, bpf_sock_tuple,
        xdp_md,
    },
    btf_maps::lpm_trie::Key,
    helpers::{
        self, bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_sk_lookup_udp, bpf_sk_release,
        bpf_skc_lookup_tcp,
    },
    programs::XdpContext,
};
use demux_common::{
    address::Address,
    binding::{AddressKey, Binding, PortProfile, PortSlot, PrefixKey, PrefixMatch},
    command::{self, Command},
    config::{Config, Interface},
    connection::{ConnectionKey, State},
    counters::InterfaceCounters,
    decide::{self, PackedDecision, Review},
    egress::{self, Departure},
    event::{self, Happening},
    fast, follow,
    fragments::{Datagram, Kind, Owner},
    group,
    layout::LocalPrefix,
    matcher::{self, Endpoint},
    packet::Packet,
    parse::Parsed,
    protocol::Protocol,
    reason::{Count, Reason, Verdict},
    reject::Budget,
    sent::{self, Sent},
    steering::XskSet,
    table::{self, Choice, Cold, Head, Line, Memory, Numbers},
    tables::{BindingTables, Kernel, KernelSocket, TableEvent, Tables},
    wire::loose::Loose,
};

use crate::{
    listen::{demux_tell, demux_tell_untracked, demux_trace, demux_trace_departing},
    maps::{self, LocalPrefixData, PrefixData},
    packet::Frame,
    reject::demux_refuse,
    steering::{
        demux_binding_of_fragment, demux_complete, demux_owner_of_row, demux_owner_of_row_dry,
        demux_read_fragment, demux_read_icmp, demux_read_loose, demux_recall, demux_remember,
        demux_to_cpu, demux_to_socket,
    },
};

/// The maps, and the context that helpers want to see. Where they are not `LIVE` every store is
/// left out: that is what `explain` runs on.
pub(crate) struct Maps<C, const LIVE: bool> {
    ctx: C,
}

impl<C, const LIVE: bool> Maps<C, LIVE> {
    /// The tables for a packet.
    #[inline(always)]
    pub(crate) const fn new(ctx: C) -> Self {
        Self { ctx }
    }
}

/// The maps that bindings are looked up in, which need no context.
struct BindingMaps;

impl BindingTables for BindingMaps {
    #[inline(always)]
    fn port(&self, protocol: Protocol, port: u16) -> Option<PortSlot> {
        maps::PORTS.get(PortSlot::index(protocol, port)).copied()
    }

    #[inline(always)]
    fn profile(&self, index: u16) -> Option<&PortProfile> {
        maps::PORT_PROFILES.get(u32::from(index))
    }

    #[inline(always)]
    fn address(&self, key: &AddressKey) -> Option<u16> {
        // SAFETY: the value is copied at once.
        unsafe { maps::ADDRESSES.get(key) }.map(|index| *index as u16)
    }

    #[inline(always)]
    fn prefix(&self, key: &PrefixKey) -> Option<PrefixMatch> {
        // SAFETY: both are a length of four bytes and the data behind it, without padding.
        let key = unsafe { &*core::ptr::from_ref(key).cast::<Key<PrefixData>>() };
        maps::PREFIXES.get(key).copied()
    }

    #[inline(always)]
    fn binding(&self, index: u16) -> Option<&Binding> {
        maps::BINDINGS.get(u32::from(index))
    }
}

/// [`matcher::search`] as a global function: the verifier looks at it once, and not again for each
/// of the ways that lead to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_search(endpoint: *const Endpoint, profile: u32, any: u32) -> u32 {
    // SAFETY: the verifier holds callers to a readable endpoint, or null.
    let Some(endpoint) = (unsafe { endpoint.as_ref() }) else {
        return any;
    };
    u32::from(matcher::search(
        &BindingMaps,
        profile as u16,
        endpoint,
        any as u16,
    ))
}

impl<C, const LIVE: bool> BindingTables for Maps<C, LIVE> {
    #[inline(always)]
    fn port(&self, protocol: Protocol, port: u16) -> Option<PortSlot> {
        BindingMaps.port(protocol, port)
    }

    #[inline(always)]
    fn profile(&self, index: u16) -> Option<&PortProfile> {
        maps::PORT_PROFILES.get(u32::from(index))
    }

    #[inline(always)]
    fn address(&self, key: &AddressKey) -> Option<u16> {
        BindingMaps.address(key)
    }

    #[inline(always)]
    fn prefix(&self, key: &PrefixKey) -> Option<PrefixMatch> {
        BindingMaps.prefix(key)
    }

    #[inline(always)]
    fn binding(&self, index: u16) -> Option<&Binding> {
        maps::BINDINGS.get(u32::from(index))
    }

    #[inline(always)]
    fn search(&self, profile: u16, endpoint: &Endpoint, any: u16) -> u16 {
        demux_search(endpoint, u32::from(profile), u32::from(any)) as u16
    }
}

impl<C, const LIVE: bool> Numbers for Maps<C, LIVE> {
    #[inline(always)]
    fn number(&self, index: usize) -> u64 {
        // SAFETY: every index is a constant below the length. Volatile, because the loader sets
        // the numbers after the compiler has seen them.
        unsafe {
            (&raw const maps::HASH_NUMBERS)
                .cast::<u64>()
                .add(index)
                .read_volatile()
        }
    }
}

/// Runs `store` where stores are meant.
macro_rules! if_live {
    ($store:expr, $else:expr) => {
        if LIVE {
            // SAFETY: `AT` is a field of the line, and lines are map values, which stay for as long
            // as the program runs.
            unsafe { $store }
        } else {
            $else
        }
    };
}

impl<C, const LIVE: bool> Memory for Maps<C, LIVE> {
    type Line = *mut u8;

    #[inline(always)]
    fn line(&self, index: u32) -> Option<*mut u8> {
        maps::CONNECTIONS.get_ptr_mut(index).map(<*mut Line>::cast)
    }

    #[inline(always)]
    fn cold(&self, index: u32) -> Option<*mut u8> {
        maps::CONNECTION_COLD
            .get_ptr_mut(index)
            .map(<*mut Cold>::cast)
    }

    #[inline(always)]
    fn load32<const AT: usize>(&self, line: *mut u8) -> u32 {
        // SAFETY: as in `if_live`; volatile, because other CPUs write it.
        unsafe { line.add(AT).cast::<u32>().read_volatile() }
    }

    #[inline(always)]
    fn load64<const AT: usize>(&self, line: *mut u8) -> u64 {
        // SAFETY: as in `load32`.
        unsafe { line.add(AT).cast::<u64>().read_volatile() }
    }

    #[inline(always)]
    fn store32<const AT: usize>(&self, line: *mut u8, value: u32) {
        if_live!(line.add(AT).cast::<u32>().write_volatile(value), ());
    }

    #[inline(always)]
    fn store64<const AT: usize>(&self, line: *mut u8, value: u64) {
        if_live!(line.add(AT).cast::<u64>().write_volatile(value), ());
    }

    #[inline(always)]
    fn exchange32<const AT: usize>(&self, line: *mut u8, old: u32, new: u32) -> bool {
        if_live!(
            atomic_cxchg::<u32, { SeqCst }, { SeqCst }>(line.add(AT).cast(), old, new).1,
            true
        )
    }

    #[inline(always)]
    fn exchange64<const AT: usize>(&self, line: *mut u8, old: u64, new: u64) -> bool {
        if_live!(
            atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(line.add(AT).cast(), old, new).1,
            true
        )
    }

    #[inline(always)]
    fn and32<const AT: usize>(&self, line: *mut u8, mask: u32) {
        if_live!(
            {
                atomic_and::<u32, u32, { SeqCst }>(line.add(AT).cast(), mask);
            },
            ()
        );
    }

    #[inline(always)]
    fn add32<const AT: usize>(&self, line: *mut u8, addend: u32) {
        if_live!(
            {
                atomic_xadd::<u32, u32, { SeqCst }>(line.add(AT).cast(), addend);
            },
            ()
        );
    }

    #[inline(always)]
    fn pressure(&self) -> u32 {
        match maps::TABLE_COUNTS.get_ptr_mut(0) {
            // SAFETY: the map has the value, and this CPU is the only writer of its own copy.
            Some(counters) => (unsafe { (*counters).pressure }) as u32,
            None => 0,
        }
    }

    #[inline(always)]
    fn set_pressure(&self, pressure: u32) {
        if LIVE && let Some(counters) = maps::TABLE_COUNTS.get_ptr_mut(0) {
            // SAFETY: as above.
            unsafe { (*counters).pressure = u64::from(pressure) };
        }
    }

    #[inline(always)]
    fn displaced_in_vain(&self) {
        self.count_event(TableEvent::OverUnconfirmed);
    }

    #[inline(always)]
    fn tell(&self, what: Happening, index: u32, head: Head, before: State) {
        if LIVE {
            demux_tell(index, head.0, event::word(what, before));
        }
    }

    #[inline(always)]
    fn fitter(
        &self,
        best: u64,
        home: u32,
        hop: u32,
        now: u32,
        unfit: u32,
        _lifetimes: &[u32; State::SLOTS],
    ) -> u64 {
        demux_fitter(best, home, hop, now, unfit)
    }

    #[inline(always)]
    fn choose(&self, home: u32, now: u32, unfit: u32, _lifetimes: &[u32; State::SLOTS]) -> Choice {
        Choice(demux_choose(home, now, unfit))
    }
}

/// [`table::fitter`] as a global function: the verifier takes its result for any number, which keeps
/// the loop around it from branching into a tree.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_fitter(best: u64, home: u32, hop: u32, now: u32, unfit: u32) -> u64 {
    match maps::CONFIG.get(0) {
        Some(config) => {
            let tables = Maps::<_, false>::new(());
            table::fitter(&tables, best, home, hop, now, unfit, &config.lifetimes)
        }
        None => best,
    }
}

/// [`table::choose`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_choose(home: u32, now: u32, unfit: u32) -> u64 {
    match maps::CONFIG.get(0) {
        Some(config) => {
            let tables = Maps::<_, true>::new(());
            table::choose(&tables, home, now, unfit, &config.lifetimes).0
        }
        None => 0,
    }
}

/// BPF_F_CURRENT_NETNS: the namespace of the device.
pub(crate) const CURRENT_NETNS: u64 = u64::MAX;

/// enum bpf_fib_lookup: AF_INET and AF_INET6.
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

/// States of a socket (include/net/tcp_states.h).
const TCP_TIME_WAIT: u32 = 6;
pub(crate) const TCP_LISTEN: u32 = 10;
const TCP_NEW_SYN_RECV: u32 = 12;
const TCP_SYN_RECV: u32 = 3;
/// Not a state of any socket.
const NO_SOCKET: u32 = 0;

impl<C, const LIVE: bool> Tables for Maps<C, LIVE> {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        maps::CONFIG.get(0)
    }

    #[inline(always)]
    fn interface(&self, slot: u32) -> Option<&Interface> {
        maps::INTERFACES.get(slot)
    }

    #[inline(always)]
    fn homes(&self) -> u32 {
        // SAFETY: as in `number`.
        unsafe { (&raw const maps::TABLE_HOMES).read_volatile() }
    }

    #[inline(always)]
    fn ticks(&self) -> u64 {
        // SAFETY: the helper has no arguments.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn is_local(&self, address: &Address, prefixes: bool) -> bool {
        // Before Linux 6.2 a key must lie on the stack of the function that looks it up.
        let address = &Address::from_words(address.words());
        // SAFETY: only the presence of a value is asked.
        if unsafe { maps::LOCALS.get(address) }.is_some() {
            return true;
        }
        prefixes && is_in_local_prefix(address)
    }

    #[inline(always)]
    fn count(&self, slot: u32, verdict: Verdict, reason: Reason, bytes: u64) {
        if !LIVE {
            return;
        }
        let Some(counters) = maps::COUNTERS.get_ptr_mut(slot) else {
            return;
        };
        // SAFETY: the structure is an array of counts, the index is below its length, and this CPU
        // is the only writer of its own copy.
        unsafe {
            add(
                counters
                    .cast::<Count>()
                    .add(InterfaceCounters::index(verdict, reason)),
                bytes,
            )
        };
    }

    #[inline(always)]
    fn count_packed(&self, slot: u32, decision: PackedDecision, bytes: u64) {
        if LIVE && let Some(counters) = maps::COUNTERS.get_ptr_mut(slot) {
            // SAFETY: as in `count`.
            unsafe {
                add(
                    counters
                        .cast::<Count>()
                        .add(InterfaceCounters::index_of(decision)),
                    bytes,
                );
            };
        }
    }

    #[inline(always)]
    fn count_untracked(&self, slot: u32, bytes: u64) {
        if LIVE && let Some(counters) = maps::COUNTERS.get_ptr_mut(slot) {
            // SAFETY: the field lies within the structure, and this CPU is its only writer.
            unsafe { add(&raw mut (*counters).untracked, bytes) };
        }
    }

    #[inline(always)]
    fn count_binding(&self, index: u16, bytes: u64) {
        if LIVE && let Some(count) = maps::BINDING_COUNTS.get_ptr_mut(u32::from(index)) {
            // SAFETY: the map has the value, and this CPU is the only writer of its own copy.
            unsafe { add(count, bytes) };
        }
    }

    #[inline(always)]
    fn count_event(&self, event: TableEvent) {
        if LIVE && let Some(counters) = maps::TABLE_COUNTS.get_ptr_mut(0) {
            // SAFETY: every event is the index of a counter, and this CPU is the only writer of its
            // own copy.
            unsafe { *counters.cast::<u64>().add(event as usize) += 1 };
        }
    }

    #[inline(always)]
    fn tell_untracked(&self, key: &ConnectionKey) {
        if LIVE {
            demux_tell_untracked(key);
        }
    }

    #[inline(always)]
    fn trace_departing(&self, parsed: &Parsed, departure: &Departure) {
        if LIVE {
            demux_trace_departing(parsed, departure.ifindex, departure.segments.max(1));
        }
    }

    #[inline(always)]
    fn coarse_ns(&self) -> u64 {
        // SAFETY: the helper has no arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn kept_owner(&self, datagram: &Datagram) -> Option<Owner> {
        // SAFETY: the value is copied at once.
        unsafe { maps::FRAGMENTS.get(datagram) }.copied()
    }

    #[inline(always)]
    fn keep_owner(&self, datagram: &Datagram, owner: &Owner) {
        if LIVE {
            // Where it cannot be kept, the later ones pass.
            let _ = maps::FRAGMENTS.insert(datagram, owner, 0);
        }
    }

    #[inline(always)]
    fn cpu(&self, binding: u16, hash: u32) -> Option<u16> {
        maps::CPU_LISTS.get(u32::from(binding))?.pick(hash)
    }

    #[inline(always)]
    fn redirect_to_cpu(&self, cpu: u32) -> bool {
        maps::CPUS.redirect(cpu, 0).is_ok()
    }

    #[inline(always)]
    fn settle(&self, parsed: &Parsed, left: PackedDecision) {
        if LIVE {
            demux_settle(parsed, left.0);
        }
    }

    #[inline(always)]
    fn follow_departing(&self, parsed: &Parsed, departure: &Departure) -> PackedDecision {
        PackedDecision(demux_follow_departing(parsed, departure))
    }

    #[inline(always)]
    fn admit_departing(&self, parsed: &Parsed, departure: &Departure, slot: u32) -> Option<u16> {
        let binding = demux_admit_departing(parsed, departure, slot);
        (binding != REFUSED).then_some(binding as u16)
    }

    #[inline(always)]
    fn track_departing(
        &self,
        parsed: &Parsed,
        departure: &Departure,
        slot: u32,
        binding: u16,
    ) -> PackedDecision {
        let binding = u32::from(binding);
        PackedDecision(demux_track_departing(parsed, departure, slot, binding))
    }

    #[inline(always)]
    fn member(&self, leader: u16, key: &ConnectionKey, current: u16) -> u16 {
        demux_member(key, u32::from(leader), u32::from(current)) as u16
    }

    #[inline(always)]
    fn leaves(&self, parsed: &Parsed, packets: u32, bytes: u32) -> bool {
        demux_leaves(parsed, packets, bytes) != 0
    }
}

/// [`Tables::member`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_member(key: *const ConnectionKey, leader: u32, current: u32) -> u32 {
    // SAFETY: the verifier holds callers to a readable key, or null.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return leader;
    };
    let hash = table::tuple_hash(key, &Maps::<_, false>::new(()));
    u32::from(group::member(
        &BindingMaps,
        leader as u16,
        hash,
        current as u16,
    ))
}

/// What a step returns that has no answer.
const REFUSED: u64 = u64::MAX;

impl<const LIVE: bool> Kernel for Maps<&XdpContext, LIVE> {
    #[inline(always)]
    fn kernel_socket(&self, key: &ConnectionKey) -> KernelSocket {
        match key.protocol {
            Protocol::Tcp => match tcp_socket_state(self.ctx, key) {
                NO_SOCKET => KernelSocket::None,
                TCP_LISTEN | TCP_TIME_WAIT => KernelSocket::Listener,
                TCP_NEW_SYN_RECV | TCP_SYN_RECV => KernelSocket::Request,
                _ => KernelSocket::Connected,
            },
            Protocol::Udp => {
                if has_udp_socket(self.ctx, key) {
                    KernelSocket::Listener
                } else {
                    KernelSocket::None
                }
            }
        }
    }

    #[inline(always)]
    fn may_forward(&self, key: &ConnectionKey) -> bool {
        let answer = route(self.ctx.as_ptr().cast(), key);
        // Both mean that the packet goes no further than this host; anything else may be a route.
        answer != i64::from(BPF_FIB_LKUP_RET_NOT_FWDED)
            && answer != i64::from(BPF_FIB_LKUP_RET_FWD_DISABLED)
    }

    #[inline(always)]
    fn budget(&self) -> Budget {
        match maps::REPLY_BUDGET.get_ptr_mut(0) {
            // SAFETY: the map has the value, and this CPU is the only writer of its own copy.
            Some(budget) => unsafe { *budget },
            None => Budget::default(),
        }
    }

    #[inline(always)]
    fn set_budget(&self, budget: &Budget) {
        if LIVE && let Some(kept) = maps::REPLY_BUDGET.get_ptr_mut(0) {
            // SAFETY: as above.
            unsafe { *kept = *budget };
        }
    }

    #[inline(always)]
    fn trace(&self, parsed: &Parsed, decision: PackedDecision) {
        if LIVE {
            demux_trace(self.ctx.as_ptr().cast(), parsed, decision.0);
        }
    }

    #[inline(always)]
    fn rx_queue(&self) -> u32 {
        self.ctx.rx_queue_index() as u32
    }

    #[inline(always)]
    fn xsk_set(&self, index: u16) -> Option<&XskSet> {
        maps::XSK_SETS.get(u32::from(index))
    }

    #[inline(always)]
    fn redirect_to_socket(&self, slot: u32) -> bool {
        // A test run of the twin ends with XDP_DROP, so nothing is redirected there.
        maps::XSKS.redirect(slot, 0).is_ok()
    }

    #[inline(always)]
    fn complete<P: Packet + ?Sized>(&self, _packet: &P, parsed: &Parsed) -> bool {
        !LIVE || demux_complete(self.ctx.as_ptr().cast(), parsed) != 0
    }

    #[inline(always)]
    fn to_socket(&self, ifindex: u32, length: u32, decision: PackedDecision) -> PackedDecision {
        let ctx = self.ctx.as_ptr().cast();
        PackedDecision(demux_to_socket(ctx, ifindex, length, decision.0))
    }

    #[inline(always)]
    fn to_cpu(&self, key: &ConnectionKey, decision: PackedDecision) -> PackedDecision {
        PackedDecision(demux_to_cpu(key, decision.0))
    }

    #[inline(always)]
    fn read_loose<P: Packet + ?Sized>(
        &self,
        _packet: &P,
        offset: usize,
        header: &mut Loose,
    ) -> bool {
        demux_read_loose(self.ctx.as_ptr().cast(), offset as u32, header) != 0
    }

    #[inline(always)]
    fn read_fragment<P: Packet + ?Sized>(
        &self,
        _packet: &P,
        slot: u32,
        parsed: &mut Parsed,
    ) -> Kind {
        match demux_read_fragment(self.ctx.as_ptr().cast(), slot, parsed) {
            1 => Kind::First,
            2 => Kind::Later,
            3 => Kind::Portless,
            _ => Kind::Other,
        }
    }

    #[inline(always)]
    fn binding_of_fragment(&self, parsed: &Parsed, slot: u32) -> u16 {
        demux_binding_of_fragment(self.ctx.as_ptr().cast(), parsed, slot) as u16
    }

    #[inline(always)]
    fn remember_fragments(&self, parsed: &Parsed, binding: u16) {
        if LIVE {
            demux_remember(parsed, u32::from(binding));
        }
    }

    #[inline(always)]
    fn recall_fragments(&self, parsed: &mut Parsed) -> u16 {
        demux_recall(parsed) as u16
    }

    #[inline(always)]
    fn read_icmp<P: Packet + ?Sized>(&self, _packet: &P, slot: u32, parsed: &mut Parsed) -> bool {
        demux_read_icmp(self.ctx.as_ptr().cast(), slot, parsed) != 0
    }

    #[inline(always)]
    fn owner_of_row(&self, parsed: &Parsed, slot: u32) -> u32 {
        (if LIVE {
            demux_owner_of_row(parsed, slot)
        } else {
            demux_owner_of_row_dry(parsed, slot)
        }) as u32
    }

    #[inline(always)]
    fn refuse<P: Packet + ?Sized>(
        &self,
        _packet: &P,
        parsed: &Parsed,
        slot: u32,
        decision: PackedDecision,
    ) -> PackedDecision {
        if LIVE {
            PackedDecision(demux_refuse(
                self.ctx.as_ptr().cast(),
                parsed,
                slot,
                decision.0,
            ))
        } else {
            decision
        }
    }

    #[inline(always)]
    fn arrives<P: Packet + ?Sized>(&self, _packet: &P, _ifindex: u32) -> Option<PackedDecision> {
        let decision = if LIVE {
            arrives(self.ctx)
        } else {
            arrives_dry(self.ctx)
        };
        (decision != REFUSED).then_some(PackedDecision(decision))
    }

    #[inline(always)]
    fn follow(&self, parsed: &Parsed, slot: u32, review: Review) -> PackedDecision {
        PackedDecision(if LIVE {
            demux_follow(parsed, slot, review.0)
        } else {
            demux_follow_dry(parsed, slot, review.0)
        })
    }

    #[inline(always)]
    fn review(&self, parsed: &Parsed, slot: u32, row: PackedDecision) -> Review {
        let ctx = self.ctx.as_ptr().cast();
        Review(demux_review(ctx, parsed, slot, row.0))
    }

    #[inline(always)]
    fn confirm(&self, parsed: &Parsed) {
        if LIVE {
            demux_confirm(self.ctx.as_ptr().cast(), parsed);
        }
    }

    #[inline(always)]
    fn judge_unknown(&self, parsed: &Parsed, slot: u32) -> PackedDecision {
        PackedDecision(demux_judge(self.ctx.as_ptr().cast(), parsed, slot))
    }

    #[inline(always)]
    fn track(&self, parsed: &Parsed, slot: u32, decision: PackedDecision) -> PackedDecision {
        PackedDecision(if LIVE {
            demux_track(parsed, slot, decision.0)
        } else {
            0
        })
    }
}

/// [`fast::arrives`], apart from the rest of the way so that its few values find registers.
#[inline(never)]
fn arrives(ctx: &XdpContext) -> u64 {
    shortest_way::<true>(ctx)
}

/// [`arrives`] with every store left out.
#[inline(never)]
fn arrives_dry(ctx: &XdpContext) -> u64 {
    shortest_way::<false>(ctx)
}

#[inline(always)]
fn shortest_way<const LIVE: bool>(ctx: &XdpContext) -> u64 {
    let tables = Maps::<_, LIVE>::new(ctx);
    let ifindex = ctx.ingress_ifindex() as u32;
    match fast::arrives(&Frame::new(ctx), ifindex, &tables) {
        Some(decision) => decision.0,
        None => REFUSED,
    }
}

// The steps of a packet's way are global functions: the verifier looks at each once, and not again
// for each of the ways that lead to it, and only one of them at a time needs stack. The verifier
// holds their callers to readable arguments, or null.

macro_rules! step {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) $parsed:ident $body:block) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name($($argument: $type),*) -> u64 {
            // SAFETY: see above.
            let Some($parsed) = (unsafe { $parsed.as_ref() }) else {
                return 0;
            };
            $body
        }
    };
}

step! {
    /// [`decide::follow`].
    demux_follow(parsed: *const Parsed, slot: u32, review: u64) parsed {
        decide::follow(&Maps::<_, true>::new(()), parsed, slot, Review(review)).0
    }
}

step! {
    /// [`decide::follow`] with every store left out.
    demux_follow_dry(parsed: *const Parsed, slot: u32, review: u64) parsed {
        decide::follow(&Maps::<_, false>::new(()), parsed, slot, Review(review)).0
    }
}

step! {
    /// [`decide::review`], which stores nothing.
    demux_review(ctx: *mut xdp_md, parsed: *const Parsed, slot: u32, row: u64) parsed {
        let ctx = XdpContext::new(ctx);
        decide::review(&Maps::<_, false>::new(&ctx), parsed, slot, PackedDecision(row)).0
    }
}

step! {
    /// [`decide::confirm`].
    demux_confirm(ctx: *mut xdp_md, parsed: *const Parsed) parsed {
        let ctx = XdpContext::new(ctx);
        decide::confirm(&Maps::<_, true>::new(&ctx), parsed);
        0
    }
}

step! {
    /// [`decide::judge_unknown`], which stores nothing.
    demux_judge(ctx: *mut xdp_md, parsed: *const Parsed, slot: u32) parsed {
        let ctx = XdpContext::new(ctx);
        decide::judge_unknown(&Maps::<_, false>::new(&ctx), parsed, slot).0
    }
}

step! {
    /// [`decide::track`].
    demux_track(parsed: *const Parsed, slot: u32, decision: u64) parsed {
        decide::track(&Maps::<_, true>::new(()), parsed, slot, PackedDecision(decision)).0
    }
}

step! {
    /// [`egress::follow`].
    demux_follow_departing(parsed: *const Parsed, departure: *const Departure) parsed {
        // SAFETY: see above.
        match unsafe { departure.as_ref() } {
            Some(departure) => egress::follow(&Maps::<_, true>::new(()), parsed, departure).0,
            None => 0,
        }
    }
}

step! {
    /// [`Tables::settle`].
    demux_settle(parsed: *const Parsed, left: u64) parsed {
        follow::settle(&Maps::<_, true>::new(()), parsed, left);
        0
    }
}

step! {
    /// [`fast::leaves`].
    demux_leaves(parsed: *const Parsed, packets: u32, bytes: u32) parsed {
        u64::from(fast::leaves(&Maps::<_, true>::new(()), parsed, packets, bytes))
    }
}

step! {
    /// [`egress::admit`].
    demux_admit_departing(parsed: *const Parsed, departure: *const Departure, slot: u32) parsed {
        // SAFETY: see above.
        let binding = match unsafe { departure.as_ref() } {
            Some(departure) => egress::admit(&Maps::<_, true>::new(()), parsed, departure, slot),
            None => None,
        };
        match binding {
            Some(binding) => u64::from(binding),
            None => REFUSED,
        }
    }
}

step! {
    /// [`egress::track`].
    demux_track_departing(
        parsed: *const Parsed,
        departure: *const Departure,
        slot: u32,
        binding: u32
    ) parsed {
        // SAFETY: see above.
        match unsafe { departure.as_ref() } {
            Some(departure) => {
                let tables = Maps::<_, true>::new(());
                egress::track(&tables, parsed, departure, slot, binding as u16).0
            }
            None => 0,
        }
    }
}

/// [`sent::enter`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_enter_sent(sent: *const Sent) -> u64 {
    // SAFETY: the verifier holds callers to a readable report, or null.
    if let Some(sent) = unsafe { sent.as_ref() } {
        sent::enter(&Maps::<_, true>::new(()), sent);
    }
    0
}

/// [`command::execute`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_execute(command: *const Command) -> u64 {
    // SAFETY: the verifier holds callers to a readable command, or null.
    match unsafe { command.as_ref() } {
        Some(command) => command::execute(&Maps::<_, true>::new(()), command) as u64,
        None => 0,
    }
}

/// # Safety
///
/// `count` points to a count that only this CPU writes.
#[inline(always)]
unsafe fn add(count: *mut Count, bytes: u64) {
    // SAFETY: the caller's.
    unsafe {
        (*count).packets += 1;
        (*count).bytes += bytes;
    }
}

// The functions below are not inlined, so that the structures they fill do not weigh on the stack
// of the program, which has 512 bytes for everything.

/// The state of the TCP socket that would take an arriving packet, or [`NO_SOCKET`].
#[inline(never)]
fn tcp_socket_state(ctx: &XdpContext, key: &ConnectionKey) -> u32 {
    let (mut tuple, size) = SockTuple::new(key);
    // SAFETY: the tuple is initialised, and longer than `size` says.
    let socket =
        unsafe { bpf_skc_lookup_tcp(ctx.as_ptr(), tuple.as_mut_ptr(), size, CURRENT_NETNS, 0) };
    if socket.is_null() {
        return NO_SOCKET;
    }
    // SAFETY: the helper returned a socket, which is released just below.
    let state = unsafe { (*socket).state };
    // SAFETY: the socket came from a lookup and is released once.
    unsafe { bpf_sk_release(socket.cast()) };
    state
}

/// Whether a UDP socket would take an arriving packet.
///
/// Not one function with the TCP lookup: the two return different types of pointers, which the
/// verifier lets no instruction share.
#[inline(never)]
fn has_udp_socket(ctx: &XdpContext, key: &ConnectionKey) -> bool {
    let (mut tuple, size) = SockTuple::new(key);
    // SAFETY: the tuple is initialised, and longer than `size` says.
    let socket =
        unsafe { bpf_sk_lookup_udp(ctx.as_ptr(), tuple.as_mut_ptr(), size, CURRENT_NETNS, 0) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the socket came from a lookup and is released once.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}

#[inline(never)]
fn is_in_local_prefix(address: &Address) -> bool {
    let key = LocalPrefix {
        prefix_len: LocalPrefix::ALL_BITS,
        reserved: 0,
        address: *address,
    };
    // SAFETY: both are a length of four bytes and the data behind it, without padding.
    let key = unsafe { &*core::ptr::from_ref(&key).cast::<Key<LocalPrefixData>>() };
    maps::LOCAL_PREFIXES.get(key).is_some()
}

/// What the kernel's routing table says of an arriving packet: a BPF_FIB_LKUP_RET_ code or an error.
#[inline(never)]
fn route(ctx: *mut xdp_md, key: &ConnectionKey) -> i64 {
    // SAFETY: the context is the program's own.
    let ifindex = u64::from(unsafe { (*ctx).ingress_ifindex });
    let is_v4 = key.local_address.is_mapped();
    let [source_port, more_source_port] = key.remote_port.to_be_bytes();
    let [port, more_port] = key.local_port.to_be_bytes();
    let first = u64::from_ne_bytes([
        if is_v4 { AF_INET } else { AF_INET6 },
        key.protocol.ip_number(),
        source_port,
        more_source_port,
        port,
        more_port,
        // No total length, that is, no check of the MTU.
        0,
        0,
    ]);
    // The index in the low half, and no type of service or flow label in the other.
    let second = if cfg!(target_endian = "little") {
        ifindex
    } else {
        ifindex << 32
    };
    let [[a, b], [c, d]] = if is_v4 {
        [
            [v4_word(&key.remote_address), 0],
            [v4_word(&key.local_address), 0],
        ]
    } else {
        [key.remote_address.words(), key.local_address.words()]
    };
    // `struct bpf_fib_lookup` in whole words: stores to the stack must be aligned, and the compiler
    // joins those of neighbouring fields wherever they stand.
    let mut params: [u64; size_of::<bpf_fib_lookup>() / 8] = [first, second, a, b, c, d, 0, 0];
    // SAFETY: the parameters are initialised and as long as the size says.
    unsafe {
        helpers::bpf_fib_lookup(
            ctx.cast(),
            params.as_mut_ptr().cast(),
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    }
}

/// An IPv4 address in wire order as the first half of a word in memory.
#[inline(always)]
fn v4_word(address: &Address) -> u64 {
    let [a, b, c, d] = address.v4();
    u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0])
}

/// The tuple of an arriving packet in wire order, as `struct bpf_sock_tuple` has it: the addresses
/// and then the ports of whichever version of IP it is. In whole words, as in [`route`].
pub(crate) struct SockTuple([u64; 5]);

impl SockTuple {
    /// The tuple, and how many bytes of it are used.
    #[inline(always)]
    pub(crate) fn new(key: &ConnectionKey) -> (Self, u32) {
        let [a, b] = key.remote_port.to_be_bytes();
        let [c, d] = key.local_port.to_be_bytes();
        let ports = u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]);
        if key.local_address.is_mapped() {
            let [a, b, c, d] = key.remote_address.v4();
            let [e, f, g, h] = key.local_address.v4();
            let addresses = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
            return (Self([addresses, ports, 0, 0, 0]), 12);
        }
        let [a, b] = key.remote_address.words();
        let [c, d] = key.local_address.words();
        (Self([a, b, c, d, ports]), 36)
    }

    #[inline(always)]
    pub(crate) fn as_mut_ptr(&mut self) -> *mut bpf_sock_tuple {
        self.0.as_mut_ptr().cast()
    }
}
