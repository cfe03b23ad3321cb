//! Which binding a local endpoint belongs to: the only matcher, and the rules of precedence.
//!
//! 1. The most specific address wins: an exact address, then the longest prefix, then a wildcard.
//!    For an IPv4 packet the IPv4 wildcard comes before the dual-stack one.
//! 2. At equal address an exact port wins over a range, a narrower range over a wider one
//!    (of equal widths the one that starts lower), and any range over "any port".
//! 3. At equal address and ports a binding to the packet's device wins over one to every device.

use crate::{
    address::{ANY_V4, ANY_V6, Address, Family},
    binding::{AddressKey, MAX_PATTERNS, PortPattern, PortProfile, PrefixKey, Scope},
    protocol::Protocol,
    tables::BindingTables,
};

/// A local endpoint, and where its packet arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint {
    /// The local address.
    pub address: Address,
    /// Its version.
    pub family: Family,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The device on which the packet arrived.
    pub ifindex: u32,
    /// The local port.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

/// The index of the binding that claims the endpoint; 0 where there is none.
///
/// Most ports have no profile, and then this is one array read.
#[inline(always)]
pub fn find<T: BindingTables + ?Sized>(tables: &T, endpoint: &Endpoint) -> u16 {
    let Some(slot) = tables.port(endpoint.protocol, endpoint.port) else {
        return 0;
    };
    let any = match endpoint.family {
        Family::Ipv4 => slot.any_v4,
        Family::Ipv6 => slot.any_v6,
    };
    if slot.profile == 0 {
        return any;
    }
    tables.search(slot.profile, endpoint, any)
}

/// The search for ports that have more than one wildcard; `any` is the wildcard of the port.
#[inline(always)]
pub fn search<T: BindingTables + ?Sized>(
    tables: &T,
    profile: u16,
    endpoint: &Endpoint,
    any: u16,
) -> u16 {
    let Some(profile) = tables.profile(profile) else {
        return any;
    };
    let exact = by_address(tables, profile, endpoint);
    if exact != 0 {
        return exact;
    }
    let prefix = by_prefix(tables, profile, endpoint);
    if prefix != 0 {
        return prefix;
    }
    match endpoint.family {
        Family::Ipv4 => match by_wildcard(tables, profile, endpoint, Scope::Ipv4, any) {
            0 => by_wildcard(tables, profile, endpoint, Scope::DualStack, any),
            binding => binding,
        },
        Family::Ipv6 => by_wildcard(tables, profile, endpoint, Scope::Ipv6, any),
    }
}

/// The binding of exactly the endpoint's address with the narrowest ports.
#[inline(always)]
fn by_address<T: BindingTables + ?Sized>(
    tables: &T,
    profile: &PortProfile,
    endpoint: &Endpoint,
) -> u16 {
    let mut index = 0;
    while index < MAX_PATTERNS {
        let pattern = &profile.patterns[index];
        if pattern.lookups & (PortPattern::ADDRESS | PortPattern::ADDRESS_DEVICE) != 0 {
            let scope = endpoint.family.into();
            let mut key = address_key(pattern, endpoint, &endpoint.address, scope);
            if pattern.lookups & PortPattern::ADDRESS_DEVICE != 0
                && let Some(binding) = tables.address(&key)
            {
                return binding;
            }
            if pattern.lookups & PortPattern::ADDRESS != 0 {
                key.ifindex = 0;
                if let Some(binding) = tables.address(&key) {
                    return binding;
                }
            }
        }
        index += 1;
    }
    0
}

/// The longest prefix of any port pattern; of equal lengths the one with the narrowest ports.
#[inline(always)]
fn by_prefix<T: BindingTables + ?Sized>(
    tables: &T,
    profile: &PortProfile,
    endpoint: &Endpoint,
) -> u16 {
    let mut best = 0;
    // One more than the bits of the best prefix, so that a prefix of no bits counts too.
    let mut best_rank = 0;
    let mut index = 0;
    while index < MAX_PATTERNS {
        let pattern = &profile.patterns[index];
        if pattern.lookups & (PortPattern::PREFIX | PortPattern::PREFIX_DEVICE) != 0 {
            let mut key = PrefixKey {
                prefix_len: PrefixKey::ALL_BITS,
                ifindex: endpoint.ifindex,
                first_port: pattern.first_port,
                last_port: pattern.last_port,
                protocol: endpoint.protocol,
                family: endpoint.family,
                reserved: 0,
                address: endpoint.address,
            };
            if pattern.lookups & PortPattern::PREFIX_DEVICE != 0
                && let Some(found) = tables.prefix(&key)
                && u32::from(found.prefix_len) + 1 > best_rank
            {
                best = found.binding;
                best_rank = u32::from(found.prefix_len) + 1;
            }
            if pattern.lookups & PortPattern::PREFIX != 0 {
                key.ifindex = 0;
                if let Some(found) = tables.prefix(&key)
                    && u32::from(found.prefix_len) + 1 > best_rank
                {
                    best = found.binding;
                    best_rank = u32::from(found.prefix_len) + 1;
                }
            }
        }
        index += 1;
    }
    best
}

/// The wildcard of a scope with the narrowest ports; one bound to the device comes before `any`,
/// the one in the port's slot.
#[inline(always)]
fn by_wildcard<T: BindingTables + ?Sized>(
    tables: &T,
    profile: &PortProfile,
    endpoint: &Endpoint,
    scope: Scope,
    any: u16,
) -> u16 {
    let (address, in_slot, with_device) = match scope {
        Scope::Ipv4 => (ANY_V4, PortPattern::ANY_V4, PortPattern::ANY_V4_DEVICE),
        Scope::Ipv6 => (ANY_V6, PortPattern::ANY_V6, PortPattern::ANY_V6_DEVICE),
        Scope::DualStack => (ANY_V6, PortPattern::DUAL, PortPattern::DUAL_DEVICE),
    };
    let mut index = 0;
    while index < MAX_PATTERNS {
        let pattern = &profile.patterns[index];
        if pattern.lookups & with_device != 0 {
            let key = address_key(pattern, endpoint, &address, scope);
            if let Some(binding) = tables.address(&key) {
                return binding;
            }
        }
        if pattern.lookups & in_slot != 0 {
            return any;
        }
        index += 1;
    }
    0
}

#[inline(always)]
fn address_key(
    pattern: &PortPattern,
    endpoint: &Endpoint,
    address: &Address,
    scope: Scope,
) -> AddressKey {
    AddressKey {
        address: *address,
        ifindex: endpoint.ifindex,
        first_port: pattern.first_port,
        last_port: pattern.last_port,
        protocol: endpoint.protocol,
        scope,
    }
}
