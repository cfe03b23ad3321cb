//! Bindings, and the tables that a packet is matched against.
//!
//! A [`Binding`] is what a user asked for. Matching does not read bindings one by one: user space
//! compiles them into four tables, and [`crate::matcher`] reads those.
//!
//! - [`PortSlot`], one for each protocol and port: the wildcard binding of each IP version, which is
//!   the whole answer for most ports, in one array read of one word.
//! - [`PortProfile`]: for ports that have more, the port patterns that cover the port and for which
//!   of them an address, a prefix or a device is worth looking up.
//! - [`AddressKey`] to binding: exact addresses, and wildcards bound to a device.
//! - [`PrefixKey`] to [`PrefixMatch`]: prefixes, in a longest-prefix-match trie.

use crate::{
    address::{Address, Family},
    protocol::Protocol,
};

/// Where a binding sends its packets.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u8)]
pub enum Target {
    /// Up the kernel's stack.
    Stack = 0,
    /// Nowhere.
    Drop = 1,
    /// Back to the sender, as a refusal.
    Reject = 2,
    /// Up the kernel's stack, on one of the processors of the binding's
    /// [list](crate::steering::CpuList).
    Cpu = 3,
    /// To the sockets of the binding's [set](crate::steering::XskSet).
    Xsk = 4,
}

impl Target {
    /// The name that users write; of targets that need more, what it begins with.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stack => "stack",
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Cpu => "cpu",
            Self::Xsk => "xsk",
        }
    }

    /// Whether packets are handed on by XDP_REDIRECT.
    #[inline(always)]
    #[must_use]
    pub const fn is_steered(self) -> bool {
        matches!(self, Self::Cpu | Self::Xsk)
    }

    /// Whether the kernel's stack answers for the endpoints, on whichever processor.
    #[inline(always)]
    #[must_use]
    pub const fn is_kernel(self) -> bool {
        matches!(self, Self::Stack | Self::Cpu)
    }
}

/// Bytes of a binding's name, with the zero at its end.
pub const NAME_LEN: usize = 32;

/// A pattern for local endpoints, and what becomes of the packets that match it.
///
/// An entry whose `created` is 0 is free; entry 0 is never used.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Binding {
    /// The address, or the network of a prefix; all bits behind the prefix are 0.
    pub address: Address,
    /// The name, ASCII, padded with zeros.
    pub name: [u8; NAME_LEN],
    /// The configuration epoch in which it was made; rows of an older epoch are not its own.
    pub created: u32,
    /// The index of the device it is bound to; 0 for every device.
    pub ifindex: u32,
    /// The first port.
    pub first_port: u16,
    /// The last port.
    pub last_port: u16,
    /// The version of `address`.
    pub family: Family,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Bits of the prefix: 0 to 32 for IPv4, 0 to 128 for IPv6.
    pub prefix_len: u8,
    /// Where packets go.
    pub target: Target,
    /// [`Binding::REUSE_ADDR`] and its siblings.
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
    /// The index of the next binding of its [group](crate::group), in a ring; 0 where it is alone.
    pub next_member: u16,
    /// The index of the [set of sockets](crate::steering::XskSet) of [`Target::Xsk`]; else 0.
    pub set: u16,
    /// The epoch in which the last steered binding that had this entry was ended; 0 if there was
    /// none. Rows of this entry that are older were that one's, and end with it. Outlives the binding.
    pub steered_until: u32,
}

const _: () = assert!(size_of::<Binding>() == 80);

impl Binding {
    /// An entry that nobody has.
    pub const FREE: Self = Self {
        address: crate::address::ANY_V6,
        name: [0; NAME_LEN],
        created: 0,
        ifindex: 0,
        first_port: 0,
        last_port: 0,
        family: Family::Ipv4,
        protocol: Protocol::Tcp,
        prefix_len: 0,
        target: Target::Stack,
        flags: 0,
        reserved: 0,
        next_member: 0,
        set: 0,
        steered_until: 0,
    };

    /// In `flags`: as SO_REUSEADDR.
    pub const REUSE_ADDR: u8 = 1;
    /// In `flags`: as SO_REUSEPORT.
    pub const REUSE_PORT: u8 = 2;
    /// In `flags`: an IPv6 wildcard that does not match IPv4 packets.
    pub const V6_ONLY: u8 = 4;
    /// In `flags`: its packets make no rows.
    pub const UNTRACKED: u8 = 8;
    /// In `flags`: what a steered target cannot take goes up the stack; else it is dropped.
    pub const FALLBACK_STACK: u8 = 16;

    /// Whether the flag is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether a row of this entry's index that was last looked at in `epoch` is this binding's own,
    /// and not that of one that had the entry before.
    #[inline(always)]
    #[must_use]
    pub const fn is_of(&self, epoch: u32) -> bool {
        self.created != 0 && is_since(epoch, self.created)
    }

    /// Whether such a row was that of a steered binding that has ended since.
    #[inline(always)]
    #[must_use]
    pub const fn was_steered(&self, epoch: u32) -> bool {
        self.steered_until != 0 && !is_since(epoch, self.steered_until)
    }
}

/// Whether an epoch is not before another, of two that are not half of all epochs apart.
#[inline(always)]
const fn is_since(epoch: u32, other: u32) -> bool {
    epoch.wrapping_sub(other) as i32 >= 0
}

