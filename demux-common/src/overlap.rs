//! Which two sockets may not have the same port: the rules of bind(2).
//!
//! Two bound endpoints of one protocol and port conflict where their addresses overlap
//! ([`overlaps`]; `inet_rcv_saddr_equal` in `net/ipv4/inet_connection_sock.c`) and their flags do not
//! let them share ([`may_share`]; `inet_csk_bind_conflict`, and `udp_lib_lport_inuse` in `net/ipv4/udp.c`).
//! Nothing here allocates or branches on more than a few words, so the programs can use it too.

use crate::{
    address::{ANY_V4, ANY_V6, Address, Family},
    binding::Binding,
};

/// The address that something is bound to, and where.
///
/// Protocol and port are the caller's: only endpoints that have both in common are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Endpoint {
    /// The address; [`ANY_V4`] and [`ANY_V6`] are the wildcards. An IPv4-mapped address is IPv4's.
    pub address: Address,
    /// The device; 0 for every device.
    pub ifindex: u32,
    /// Whether [`ANY_V6`] leaves IPv4 alone; without a meaning for other addresses.
    pub v6_only: bool,
}

impl Endpoint {
    /// The endpoint of a binding to one address or to any; `None` for a prefix, which bind(2) does
    /// not have.
    #[inline(always)]
    #[must_use]
    pub const fn of(binding: &Binding) -> Option<Self> {
        match (binding.family, binding.prefix_len) {
            (_, 0) | (Family::Ipv4, 32) | (Family::Ipv6, 128) => {}
            _ => return None,
        }
        Some(Self {
            address: binding.address,
            ifindex: binding.ifindex,
            v6_only: binding.has(Binding::V6_ONLY),
        })
    }
}

/// Whether a packet could be meant for both endpoints, so that bind(2) asks for their flags.
///
/// Symmetric. Endpoints on two different devices never overlap.
#[inline(always)]
#[must_use]
pub const fn overlaps(a: &Endpoint, b: &Endpoint) -> bool {
    if a.ifindex != 0 && b.ifindex != 0 && a.ifindex != b.ifindex {
        return false;
    }
    covers(a, b) || covers(b, a)
}

/// Whether the address of `a` is that of `b`, or a wildcard that it falls under.
#[inline(always)]
const fn covers(a: &Endpoint, b: &Endpoint) -> bool {
    if is(&a.address, &b.address) {
        return true;
    }
    if is(&a.address, &ANY_V4) {
        return b.address.is_mapped();
    }
    is(&a.address, &ANY_V6) && !(a.v6_only && b.address.is_mapped())
}

#[inline(always)]
const fn is(a: &Address, b: &Address) -> bool {
    let ([a_high, a_low], [b_high, b_low]) = (a.words(), b.words());
    (a_high ^ b_high) | (a_low ^ b_low) == 0
}

/// Whether two overlapping endpoints may have one port all the same.
///
/// `first` and `second` are [`Binding::REUSE_ADDR`] and [`Binding::REUSE_PORT`] of who was first and
/// of who comes second; other bits do not matter. `first_listens` is whether the first is a TCP socket
/// that listens, and `same_user` whether both are of one user, or the first is in TIME-WAIT.
#[inline(always)]
#[must_use]
pub const fn may_share(first: u8, second: u8, first_listens: bool, same_user: bool) -> bool {
    let both = first & second;
    (both & Binding::REUSE_ADDR != 0 && !first_listens)
        || (both & Binding::REUSE_PORT != 0 && same_user)
}
