//! From bindings to the tables that the datapath matches against.
//!
//! The ports of each protocol fall into intervals within which the same port patterns apply, so that
//! the work is done once for each interval and the result is written to each of its ports.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use demux_common::{
    address::Family,
    binding::{
        AddressKey, Binding, MAX_PATTERNS, PortPattern, PortProfile, PortSlot, PrefixKey,
        PrefixMatch, Scope,
    },
    protocol::Protocol,
};

use super::Pattern;
use crate::{Error, Result, bindings::Ports};

/// The tables, as they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// By [`PortSlot::index`]; profiles are numbered as in `profiles`, from 1 on.
    pub ports: Vec<PortSlot>,
    /// The profiles; entry 0 is not used.
    pub profiles: Vec<PortProfile>,
    /// Exact addresses, and wildcards with a device.
    pub addresses: HashMap<AddressKey, u16>,
    /// Prefixes.
    pub prefixes: HashMap<PrefixKey, PrefixMatch>,
}

/// All wildcards without a device that have the same port pattern, and which lookups it needs besides.
#[derive(Clone, Copy, Debug, Default)]
struct Bound {
    lookups: u32,
    any_v4: u16,
    any_v6: u16,
    dual: u16,
}

/// The lookups that the slot of a port answers by itself.
const IN_SLOT: u32 = PortPattern::ANY_V4 | PortPattern::ANY_V6 | PortPattern::DUAL;

/// Compiles bindings, each given with its index.
///
/// # Errors
///
/// [`Error::AddressInUse`] where two patterns are the same,
/// [`Error::InvalidArgument`] where too many port patterns overlap.
pub fn compile(bindings: &[(u16, Binding)]) -> Result<Compiled> {
    let mut compiled = Compiled {
        ports: vec![PortSlot::default(); PortSlot::COUNT],
        profiles: vec![PortProfile::default()],
        addresses: HashMap::new(),
        prefixes: HashMap::new(),
    };
    let mut numbers = HashMap::new();
    for protocol in Protocol::ALL {
        let mut patterns: BTreeMap<Ports, Bound> = BTreeMap::new();
        for (index, binding) in bindings.iter().filter(|(_, b)| b.protocol == protocol) {
            let ports = Ports {
                first: binding.first_port,
                last: binding.last_port,
            };
            let bound = patterns.entry(ports).or_default();
            if !enter(&mut compiled, bound, *index, binding) {
                return Err(duplicate(binding, bindings));
            }
        }
        fill_ports(&mut compiled, &mut numbers, protocol, &patterns)?;
    }
    Ok(compiled)
}

/// Enters a binding; `false` where another has the same pattern.
fn enter(compiled: &mut Compiled, bound: &mut Bound, index: u16, binding: &Binding) -> bool {
    let with_device = binding.ifindex != 0;
    let lookup = |plain: u32, device: u32| if with_device { device } else { plain };
    match (binding.family, binding.prefix_len) {
        (Family::Ipv4, 0) => {
            bound.lookups |= lookup(PortPattern::ANY_V4, PortPattern::ANY_V4_DEVICE);
            enter_wildcard(compiled, &mut bound.any_v4, index, binding, Scope::Ipv4)
        }
        (Family::Ipv6, 0) => {
            bound.lookups |= lookup(PortPattern::ANY_V6, PortPattern::ANY_V6_DEVICE);
            let fits = enter_wildcard(compiled, &mut bound.any_v6, index, binding, Scope::Ipv6);
            if binding.has(Binding::V6_ONLY) {
                return fits;
            }
            bound.lookups |= lookup(PortPattern::DUAL, PortPattern::DUAL_DEVICE);
            fits && enter_wildcard(compiled, &mut bound.dual, index, binding, Scope::DualStack)
        }
        (Family::Ipv4, 32) | (Family::Ipv6, 128) => {
            bound.lookups |= lookup(PortPattern::ADDRESS, PortPattern::ADDRESS_DEVICE);
            let key = address_key(binding, binding.family.into());
            compiled.addresses.insert(key, index).is_none()
        }
        (_, prefix_len) => {
            bound.lookups |= lookup(PortPattern::PREFIX, PortPattern::PREFIX_DEVICE);
            let found = PrefixMatch {
                binding: index,
                prefix_len: u16::from(prefix_len),
            };
            compiled
                .prefixes
                .insert(prefix_key(binding), found)
                .is_none()
        }
    }
}

fn enter_wildcard(
    compiled: &mut Compiled,
    in_slot: &mut u16,
    index: u16,
    binding: &Binding,
    scope: Scope,
) -> bool {
    if binding.ifindex != 0 {
        let key = address_key(binding, scope);
        return compiled.addresses.insert(key, index).is_none();
    }
    std::mem::replace(in_slot, index) == 0
}

