//! The source port of connect(2) in the control groups of `demux exec`.
//!
//! The hook runs before the kernel looks for a port. It claims a four-tuple in the connection table
//! and binds the socket to the port; connect(2) then goes on with a socket that has one. Whatever
//! stands in the way, the socket stays as it was, and the kernel chooses the port as ever; only
//! where the allocator has no port left for the destination does the program get EADDRNOTAVAIL.
//!
//! Ports are shared among the sockets of such groups, which takes SO_REUSEADDR on each. That is safe
//! where the four-tuple is known before: the socket is bound to its source address, or the routing
//! table says which one it will be. Else SO_REUSEADDR is left alone, and the kernel then grants only
//! a port that no other socket has.

use aya_ebpf::{
    bindings::{bpf_sock_addr, sockaddr},
    btf_maps::lpm_trie::Key,
    helpers::{
        bpf_bind, bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id,
        bpf_get_netns_cookie, bpf_getsockopt, bpf_set_retval, bpf_setsockopt, bpf_sk_lookup_udp,
        bpf_sk_release, bpf_skc_lookup_tcp,
    },
};
use demux_common::{
    address::{ANY_V4, ANY_V6, Address, Family},
    connection::ConnectionKey,
    layout::{LocalPrefix, Source},
    parse::Parsed,
    ports::{Answer, Request},
    protocol::Protocol,
};

use crate::{
    maps::{self, LocalPrefixData},
    ports::{demux_allocate, demux_keep},
    tables::{AF_INET, AF_INET6, CURRENT_NETNS, SockTuple, TCP_LISTEN},
};

/// What the hook returns: connect(2) goes on, or fails.
const GO_ON: i32 = 1;
const FAIL: i32 = 0;

/// How many ports are tried: each was free in demux's table, and held by a socket all the same.
const CANDIDATES: u32 = 16;

/// How long a port that a socket holds is not tried again, in units of the table's clock: two seconds.
const HELD: u32 = 32;

/// How many levels of control groups are searched for the one of `demux exec`, from the root on.
const LEVELS: i32 = 16;

const EADDRINUSE: u64 = 98;
const EADDRNOTAVAIL: i32 = 99;

const SOL_SOCKET: i32 = 1;
const SO_REUSEADDR: i32 = 2;

/// What [`demux_offer`] returns where a connection has the four-tuple; no error number.
const TAKEN: u64 = 1 << 32;

/// What is known of a socket before the hook changes it, as bits of one word.
mod known {
    /// The socket is one to be given a port.
    pub(super) const ASKS: u64 = 1;
    /// It has an address of its own, that of the request.
    pub(super) const IS_BOUND: u64 = 2;
    /// The address from which it will send is known, and stands in the request.
    pub(super) const HAS_SOURCE: u64 = 4;
    /// It has SO_REUSEADDR.
    pub(super) const REUSES: u64 = 8;
    /// It is one of AF_INET6, wherever it is connected to.
    pub(super) const V6: u64 = 16;
}

/// Gives the socket of a connect(2) its source port.
#[inline(always)]
pub(crate) fn connect<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    let mut request = Request::of(Parsed::EMPTY.key);
    let known = question::<V6>(ctx, &mut request);
    if known & known::ASKS == 0 {
        return GO_ON;
    }
    if known & known::HAS_SOURCE != 0 {
        set_reuse(ctx, 1);
    }
    let mut answer = u64::MAX;
    let mut error = 0;
    // A port that a socket holds stays reserved for a moment, so that the search gets beyond it, and
    // the next one is spared the question. Connections by interfaces without demux have no rows.
    for _ in 0..CANDIDATES {
        request.key.local_port = 0;
        answer = demux_allocate(&request);
        if answer > u64::from(u16::MAX) || answer == 0 {
            break;
        }
        request.key.local_port = answer as u16;
        error = demux_offer(ctx, &request, known);
        if error == 0 {
            demux_keep(&request);
        }
        if error != TAKEN && error != EADDRINUSE {
            break;
        }
    }
    let is_answered = answer <= u64::from(u16::MAX) && answer != 0;
    if is_answered && error == 0 {
        return GO_ON;
    }
    demux_restore(ctx, &request, known);
    if matches!(Answer::unpack(answer), Answer::Exhausted) {
        // SAFETY: the helper takes no addresses.
        unsafe { bpf_set_retval(-EADDRNOTAVAIL) };
        return FAIL;
    }
    // The table is full, or the settings are gone, or everything is held: that is not the program's
    // concern.
    GO_ON
}

