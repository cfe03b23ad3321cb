//! Finding the line of a four-tuple.

use super::{
    Memory, WINDOW,
    hash::{self, Numbers},
    line::{Cold, Head, Line, stamp, v4_pair},
};
use crate::{address::Address, connection::ConnectionKey, protocol::Protocol};

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

/// A pair of IPv6 addresses, each as two words in the order of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// This host's.
    pub local: [u64; 2],
    /// The other host's.
    pub remote: [u64; 2],
}

impl Addresses {
    #[inline(always)]
    const fn of(local: &Address, remote: &Address) -> Self {
        Self {
            local: local.words(),
            remote: remote.words(),
        }
    }
}

/// What the heads of IPv6 have that those of IPv4 have not.
const V6: u64 = Head::live(Protocol::Tcp, true) ^ Head::live(Protocol::Tcp, false);

/// What the heads of UDP have that those of TCP have not.
const UDP: u64 = Head::live(Protocol::Udp, false) ^ Head::live(Protocol::Tcp, false);

impl Probe {
    /// Where to look for a key in a table of so many homes.
    #[inline(always)]
    #[must_use]
    pub fn new<N: Numbers + ?Sized>(key: &ConnectionKey, numbers: &N, homes: u32) -> Self {
        let ports = u32::from(key.local_port) | u32::from(key.remote_port) << 16;
        let is_udp = matches!(key.protocol, Protocol::Udp);
        let is_v6 = !key.local_address.is_mapped();
        let (addresses, sum) = if is_v6 {
            let pair = Addresses::of(&key.local_address, &key.remote_address);
            let sum = hash::v6(numbers, pair.local, pair.remote);
            (sum, sum)
        } else {
            let pair = v4_pair(&key.local_address, &key.remote_address);
            (pair, hash::v4(numbers, pair))
        };
        Self {
            kind: Head::live(key.protocol, is_v6),
            addresses,
            ports,
            home: hash::home(hash::finish(numbers, sum, ports, is_udp), homes),
        }
    }

    /// Where to look for a connection over IPv4, of addresses as [`Line`] has them.
    #[inline(always)]
    pub(crate) fn v4<N: Numbers>(
        addresses: u64,
        ports: u32,
        protocol: Protocol,
        numbers: &N,
        homes: u32,
    ) -> Self {
        let sum = hash::v4(numbers, addresses);
        let is_udp = matches!(protocol, Protocol::Udp);
        Self {
            kind: Head::live(protocol, false),
            addresses,
            ports,
            home: hash::home(hash::finish(numbers, sum, ports, is_udp), homes),
        }
    }

    /// Where to look for a connection over IPv6.
    #[inline(always)]
    pub(crate) fn v6<N: Numbers>(
        pair: &Addresses,
        ports: u32,
        protocol: Protocol,
        numbers: &N,
        homes: u32,
    ) -> Self {
        let sum = hash::v6(numbers, pair.local, pair.remote);
        let is_udp = matches!(protocol, Protocol::Udp);
        Self {
            kind: Head::live(protocol, true),
            addresses: sum,
            ports,
            home: hash::home(hash::finish(numbers, sum, ports, is_udp), homes),
        }
    }

    /// [`tuple_hash`] of the four-tuple.
    #[inline(always)]
    pub(crate) fn hash<N: Numbers + ?Sized>(&self, numbers: &N) -> u64 {
        let sum = if self.is_v6() {
            self.addresses
        } else {
            hash::v4(numbers, self.addresses)
        };
        hash::finish(numbers, sum, self.ports, self.kind & UDP != 0)
    }

    #[inline(always)]
    pub(super) const fn is_v6(&self) -> bool {
        self.kind & V6 != 0
    }
}

