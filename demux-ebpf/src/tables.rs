//! The maps as [`demux_common::tables::Tables`], and the questions to the kernel.

use core::ptr::NonNull;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NOT_FWDED, bpf_fib_lookup, bpf_sock_tuple,
        xdp_md,
    },
    btf_maps::lpm_trie::Key,
    helpers::{
        self, bpf_ktime_get_coarse_ns, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp,
    },
    programs::XdpContext,
};
use demux_common::{
    address::Address,
    binding::{AddressKey, Binding, PortProfile, PortSlot, PrefixKey, PrefixMatch},
    config::{Config, Interface},
    connection::{Connection, ConnectionKey, State},
    counters::InterfaceCounters,
    decide::{self, PackedDecision},
    layout::LocalPrefix,
    matcher::{self, Endpoint},
    parse::Parsed,
    protocol::Protocol,
    reason::{Count, Reason, Verdict},
    tables::{BindingTables, ConnectionTable, KernelSocket, Tables, Update, View},
};

use crate::maps::{self, LocalPrefixData, PrefixData};

/// The maps, and the context that helpers want to see. Where they are not `LIVE` every store is
/// left out: that is what `explain` runs on.
pub(crate) struct Maps<'a, const LIVE: bool> {
    ctx: &'a XdpContext,
}

impl<'a, const LIVE: bool> Maps<'a, LIVE> {
    /// The tables for a packet.
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
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

impl<const LIVE: bool> BindingTables for Maps<'_, LIVE> {
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

impl<const LIVE: bool> ConnectionTable for Maps<'_, LIVE> {
    type Row = NonNull<Connection>;

    #[inline(always)]
    fn find(&self, key: &ConnectionKey) -> Option<Self::Row> {
        maps::CONNECTIONS.get_ptr_mut(key).and_then(NonNull::new)
    }

    #[inline(always)]
    fn view(&self, row: Self::Row) -> View {
        // SAFETY: rows stay readable until the program ends; one that was reused meanwhile
        // is still some row.
        let connection = unsafe { row.as_ref() };
        // SAFETY: as above. Read as a number, because the compiler would take the range of an enum
        // for granted and leave out the check that the verifier wants to see.
        let state = unsafe { (&raw const connection.state).cast::<u8>().read_volatile() };
        View {
            state: State::from_number(state),
            remote_next: connection.remote_next,
            last_seen: connection.last_seen,
            epoch: connection.epoch,
            binding: connection.binding,
        }
    }

    #[inline(always)]
    fn update(&self, mut row: Self::Row, update: &Update) {
        if !LIVE {
            return;
        }
        // SAFETY: as for `view`. Packets of one connection that meet on two CPUs may each miss
        // the other's count; the fields themselves are written whole.
        update.apply(unsafe { row.as_mut() });
    }

    #[inline(always)]
    fn insert(&self, key: &ConnectionKey, connection: &Connection) -> bool {
        !LIVE || maps::CONNECTIONS.insert(key, connection, 0).is_ok()
    }

    #[inline(always)]
    fn remove(&self, key: &ConnectionKey) {
        if LIVE {
            // A row that is gone already is as good.
            let _ = maps::CONNECTIONS.remove(key);
        }
    }
}

/// BPF_F_CURRENT_NETNS: the namespace of the device.
const CURRENT_NETNS: u64 = u64::MAX;

/// enum bpf_fib_lookup: AF_INET and AF_INET6.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// States of a socket (include/net/tcp_states.h).
const TCP_TIME_WAIT: u32 = 6;
const TCP_LISTEN: u32 = 10;
const TCP_NEW_SYN_RECV: u32 = 12;
const TCP_SYN_RECV: u32 = 3;
/// Not a state of any socket.
const NO_SOCKET: u32 = 0;

impl<const LIVE: bool> Tables for Maps<'_, LIVE> {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        maps::CONFIG.get(0)
    }

    #[inline(always)]
    fn interface(&self, slot: u32) -> Option<&Interface> {
        maps::INTERFACES.get(slot)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper has no arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

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
    fn is_local(&self, address: &Address, prefixes: bool) -> bool {
        // SAFETY: only the presence of a value is asked.
        if unsafe { maps::LOCALS.get(address) }.is_some() {
            return true;
        }
        prefixes && is_in_local_prefix(address)
    }

    #[inline(always)]
    fn may_forward(&self, key: &ConnectionKey) -> bool {
        let answer = route(self.ctx.as_ptr().cast(), key);
        // Both mean that the packet goes no further than this host; anything else may be a route.
        answer != i64::from(BPF_FIB_LKUP_RET_NOT_FWDED)
            && answer != i64::from(BPF_FIB_LKUP_RET_FWD_DISABLED)
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
    fn judge(&self, parsed: &Parsed, slot: u32) -> PackedDecision {
        let ctx = self.ctx.as_ptr().cast();
        PackedDecision(if LIVE {
            demux_judge(ctx, parsed, slot)
        } else {
            demux_judge_dry(ctx, parsed, slot)
        })
    }
}

/// [`decide::judge`] as a global function: the verifier looks at it once, and not again for each of
/// the ways through the parser.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_judge(ctx: *mut xdp_md, parsed: *const Parsed, slot: u32) -> u64 {
    judge::<true>(ctx, parsed, slot)
}

/// [`demux_judge`] with every store left out.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_judge_dry(
    ctx: *mut xdp_md,
    parsed: *const Parsed,
    slot: u32,
) -> u64 {
    judge::<false>(ctx, parsed, slot)
}

#[inline(always)]
fn judge<const LIVE: bool>(ctx: *mut xdp_md, parsed: *const Parsed, slot: u32) -> u64 {
    // SAFETY: the verifier holds callers to a readable packet, or null.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else {
        return 0;
    };
    let ctx = XdpContext::new(ctx);
    decide::judge(&Maps::<LIVE>::new(&ctx), parsed, slot).0
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
struct SockTuple([u64; 5]);

impl SockTuple {
    /// The tuple, and how many bytes of it are used.
    #[inline(always)]
    fn new(key: &ConnectionKey) -> (Self, u32) {
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
    fn as_mut_ptr(&mut self) -> *mut bpf_sock_tuple {
        self.0.as_mut_ptr().cast()
    }
}