fn address_key(binding: &Binding, scope: Scope) -> AddressKey {
    AddressKey {
        address: binding.address,
        ifindex: binding.ifindex,
        first_port: binding.first_port,
        last_port: binding.last_port,
        protocol: binding.protocol,
        scope,
    }
}

fn prefix_key(binding: &Binding) -> PrefixKey {
    PrefixKey {
        prefix_len: PrefixKey::FIXED_BITS
            + PrefixKey::address_offset(binding.family)
            + u32::from(binding.prefix_len),
        ifindex: binding.ifindex,
        first_port: binding.first_port,
        last_port: binding.last_port,
        protocol: binding.protocol,
        family: binding.family,
        reserved: 0,
        address: binding.address,
    }
}

/// Writes the slot of every port of a protocol.
fn fill_ports(
    compiled: &mut Compiled,
    numbers: &mut HashMap<PortProfile, u16>,
    protocol: Protocol,
    patterns: &BTreeMap<Ports, Bound>,
) -> Result<()> {
    // Where the set of patterns that apply changes: at a first port, and behind a last one.
    let mut bounds: BTreeSet<u32> = BTreeSet::from([0, 1 << 16]);
    for ports in patterns.keys() {
        bounds.insert(u32::from(ports.first));
        bounds.insert(u32::from(ports.last) + 1);
    }
    let bounds: Vec<u32> = bounds.into_iter().collect();

    // The patterns that apply, the narrowest first.
    let mut active: BTreeMap<(u16, u16), (Ports, Bound)> = BTreeMap::new();
    let mut starting = patterns.iter().peekable();
    for interval in bounds.windows(2) {
        let (start, end) = (interval[0], interval[1]);
        active.retain(|_, (ports, _)| u32::from(ports.last) >= start);
        while let Some((ports, bound)) =
            starting.next_if(|(ports, _)| u32::from(ports.first) == start)
        {
            active.insert((ports.width(), ports.first), (*ports, *bound));
        }
        let slot = slot(compiled, numbers, start, active.values())?;
        let base = PortSlot::index(protocol, 0);
        compiled.ports[(base + start) as usize..(base + end) as usize].fill(slot);
    }
    Ok(())
}

/// The slot of ports to which these patterns apply.
fn slot<'a>(
    compiled: &mut Compiled,
    numbers: &mut HashMap<PortProfile, u16>,
    port: u32,
    active: impl Iterator<Item = &'a (Ports, Bound)> + Clone,
) -> Result<PortSlot> {
    let first = |pick: fn(&Bound) -> u16| {
        active
            .clone()
            .map(|(_, bound)| pick(bound))
            .find(|index| *index != 0)
    };
    let mut slot = PortSlot {
        any_v4: first(|bound| bound.any_v4)
            .or_else(|| first(|bound| bound.dual))
            .unwrap_or(0),
        any_v6: first(|bound| bound.any_v6).unwrap_or(0),
        profile: 0,
        reserved: 0,
    };
    if active
        .clone()
        .all(|(_, bound)| bound.lookups & !IN_SLOT == 0)
    {
        return Ok(slot);
    }
    let mut profile = PortProfile::default();
    let mut places = profile.patterns.iter_mut();
    for (ports, bound) in active {
        let place = places.next().ok_or_else(|| {
            Error::invalid(
                "local endpoint",
                format!("port {port}"),
                format!("more than {MAX_PATTERNS} ports and ranges overlap there"),
            )
        })?;
        *place = PortPattern {
            first_port: ports.first,
            last_port: ports.last,
            lookups: bound.lookups,
        };
    }
    slot.profile = *numbers.entry(profile).or_insert_with(|| {
        compiled.profiles.push(profile);
        // There are fewer intervals than ports.
        (compiled.profiles.len() - 1) as u16
    });
    Ok(slot)
}

fn duplicate(binding: &Binding, bindings: &[(u16, Binding)]) -> Error {
    let pattern = Pattern::of(binding);
    let wildcard = |other: &Binding| other.family == Family::Ipv6 && other.prefix_len == 0;
    let holder = bindings
        .iter()
        .map(|(_, other)| other)
        .filter(|other| other.name != binding.name && other.ifindex == binding.ifindex)
        .find(|other| {
            Pattern::of(other) == pattern
                || (wildcard(other)
                    && wildcard(binding)
                    && other.protocol == binding.protocol
                    && Pattern::of(other).ports == pattern.ports)
        })
        .map_or_else(
            || "another binding".to_owned(),
            |other| format!("binding {:?}", super::change::name_of(other)),
        );
    Error::AddressInUse {
        pattern: format!("{} {pattern}", binding.protocol.name()),
        holder,
    }
}
