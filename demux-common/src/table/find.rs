//! Finding the line of a four-tuple.

use super::{
    Memory, WINDOW,
    hash::{self, Numbers},
    line::{Cold, Head, Line, Occupancy, stamp, v4_pair},
};
use crate::{connection::ConnectionKey, protocol::Protocol};

/// A four-tuple as the table looks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Probe {
    /// What a head must be, apart from what varies.
    pub(super) kind: u64,
    /// Both IPv4 addresses, or the hash of both IPv6 addresses.
    pub(super) addresses: u64,
    /// Both ports as [`Line`] has them.
    pub(super) ports: u32,
    /// The index of the home.
    pub(super) home: u32,
}

impl Probe {
    /// Where to look for a key in a table of so many homes.
    #[inline(always)]
    #[must_use]
    pub fn new<N: Numbers + ?Sized>(key: &ConnectionKey, secret: &N, homes: u32) -> Self {
        let ports = u32::from(key.local_port) | u32::from(key.remote_port) << 16;
        let is_udp = matches!(key.protocol, Protocol::Udp);
        let is_v6 = !key.local_address.is_mapped();
        let (addresses, sum) = if is_v6 {
            let sum = hash::v6(
                secret,
                key.local_address.words(),
                key.remote_address.words(),
            );
            (sum, sum)
        } else {
            let pair = v4_pair(&key.local_address, &key.remote_address);
            (pair, hash::v4(secret, pair))
        };
        Self {
            kind: Head::live(key.protocol, is_v6),
            addresses,
            ports,
            home: hash::home(hash::finish(secret, sum, ports, is_udp), homes),
        }
    }

    #[inline(always)]
    pub(super) const fn is_v6(&self) -> bool {
        self.kind & Head::live(Protocol::Tcp, true) & !(Occupancy::Live as u64) != 0
    }
}

/// The line of a connection, and its head when it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Found<L> {
    /// The index of the line.
    pub index: u32,
    /// The line.
    pub line: L,
    /// Its head. Once the generation of the line is another, the line is another connection's.
    pub head: Head,
}

/// The line of a four-tuple, expired or not.
#[inline(always)]
pub fn find<M: Memory + ?Sized>(
    memory: &M,
    probe: &Probe,
    key: &ConnectionKey,
) -> Option<Found<M::Line>> {
    let home = memory.line(probe.home)?;
    let hops = memory.load32::<{ Line::HOPS }>(home);
    find_among(memory, probe, key, home, hops)
}

/// As [`find`], among the lines that these hops of the home name.
#[inline(always)]
pub(super) fn find_among<M: Memory + ?Sized>(
    memory: &M,
    probe: &Probe,
    key: &ConnectionKey,
    home: M::Line,
    hops: u32,
) -> Option<Found<M::Line>> {
    if hops & 1 != 0
        && let Some(found) = matches(memory, probe, key, probe.home, home)
    {
        return Some(found);
    }
    let others = hops & 0xffff & !1;
    if others == 0 {
        return None;
    }
    for hop in 1..WINDOW {
        if others >> hop & 1 != 0 {
            let index = probe.home.wrapping_add(hop);
            let line = memory.line(index)?;
            if let Some(found) = matches(memory, probe, key, index, line) {
                return Some(found);
            }
        }
    }
    None
}

#[inline(always)]
fn matches<M: Memory + ?Sized>(
    memory: &M,
    probe: &Probe,
    key: &ConnectionKey,
    index: u32,
    line: M::Line,
) -> Option<Found<M::Line>> {
    // The head first: its generation vouches for what is read after it.
    let head = Head(memory.load64::<{ Line::HEAD }>(line));
    if head.0 & Head::KIND != probe.kind
        || memory.load64::<{ Line::ADDRESSES }>(line) != probe.addresses
        || memory.load32::<{ Line::PORTS }>(line) != probe.ports
    {
        return None;
    }
    if probe.is_v6() && !is_pair(memory, key, index, head) {
        return None;
    }
    Some(Found { index, line, head })
}

/// Whether the cold line at an index has the addresses of a key.
#[inline(always)]
fn is_pair<M: Memory + ?Sized>(memory: &M, key: &ConnectionKey, index: u32, head: Head) -> bool {
    let Some(cold) = memory.cold(index) else {
        return false;
    };
    let [a, b] = key.local_address.words();
    let [c, d] = key.remote_address.words();
    memory.load64::<{ Cold::LOCAL }>(cold) == a
        && memory.load64::<{ Cold::LOCAL + 8 }>(cold) == b
        && memory.load64::<{ Cold::REMOTE }>(cold) == c
        && memory.load64::<{ Cold::REMOTE + 8 }>(cold) == d
        && memory.load32::<{ Cold::GENERATION_AFTER }>(cold) == stamp(head.generation())
}
