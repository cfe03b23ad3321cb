//! The source port of connect(2) in the control groups of `demux exec`.
//!
//! The hook runs before the kernel looks for a port. It claims a four-tuple in the connection table
//! and binds the socket to the port; connect(2) then goes on with a socket that has one. Whatever
//! stands in the way, the socket stays as it was, and the kernel chooses the port as ever; only
//! where the allocator has no port left for the destination does the program get EADDRNOTAVAIL.

use aya_ebpf::{
    bindings::{bpf_sock_addr, sockaddr},
    btf_maps::lpm_trie::Key,
    helpers::{
        bpf_bind, bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id,
        bpf_get_netns_cookie, bpf_getsockopt, bpf_set_retval, bpf_setsockopt, bpf_sk_lookup_udp,
        bpf_sk_release, bpf_skc_lookup_tcp,
    },
};
use core::intrinsics::{AtomicOrdering::SeqCst, atomic_or};
use demux_common::{
    address::{ANY_V4, ANY_V6, Address, Family},
    connection::ConnectionKey,
    layout::LocalPrefix,
    ports::{Algorithm, Barred, ExecCgroup},
    protocol::Protocol,
};

use crate::{
    maps::{self, LocalPrefixData},
    standin::{Request, demux_allocate, demux_release},
    tables::{AF_INET, AF_INET6, CURRENT_NETNS, SockTuple, TCP_LISTEN},
};

/// What the hook returns: connect(2) goes on, or fails.
const GO_ON: i32 = 1;
const FAIL: i32 = 0;

/// How many ports are tried: each was free in demux's table, and held by a socket all the same.
const CANDIDATES: u32 = 16;

/// How many levels of control groups are searched for the one of `demux exec`, from the root on.
const LEVELS: i32 = 16;

const EADDRINUSE: i64 = 98;
const EADDRNOTAVAIL: i32 = 99;

const SOL_SOCKET: i32 = 1;
const SO_REUSEADDR: i32 = 2;

/// What a socket had before the hook changed it.
struct Before {
    /// The address it is bound to, without a port; the wildcard for none.
    address: Address,
    /// SO_REUSEADDR.
    reuse: u32,
}

/// Gives the socket of a connect(2) its source port.
#[inline(always)]
pub(crate) fn connect(ctx: *mut bpf_sock_addr, family: Family) -> i32 {
    let Some((key, before)) = question(ctx, family) else {
        return GO_ON;
    };
    let mut request = Request {
        key,
        algorithm: algorithm(),
    };
    // Where the source is not known, nobody can say whether the four-tuple is free; a port that
    // nobody else has is free whatever the source.
    let is_known = !is_wildcard(&key.local_address);
    if is_known {
        set_reuse(ctx, 1);
    }
    for _ in 0..CANDIDATES {
        request.key.local_port = 0;
        let port = demux_allocate(&request) as u16;
        if port == 0 {
            restore(ctx, family, &before);
            // SAFETY: the helper takes no addresses.
            unsafe { bpf_set_retval(-EADDRNOTAVAIL) };
            return FAIL;
        }
        request.key.local_port = port;
        // Connections on interfaces without demux have no rows. The claim stays for a while, and
        // keeps the next one from asking again.
        if is_known && is_taken(ctx, &request.key) {
            continue;
        }
        let result = bind(ctx, family, &before.address, port);
        if result == 0 {
            return GO_ON;
        }
        if result != -EADDRINUSE {
            demux_release(&request.key);
            break;
        }
        if is_known {
            hold(key.protocol, port);
            demux_release(&request.key);
        }
    }
    restore(ctx, family, &before);
    GO_ON
}