/// Fills in what is asked for, without the local port, and returns what is [`known`] of the socket;
/// 0 where it is to be left alone.
#[inline(never)]
fn question<const V6: bool>(ctx: *mut bpf_sock_addr, request: &mut Request) -> u64 {
    // SAFETY: the context is the program's own, and all reads of it are of whole fields; so for the
    // socket, which the verifier wants to be seen to be there. Volatile, because fields must not be
    // read together.
    unsafe {
        let protocol = match (&raw const (*ctx).protocol).read_volatile() {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            _ => return 0,
        };
        let cookie = (&raw const maps::NETNS_COOKIE).read_volatile();
        if bpf_get_netns_cookie(ctx.cast()) != cookie {
            return 0;
        }
        let socket = (*ctx).__bindgen_anon_1.sk;
        if socket.is_null() {
            return 0;
        }
        // A port of the program's own, or one from an earlier connect(2); or an IPv6 socket that is
        // connected by an IPv4 address as such, which bpf_bind() cannot do.
        if (&raw const (*socket).family).read_volatile() != u32::from(domain(V6))
            || (&raw const (*socket).src_port).read_volatile() != 0
        {
            return 0;
        }
        let remote_port = u16::from_be((&raw const (*ctx).user_port).read_volatile() as u16);
        let (remote_address, mut local_address) = if V6 {
            (
                v6((&raw const (*ctx).user_ip6).cast()),
                v6((&raw const (*socket).src_ip6).cast()),
            )
        } else {
            let remote = (&raw const (*ctx).user_ip4).read_volatile();
            let bound = (&raw const (*socket).src_ip4).read_volatile();
            (
                Address::from_v4(remote.to_ne_bytes()),
                Address::from_v4(bound.to_ne_bytes()),
            )
        };
        let family = if remote_address.is_mapped() {
            Family::Ipv4
        } else {
            Family::Ipv6
        };
        if remote_port == 0
            || remote_address.is_unspecified(family)
            || remote_address.is_multicast(family)
            || remote_address.is_limited_broadcast(family)
        {
            return 0;
        }
        let mut known = known::ASKS | if V6 { known::V6 } else { 0 };
        if !is_wildcard(&local_address) {
            known |= known::IS_BOUND | known::HAS_SOURCE;
        } else {
            local_address = match family {
                Family::Ipv4 => ANY_V4,
                Family::Ipv6 => ANY_V6,
            };
            // What is bound to a device has routes of its own.
            if (&raw const (*socket).bound_dev_if).read_volatile() == 0
                && source(&remote_address, &mut local_address)
            {
                known |= known::HAS_SOURCE;
            }
        }
        if get_reuse(ctx) != 0 {
            known |= known::REUSES;
        }
        request.key = ConnectionKey {
            local_address,
            remote_address,
            local_port: 0,
            remote_port,
            protocol,
        };
        request.algorithm = algorithm();
        request.lifetime = HELD;
        // bind(2) will tell, and whether the port may be shared.
        request.flags = Request::SKIP_HELD;
        known
    }
}

/// Binds the socket to the port of a request: 0, or the number of an error, or [`TAKEN`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_offer(
    ctx: *mut bpf_sock_addr,
    request: *const Request,
    known: u64,
) -> u64 {
    // SAFETY: the verifier holds callers to a readable request, or null.
    let Some(request) = (unsafe { request.as_ref() }) else {
        return TAKEN;
    };
    if known & known::HAS_SOURCE != 0 && is_taken(ctx, &request.key) {
        return TAKEN;
    }
    bind(ctx, &request.key, known, request.key.local_port)
}

/// Undoes what the attempts have done to the socket.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_restore(
    ctx: *mut bpf_sock_addr,
    request: *const Request,
    known: u64,
) -> u64 {
    // SAFETY: as above.
    let Some(request) = (unsafe { request.as_ref() }) else {
        return 0;
    };
    if known & known::HAS_SOURCE != 0 && known & known::REUSES == 0 {
        set_reuse(ctx, 0);
    }
    if known & known::IS_BOUND != 0 {
        // An attempt that fails takes the address away.
        return bind(ctx, &request.key, known, 0);
    }
    0
}

const fn domain(is_v6: bool) -> u8 {
    if is_v6 { AF_INET6 } else { AF_INET }
}

/// The IPv6 address in four words of a context or socket.
///
/// # Safety
///
/// `words` are fields that may be read.
#[inline(always)]
unsafe fn v6(words: *const u32) -> Address {
    // SAFETY: the caller's.
    let [a, b, c, d] = unsafe {
        [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ]
    };
    if cfg!(target_endian = "little") {
        Address::from_words([
            u64::from(a) | u64::from(b) << 32,
            u64::from(c) | u64::from(d) << 32,
        ])
    } else {
        Address::from_words([
            u64::from(a) << 32 | u64::from(b),
            u64::from(c) << 32 | u64::from(d),
        ])
    }
}

#[inline(always)]
fn is_wildcard(address: &Address) -> bool {
    let words = address.words();
    words == ANY_V6.words() || words == ANY_V4.words()
}

/// Finds the address from which this host sends to a destination; where that is not known, `answer`
/// stays as it is.
#[inline(never)]
fn source(destination: &Address, answer: &mut Address) -> bool {
    let key = LocalPrefix {
        prefix_len: LocalPrefix::ALL_BITS,
        reserved: 0,
        address: Address::from_words(destination.words()),
    };
    // SAFETY: both are a length of four bytes and the data behind it, without padding.
    let key = unsafe { &*core::ptr::from_ref(&key).cast::<Key<LocalPrefixData>>() };
    let Some(found) = maps::SOURCES.get(key) else {
        return false;
    };
    let found = Address::from_v6(*found);
    *answer = match Source::of(&found) {
        Source::Unknown => return false,
        Source::Destination => Address::from_words(destination.words()),
        Source::Address => found,
    };
    true
}