/// The wildcard bindings of one port, and where to look for more.
///
/// One aligned word, so that it is always read and written whole.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C, align(8))]
pub struct PortSlot {
    /// The binding of an IPv4 packet that nothing more specific claims; 0 for none.
    pub any_v4: u16,
    /// The same for an IPv6 packet.
    pub any_v6: u16,
    /// Index of the port's [`PortProfile`]; 0 where the two above are the whole answer.
    pub profile: u16,
    /// Zero.
    pub reserved: u16,
}

impl PortSlot {
    /// How many slots there are: one for each port of each protocol.
    pub const COUNT: usize = 2 << 16;

    /// The index of a port's slot.
    #[inline(always)]
    #[must_use]
    pub const fn index(protocol: Protocol, port: u16) -> u32 {
        ((protocol as u32) << 16) | port as u32
    }
}

/// How many port patterns may cover one port.
pub const MAX_PATTERNS: usize = 8;

/// The port patterns that cover a port, the narrowest first.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct PortProfile {
    /// The patterns; those behind the last have no lookups.
    pub patterns: [PortPattern; MAX_PATTERNS],
}

/// A port, a range, or every port, and what is bound with it.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct PortPattern {
    /// The first port.
    pub first_port: u16,
    /// The last port.
    pub last_port: u16,
    /// Which kinds of bindings there are with this pattern: [`PortPattern::ADDRESS`] and its siblings.
    pub lookups: u32,
}

impl PortPattern {
    /// In `lookups`: exact addresses.
    pub const ADDRESS: u32 = 1;
    /// In `lookups`: exact addresses bound to a device.
    pub const ADDRESS_DEVICE: u32 = 1 << 1;
    /// In `lookups`: prefixes.
    pub const PREFIX: u32 = 1 << 2;
    /// In `lookups`: prefixes bound to a device.
    pub const PREFIX_DEVICE: u32 = 1 << 3;
    /// In `lookups`: the IPv4 wildcard; the binding stands in the port's slot.
    pub const ANY_V4: u32 = 1 << 4;
    /// In `lookups`: the IPv4 wildcard bound to a device.
    pub const ANY_V4_DEVICE: u32 = 1 << 5;
    /// In `lookups`: the IPv6 wildcard; the binding stands in the port's slot.
    pub const ANY_V6: u32 = 1 << 6;
    /// In `lookups`: the IPv6 wildcard bound to a device.
    pub const ANY_V6_DEVICE: u32 = 1 << 7;
    /// In `lookups`: the dual-stack wildcard, seen by an IPv4 packet; the binding stands in the port's slot.
    pub const DUAL: u32 = 1 << 8;
    /// In `lookups`: the dual-stack wildcard bound to a device, seen by an IPv4 packet.
    pub const DUAL_DEVICE: u32 = 1 << 9;
}

/// Which packets an [`AddressKey`] is for.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u32)]
pub enum Scope {
    /// IPv4 packets.
    Ipv4 = 0,
    /// IPv6 packets.
    Ipv6 = 1,
    /// IPv4 packets that fall to the dual-stack wildcard.
    DualStack = 2,
}

impl From<Family> for Scope {
    #[inline(always)]
    fn from(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::Ipv4,
            Family::Ipv6 => Self::Ipv6,
        }
    }
}

/// Names one binding: an exact address, or a wildcard with a device.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct AddressKey {
    /// The address; [`crate::address::ANY_V4`] and [`crate::address::ANY_V6`] are the wildcards.
    pub address: Address,
    /// The device; 0 for every device.
    pub ifindex: u32,
    /// The first port of the pattern.
    pub first_port: u16,
    /// The last port of the pattern.
    pub last_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Which packets look for it.
    pub scope: Scope,
}

const _: () = assert!(size_of::<AddressKey>() == 32);

/// A key of the trie of prefixes.
///
/// The trie compares what stands behind `prefix_len`, from its first bit on.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct PrefixKey {
    /// Bits that must match: [`PrefixKey::FIXED_BITS`] and those of the prefix.
    pub prefix_len: u32,
    /// The device; 0 for every device.
    pub ifindex: u32,
    /// The first port of the pattern.
    pub first_port: u16,
    /// The last port of the pattern.
    pub last_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The version of `address`.
    pub family: Family,
    /// Zero.
    pub reserved: u32,
    /// The network.
    pub address: Address,
}

const _: () = assert!(size_of::<PrefixKey>() == 40);

impl PrefixKey {
    /// Bits before the address, which always match whole.
    pub const FIXED_BITS: u32 = 160;
    /// Bits of a key that is looked up.
    pub const ALL_BITS: u32 = Self::FIXED_BITS + 128;

    /// Bits of [`Address`] before the first bit of the prefix itself: an IPv4 address stands
    /// behind its mapping.
    #[must_use]
    pub const fn address_offset(family: Family) -> u32 {
        match family {
            Family::Ipv4 => 96,
            Family::Ipv6 => 0,
        }
    }
}

/// What the trie answers.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct PrefixMatch {
    /// Index of the binding.
    pub binding: u16,
    /// Bits of its prefix, to compare with those of other port patterns.
    pub prefix_len: u16,
}
