//! Keeping bind(2) away from endpoints that demux owns.
//!
//! [`asks`] judges a bind to a port that the process names, before anything is done for it, and
//! [`got`] one to port 0, after the kernel has chosen. Neither sees a port that the kernel chooses
//! without a bind, for connect(2), sendto(2) or listen(2).

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::{bpf_get_netns_cookie, bpf_set_retval},
};
use demux_common::{
    address::{ANY_V4, ANY_V6, Address},
    overlap::Endpoint,
    owned::{Owned, OwnedKey, OwnedPorts, is_owned},
    protocol::Protocol,
};

use crate::maps;

/// Let the bind go on.
const GO_ON: i32 = 1;

/// Refuse it.
const REFUSE: i32 = 0;

/// `EADDRINUSE` of Linux, on all architectures with BPF in little-endian order.
const ADDRESS_IN_USE: i32 = 98;

/// A device that is none: what is owned on one device only does not overlap it. A program that runs
/// after the bind may not see the device of the socket, and that is no reason to refuse every socket.
const SOME_DEVICE: u32 = u32::MAX;

const IPPROTO_TCP: u32 = Protocol::Tcp.ip_number() as u32;
const IPPROTO_UDP: u32 = Protocol::Udp.ip_number() as u32;

struct Map;

impl OwnedPorts for Map {
    #[inline(always)]
    fn get(&self, key: &OwnedKey) -> Option<Owned> {
        // SAFETY: the value is copied at once.
        unsafe { maps::OWNED_PORTS.get(key) }.copied()
    }
}

/// Judges a bind by the address that the process has given.
#[inline(always)]
pub(crate) fn asks(
    ctx: &impl EbpfContext,
    address: impl FnOnce(*const bpf_sock_addr) -> Address,
) -> i32 {
    let asked = ctx.as_ptr().cast::<bpf_sock_addr>().cast_const();
    // SAFETY: the context is the program's own, and so in each of these.
    let Some(protocol) = protocol(unsafe { (*asked).protocol }) else {
        return GO_ON;
    };
    // SAFETY: as above.
    let port = u16::from_be(unsafe { (*asked).user_port } as u16);
    if port == 0 || !is_here(ctx) {
        return GO_ON;
    }
    // SAFETY: as above; of a bind the kernel always gives the socket.
    let ifindex = unsafe { (*(*asked).__bindgen_anon_1.sk).bound_dev_if };
    let endpoint = Endpoint {
        address: address(asked),
        ifindex,
        // Programs cannot see whether the socket is for IPv6 only.
        v6_only: false,
    };
    judge(is_owned(&Map, protocol, port, &endpoint))
}

/// Judges a bind by the port that the socket now has.
#[inline(always)]
pub(crate) fn got(ctx: &impl EbpfContext, address: impl FnOnce(*const bpf_sock) -> Address) -> i32 {
    let socket = ctx.as_ptr().cast::<bpf_sock>().cast_const();
    // SAFETY: the context is the program's own, and so in each of these.
    let Some(protocol) = protocol(unsafe { (*socket).protocol }) else {
        return GO_ON;
    };
    let address = address(socket);
    // Of a TCP socket that is refused here, the kernel forgets the address before it frees the port,
    // whose hash then names another lock than that which guards it (__inet_bind and __inet_put_port,
    // since Linux 6.1). Only wildcards hash to the same.
    if protocol == Protocol::Tcp && address != ANY_V4 && address != ANY_V6 {
        return GO_ON;
    }
    if !is_here(ctx) {
        return GO_ON;
    }
    // SAFETY: as above.
    let port = unsafe { (*socket).src_port } as u16;
    let endpoint = Endpoint {
        address,
        ifindex: SOME_DEVICE,
        v6_only: false,
    };
    judge(is_owned(&Map, protocol, port, &endpoint))
}

/// The IPv4 address of a bind.
#[inline(always)]
pub(crate) fn asked_v4(asked: *const bpf_sock_addr) -> Address {
    // SAFETY: callers hand on their context.
    Address::from_v4(unsafe { (*asked).user_ip4 }.to_ne_bytes())
}

/// The IPv6 address of a bind, which may be an IPv4-mapped one.
#[inline(always)]
pub(crate) fn asked_v6(asked: *const bpf_sock_addr) -> Address {
    // SAFETY: as above; the words lie within the context.
    words(|at| unsafe { (&raw const (*asked).user_ip6[at]).read_volatile() })
}

/// The IPv4 address of a socket.
#[inline(always)]
pub(crate) fn got_v4(socket: *const bpf_sock) -> Address {
    // SAFETY: as above.
    Address::from_v4(unsafe { (*socket).src_ip4 }.to_ne_bytes())
}

/// The IPv6 address of a socket, which may be an IPv4-mapped one.
#[inline(always)]
pub(crate) fn got_v6(socket: *const bpf_sock) -> Address {
    // SAFETY: as above; the words lie within the context.
    words(|at| unsafe { (&raw const (*socket).src_ip6[at]).read_volatile() })
}

/// An address of four words in memory order. The kernel lets each be read alone only.
#[inline(always)]
fn words(word: impl Fn(usize) -> u32) -> Address {
    let pair = |at| u64::from(word(at)) | u64::from(word(at + 1)) << 32;
    Address::from_words([pair(0), pair(2)])
}

/// The protocol, if it is one whose ports demux knows.
#[inline(always)]
fn protocol(number: u32) -> Option<Protocol> {
    match number {
        IPPROTO_TCP => Some(Protocol::Tcp),
        IPPROTO_UDP => Some(Protocol::Udp),
        _ => None,
    }
}

/// Whether the socket is of the instance's network namespace. The program runs for those of all.
#[inline(always)]
fn is_here(ctx: &impl EbpfContext) -> bool {
    // SAFETY: constant once the program is loaded; volatile, lest the compiler takes it to be 0.
    let cookie = unsafe { (&raw const maps::NETNS_COOKIE).read_volatile() };
    // SAFETY: the context is the program's own.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) == cookie }
}

#[inline(always)]
fn judge(is_owned: bool) -> i32 {
    if is_owned {
        // SAFETY: the helper takes no pointers.
        unsafe { bpf_set_retval(-ADDRESS_IN_USE) };
        return REFUSE;
    }
    GO_ON
}