/// The number of the algorithm of the control group of `demux exec` that the task is in, or below.
#[inline(never)]
fn algorithm() -> u32 {
    // SAFETY: the helper has no arguments.
    if let Some(algorithm) = algorithm_of(unsafe { bpf_get_current_cgroup_id() }) {
        return algorithm;
    }
    for level in 1..LEVELS {
        // SAFETY: the helper takes no addresses.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id == 0 {
            break;
        }
        if let Some(algorithm) = algorithm_of(id) {
            return algorithm;
        }
    }
    Request::DEFAULT_ALGORITHM
}

#[inline(always)]
fn algorithm_of(group: u64) -> Option<u32> {
    // SAFETY: the value is read at once.
    unsafe { maps::EXEC_CGROUPS.get(&group) }.map(|group| group.algorithm as u32)
}

/// Binds the socket to a port, or with port 0 to its address alone: 0, or the number of an error.
#[inline(always)]
fn bind(ctx: *mut bpf_sock_addr, key: &ConnectionKey, known: u64, port: u16) -> u64 {
    let is_bound = known & known::IS_BOUND != 0;
    let is_v6 = known & known::V6 != 0;
    let [c, d] = port.to_be_bytes();
    let [a, b] = u16::from(domain(is_v6)).to_ne_bytes();
    let [e, f, g, h] = if is_bound && !is_v6 {
        key.local_address.v4()
    } else {
        [0; 4]
    };
    let [first, second] = if is_bound && is_v6 {
        key.local_address.words()
    } else {
        [0; 2]
    };
    // `struct sockaddr_in` or `sockaddr_in6`, in whole words.
    let mut name = [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        first,
        second,
        0,
    ];
    let length = if is_v6 { 28 } else { 16 };
    // SAFETY: the name is initialised and longer than told.
    let error = unsafe { bpf_bind(ctx, name.as_mut_ptr().cast::<sockaddr>(), length) };
    error.unsigned_abs()
}

#[inline(never)]
fn get_reuse(ctx: *mut bpf_sock_addr) -> u32 {
    let mut value = 0u64;
    // SAFETY: the value is as long as told.
    unsafe {
        bpf_getsockopt(
            ctx.cast(),
            SOL_SOCKET,
            SO_REUSEADDR,
            (&raw mut value).cast(),
            4,
        )
    };
    value as u32
}

/// Sets SO_REUSEADDR, where the kernel lets programs do so: without it ports are not shared.
#[inline(never)]
fn set_reuse(ctx: *mut bpf_sock_addr, value: u32) {
    let mut value = u64::from(value);
    // SAFETY: as above.
    unsafe {
        bpf_setsockopt(
            ctx.cast(),
            SOL_SOCKET,
            SO_REUSEADDR,
            (&raw mut value).cast(),
            4,
        )
    };
}

/// Whether a socket of the kernel has the four-tuple, or the port without SO_REUSEADDR's consent.
#[inline(always)]
fn is_taken(ctx: *mut bpf_sock_addr, key: &ConnectionKey) -> bool {
    // Not one function: the two lookups return different types of pointers, which the verifier lets
    // no instruction share.
    match key.protocol {
        Protocol::Tcp => has_tcp_socket(ctx, key),
        Protocol::Udp => has_udp_socket(ctx, key),
    }
}

/// Whether a TCP connection has the four-tuple, one in TIME-WAIT included. Of a listener bind(2)
/// will tell.
#[inline(never)]
fn has_tcp_socket(ctx: *mut bpf_sock_addr, key: &ConnectionKey) -> bool {
    let (mut tuple, size) = SockTuple::new(key);
    // SAFETY: the tuple is initialised, and longer than `size` says.
    let socket =
        unsafe { bpf_skc_lookup_tcp(ctx.cast(), tuple.as_mut_ptr(), size, CURRENT_NETNS, 0) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the helper returned a socket, which is released just below.
    let state = unsafe { (*socket).state };
    // SAFETY: the socket came from a lookup and is released once.
    unsafe { bpf_sk_release(socket.cast()) };
    state != TCP_LISTEN
}

/// Whether a UDP socket would take what the remote sends to the port.
#[inline(never)]
fn has_udp_socket(ctx: *mut bpf_sock_addr, key: &ConnectionKey) -> bool {
    let (mut tuple, size) = SockTuple::new(key);
    // SAFETY: the tuple is initialised, and longer than `size` says.
    let socket =
        unsafe { bpf_sk_lookup_udp(ctx.cast(), tuple.as_mut_ptr(), size, CURRENT_NETNS, 0) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the socket came from a lookup and is released once.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}