/// The connection to be, without its local port, and what the socket has; `None` where the socket
/// is to be left alone.
#[inline(always)]
fn question(ctx: *mut bpf_sock_addr, family: Family) -> Option<(ConnectionKey, Before)> {
    // SAFETY: the context is the program's own, and all reads of it are of whole fields; so for the
    // socket, which the verifier wants to be seen to be there. Volatile, because fields must not be
    // read together.
    unsafe {
        let protocol = match (&raw const (*ctx).protocol).read_volatile() {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            _ => return None,
        };
        let cookie = (&raw const maps::NETNS_COOKIE).read_volatile();
        if bpf_get_netns_cookie(ctx.cast()) != cookie {
            return None;
        }
        let socket = (*ctx).__bindgen_anon_1.sk;
        if socket.is_null() {
            return None;
        }
        let domain = match family {
            Family::Ipv4 => AF_INET,
            Family::Ipv6 => AF_INET6,
        };
        // A port of the program's own, or one from an earlier connect(2).
        if (&raw const (*socket).family).read_volatile() != u32::from(domain)
            || (&raw const (*socket).src_port).read_volatile() != 0
        {
            return None;
        }
        let remote_port = u16::from_be((&raw const (*ctx).user_port).read_volatile() as u16);
        let (remote_address, bound) = match family {
            Family::Ipv4 => (
                Address::from_v4((&raw const (*ctx).user_ip4).read_volatile().to_ne_bytes()),
                Address::from_v4((&raw const (*socket).src_ip4).read_volatile().to_ne_bytes()),
            ),
            Family::Ipv6 => (
                v6((&raw const (*ctx).user_ip6).cast()),
                v6((&raw const (*socket).src_ip6).cast()),
            ),
        };
        let version = if remote_address.is_mapped() {
            Family::Ipv4
        } else {
            Family::Ipv6
        };
        if remote_port == 0
            || remote_address.is_unspecified(version)
            || remote_address.is_multicast(version)
            || remote_address.is_limited_broadcast(version)
        {
            return None;
        }
        let mut local_address = bound;
        if is_wildcard(&bound) {
            local_address = match version {
                Family::Ipv4 => ANY_V4,
                Family::Ipv6 => ANY_V6,
            };
            // What is bound to a device has routes of its own.
            if (&raw const (*socket).bound_dev_if).read_volatile() == 0 {
                source(&remote_address, &mut local_address);
            }
        }
        Some((
            ConnectionKey {
                local_address,
                remote_address,
                local_port: 0,
                remote_port,
                protocol,
            },
            Before {
                address: bound,
                reuse: get_reuse(ctx),
            },
        ))
    }
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

/// The address from which this host sends to a destination; where it is not known, `answer` stays.
#[inline(never)]
fn source(destination: &Address, answer: &mut Address) {
    let key = LocalPrefix {
        prefix_len: LocalPrefix::ALL_BITS,
        reserved: 0,
        address: Address::from_words(destination.words()),
    };
    // SAFETY: both are a length of four bytes and the data behind it, without padding.
    let key = unsafe { &*core::ptr::from_ref(&key).cast::<Key<LocalPrefixData>>() };
    if let Some(found) = maps::SOURCES.get(key) {
        let words = Address::from_v6(*found).words();
        *answer = if words == ANY_V4.words() {
            // The host is its own destination.
            Address::from_words(destination.words())
        } else if words == ANY_V6.words() {
            return;
        } else {
            Address::from_words(words)
        };
    }
}

/// The algorithm of the control group of `demux exec` that the task is in, or below.
#[inline(never)]
fn algorithm() -> Algorithm {
    // SAFETY: the helper has no arguments.
    if let Some(group) = group(unsafe { bpf_get_current_cgroup_id() }) {
        return group.algorithm;
    }
    for level in 1..LEVELS {
        // SAFETY: the helper takes no addresses.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id == 0 {
            break;
        }
        if let Some(group) = group(id) {
            return group.algorithm;
        }
    }
    match maps::EPHEMERAL.get(0) {
        Some(settings) => settings.algorithm,
        None => Algorithm::DoubleHash,
    }
}

#[inline(always)]
fn group(id: u64) -> Option<&'static ExecCgroup> {
    // SAFETY: the value is copied at once.
    unsafe { maps::EXEC_CGROUPS.get(&id) }
}

/// Binds the socket to a port, or with port 0 to the address alone: 0, or minus the error.
#[inline(never)]
fn bind(ctx: *mut bpf_sock_addr, family: Family, address: &Address, port: u16) -> i64 {
    let [high, low] = port.to_be_bytes();
    let port = u16::from_ne_bytes([high, low]);
    let word = |family: u8, address: [u8; 4]| {
        let [a, b] = u16::from(family).to_ne_bytes();
        let [c, d] = port.to_ne_bytes();
        let [e, f, g, h] = address;
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    };
    // `struct sockaddr_in` or `sockaddr_in6`, in whole words.
    let (mut name, length) = match family {
        Family::Ipv4 => ([word(AF_INET, address.v4()), 0, 0, 0], 16),
        Family::Ipv6 => {
            let [first, second] = address.words();
            ([word(AF_INET6, [0; 4]), first, second, 0], 28)
        }
    };
    // SAFETY: the name is initialised and longer than told.
    unsafe { bpf_bind(ctx, name.as_mut_ptr().cast::<sockaddr>(), length) }
}

/// Undoes what the attempts have done to the socket.
#[inline(always)]
fn restore(ctx: *mut bpf_sock_addr, family: Family, before: &Before) {
    if before.reuse == 0 {
        set_reuse(ctx, 0);
    }
    if !is_wildcard(&before.address) {
        // An attempt that fails takes the address away.
        bind(ctx, family, &before.address, 0);
    }
}

#[inline(never)]
fn get_reuse(ctx: *mut bpf_sock_addr) -> u32 {
    let mut value = 0u64;
    // SAFETY: the value is as long as told.
    unsafe { bpf_getsockopt(ctx.cast(), SOL_SOCKET, SO_REUSEADDR, (&raw mut value).cast(), 4) };
    value as u32
}

/// Sets SO_REUSEADDR, where the kernel lets programs do so: without it ports are not shared.
#[inline(never)]
fn set_reuse(ctx: *mut bpf_sock_addr, value: u32) {
    let mut value = u64::from(value);
    // SAFETY: as above.
    unsafe { bpf_setsockopt(ctx.cast(), SOL_SOCKET, SO_REUSEADDR, (&raw mut value).cast(), 4) };
}

/// Notes that a socket outside holds a port, so that it is not tried again.
#[inline(always)]
fn hold(protocol: Protocol, port: u16) {
    let index = Barred::Held.offset(protocol) + u32::from(port >> 6);
    if let Some(word) = maps::BARRED_PORTS.get_ptr_mut(index) {
        // SAFETY: the word is the map's, and stays for as long as the program runs.
        unsafe { atomic_or::<u64, u64, { SeqCst }>(word, 1 << (port & 63)) };
    }
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