/// 64 bits of keyed hash for a four-tuple, of which the high half is as good as random.
#[inline(always)]
pub fn tuple_hash<N: Numbers + ?Sized>(key: &ConnectionKey, numbers: &N) -> u64 {
    let ports = u32::from(key.local_port) | u32::from(key.remote_port) << 16;
    let is_udp = matches!(key.protocol, Protocol::Udp);
    let sum = if key.local_address.is_mapped() {
        hash::v4(numbers, v4_pair(&key.local_address, &key.remote_address))
    } else {
        let pair = Addresses::of(&key.local_address, &key.remote_address);
        hash::v6(numbers, pair.local, pair.remote)
    };
    hash::finish(numbers, sum, ports, is_udp)
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

/// As [`find`], of [`Probe::v4`].
#[inline(always)]
pub(crate) fn find_v4<M: Memory + ?Sized>(memory: &M, probe: &Probe) -> Option<Found<M::Line>> {
    let home = memory.line(probe.home)?;
    let hops = memory.load32::<{ Line::HOPS }>(home);
    reached(memory, probe.home, home, hops, |index, line| {
        matches(memory, probe, index, line)
    })
}

/// As [`find`], of [`Probe::v6`].
#[inline(always)]
pub(crate) fn find_v6<M: Memory + ?Sized>(
    memory: &M,
    probe: &Probe,
    pair: &Addresses,
) -> Option<Found<M::Line>> {
    let home = memory.line(probe.home)?;
    let hops = memory.load32::<{ Line::HOPS }>(home);
    reached(memory, probe.home, home, hops, |index, line| {
        let found = matches(memory, probe, index, line)?;
        is_pair(memory, pair, index, found.head).then_some(found)
    })
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
    reached(memory, probe.home, home, hops, |index, line| {
        let found = matches(memory, probe, index, line)?;
        if probe.is_v6() {
            let pair = Addresses::of(&key.local_address, &key.remote_address);
            return is_pair(memory, &pair, index, found.head).then_some(found);
        }
        Some(found)
    })
}

/// Looks at the lines that these hops of the home name, the home itself first.
#[inline(always)]
fn reached<M: Memory + ?Sized, F>(
    memory: &M,
    home_index: u32,
    home: M::Line,
    hops: u32,
    matches: F,
) -> Option<Found<M::Line>>
where
    F: Fn(u32, M::Line) -> Option<Found<M::Line>>,
{
    if hops & 1 != 0
        && let Some(found) = matches(home_index, home)
        && is_named(memory, home, 0)
    {
        return Some(found);
    }
    let others = hops & 0xffff & !1;
    if others == 0 {
        return None;
    }
    for hop in 1..WINDOW {
        if others >> hop & 1 != 0 {
            let index = home_index.wrapping_add(hop);
            if let Some(found) = matches(index, memory.line(index)?)
                && is_named(memory, home, hop)
            {
                return Some(found);
            }
        }
    }
    None
}

/// Whether the hops of a home name a line now. Its connection may have gone since they were looked
/// at, and who stands there now may not be entered yet, and may never be.
#[inline(always)]
fn is_named<M: Memory + ?Sized>(memory: &M, home: M::Line, hop: u32) -> bool {
    memory.load32::<{ Line::HOPS }>(home) >> hop & 1 != 0
}

/// The line at an index, if it is live and has what a probe looks for; of IPv6 addresses the hash.
#[inline(always)]
fn matches<M: Memory + ?Sized>(
    memory: &M,
    probe: &Probe,
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
    Some(Found { index, line, head })
}

/// Whether the cold line at an index has such addresses.
#[inline(always)]
fn is_pair<M: Memory + ?Sized>(memory: &M, pair: &Addresses, index: u32, head: Head) -> bool {
    let Some(cold) = memory.cold(index) else {
        return false;
    };
    memory.load64::<{ Cold::LOCAL }>(cold) == pair.local[0]
        && memory.load64::<{ Cold::LOCAL + 8 }>(cold) == pair.local[1]
        && memory.load64::<{ Cold::REMOTE }>(cold) == pair.remote[0]
        && memory.load64::<{ Cold::REMOTE + 8 }>(cold) == pair.remote[1]
        // After the addresses: whoever has begun to write others has changed it before.
        && memory.load32::<{ Cold::BEGUN }>(cold) == stamp(head.generation())
}
