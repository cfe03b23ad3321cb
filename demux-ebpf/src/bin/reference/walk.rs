//! The order in which keys come: a walk over indexes, and the four-tuple of an index.
//!
//! Compiled into the programs and into the benchmark that fills their tables, so that both mean
//! the same keys.

/// Where a walk is, how it goes on, and what it has met: the only entry of the map `WALK`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Walk {
    /// The index of the last packet.
    pub(crate) index: u32,
    /// The next index is `index * multiplier + increment`, within `mask`.
    pub(crate) multiplier: u32,
    /// See [`Walk::multiplier`].
    pub(crate) increment: u32,
    /// One less than the number of indexes, which is a power of two.
    pub(crate) mask: u32,
    /// Lookups that found nothing.
    pub(crate) misses: u32,
    /// Made of all values found, so that no compiler leaves a lookup out.
    pub(crate) found: u32,
}

impl Walk {
    /// The index that follows another.
    #[inline(always)]
    pub(crate) const fn after(&self, index: u32) -> u32 {
        index
            .wrapping_mul(self.multiplier)
            .wrapping_add(self.increment)
            & self.mask
    }
}

/// Who sends the packets of an index: 2^32 different pairs, none of them of this host.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    /// An address of 100.64.0.0/10.
    pub(crate) address: [u8; 4],
    /// A port from 1024 on.
    pub(crate) port: u16,
}

impl Source {
    /// The source of an index.
    #[inline(always)]
    pub(crate) const fn of(index: u32) -> Self {
        Self {
            address: (0x6440_0000 | (index >> 10)).to_be_bytes(),
            port: 1024 + (index & 1023) as u16,
        }
    }
}

/// The sequence number of all segments of an index: what a source has sent before stays the last
/// that it sent.
#[inline(always)]
pub(crate) const fn sequence(index: u32) -> u32 {
    index.rotate_left(16)
}

/// Where all packets of a walk go.
pub(crate) const LOCAL_ADDRESS: [u8; 4] = [10, 0, 0, 2];

/// See [`LOCAL_ADDRESS`].
pub(crate) const LOCAL_PORT: u16 = 80;

/// The four-tuple of an index in the 16 bytes that tables of the benchmark are keyed with.
#[inline(always)]
pub(crate) const fn key(index: u32) -> [u32; 4] {
    let source = Source::of(index);
    [
        u32::from_ne_bytes(source.address),
        u32::from_ne_bytes(LOCAL_ADDRESS),
        (source.port as u32) << 16 | LOCAL_PORT as u32,
        // TCP.
        6,
    ]
}
