//! IP addresses as demux stores them: 16 bytes in wire order, IPv4 as IPv4-mapped IPv6.

/// An address in wire order; see the module for the form of IPv4 addresses.
///
/// Aligned, so that it is compared and copied in two words.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C, align(8))]
pub struct Address {
    /// The bytes, in the order of the wire.
    pub bytes: [u8; 16],
}

/// The IPv4 wildcard, `::ffff:0.0.0.0`.
pub const ANY_V4: Address = Address::from_v4([0; 4]);

/// The IPv6 wildcard, `::`.
pub const ANY_V6: Address = Address { bytes: [0; 16] };

/// The high word of `::ffff:0:0/96` in memory order, and the half of the low word before the address.
const MAPPED_HIGH: u64 = 0;
const MAPPED_PREFIX: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// An IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        Self { bytes }
    }

    /// The IPv4-mapped form of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(v4: [u8; 4]) -> Self {
        let v4 = u32::from_ne_bytes(v4) as u64;
        let low = if cfg!(target_endian = "little") {
            (v4 << 32) | MAPPED_PREFIX as u64
        } else {
            ((MAPPED_PREFIX as u64) << 32) | v4
        };
        Self::from_words([MAPPED_HIGH, low])
    }

    /// The address as two words in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 2] {
        // SAFETY: both are sixteen bytes that may have any value.
        unsafe { core::mem::transmute(self.bytes) }
    }

    /// The address of two words in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        // SAFETY: both are sixteen bytes that may have any value.
        unsafe { core::mem::transmute(words) }
    }

    /// The IPv4 address within an IPv4-mapped one.
    #[inline(always)]
    #[must_use]
    pub const fn v4(&self) -> [u8; 4] {
        let low = self.words()[1];
        let v4 = if cfg!(target_endian = "little") {
            (low >> 32) as u32
        } else {
            low as u32
        };
        v4.to_ne_bytes()
    }

    /// Whether this is an IPv4-mapped address. On the wire there are none (RFC 4291).
    #[inline(always)]
    #[must_use]
    pub const fn is_mapped(&self) -> bool {
        let [high, low] = self.words();
        let prefix = if cfg!(target_endian = "little") {
            low as u32
        } else {
            (low >> 32) as u32
        };
        high == MAPPED_HIGH && prefix == MAPPED_PREFIX
    }

    /// The version of IP of a packet with this address.
    #[inline(always)]
    #[must_use]
    pub const fn family(&self) -> Family {
        if self.is_mapped() {
            Family::Ipv4
        } else {
            Family::Ipv6
        }
    }

    /// Whether this is a multicast group, so that only the kernel can deliver to every member.
    #[inline(always)]
    #[must_use]
    pub const fn is_multicast(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.v4()[0] & 0xf0 == 0xe0,
            Family::Ipv6 => self.words()[0].to_ne_bytes()[0] == 0xff,
        }
    }

    /// Whether this is the limited broadcast address 255.255.255.255.
    #[inline(always)]
    #[must_use]
    pub const fn is_limited_broadcast(&self, family: Family) -> bool {
        matches!(family, Family::Ipv4) && u32::from_ne_bytes(self.v4()) == u32::MAX
    }

    /// Whether this is 0.0.0.0/8 or `::`, which nobody can be reached at.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.v4()[0] == 0,
            Family::Ipv6 => {
                let [high, low] = self.words();
                high | low == 0
            }
        }
    }

    /// Whether this is 127.0.0.0/8, which is local on every host.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4_loopback(&self, family: Family) -> bool {
        matches!(family, Family::Ipv4) && self.v4()[0] == 127
    }
}

/// The version of the Internet Protocol.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u32)]
pub enum Family {
    /// IPv4.
    Ipv4 = 0,
    /// IPv6.
    Ipv6 = 1,
}
