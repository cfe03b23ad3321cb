//! From bindings to the tables that the datapath matches against.
//!
//! The ports of each protocol fall into intervals within which the same port patterns apply, so that
//! the work is done once for each interval and the result is written to each of its ports.
//!
//! Of bindings with one pattern, the one that was bound last is the *winner*: it alone stands in the
//! tables. Where it was bound with `--reuse-port`, it and all others of its pattern that were, too, are
//! a [group](demux_common::group), linked in a ring.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use demux_common::{
    address::Family,
    binding::{
        AddressKey, Binding, MAX_PATTERNS, PortPattern, PortProfile, PortSlot, PrefixKey,
        PrefixMatch, Scope,
    },
    group::MAX_MEMBERS,
    protocol::Protocol,
};

use super::{Pattern, admission::written, conflict::same_pattern_key};
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
    /// [`Binding::next_member`] of every binding, by its index.
    pub next_members: BTreeMap<u16, u16>,
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
/// [`Error::InvalidArgument`] where too many port patterns overlap, [`Error::GroupFull`].
pub fn compile(bindings: &[(u16, Binding)]) -> Result<Compiled> {
    let mut compiled = Compiled {
        ports: vec![PortSlot::default(); PortSlot::COUNT],
        profiles: vec![PortProfile::default()],
        addresses: HashMap::new(),
        prefixes: HashMap::new(),
        next_members: BTreeMap::new(),
    };
    let mut winners = Vec::new();
    for sharers in by_pattern(bindings) {
        link(&mut compiled.next_members, &sharers)?;
        winners.extend(sharers.first().copied());
    }
    // A dual-stack wildcard gives way to one of IPv6 alone, which comes later and takes its place.
    winners.sort_by_key(|(_, binding)| binding.has(Binding::V6_ONLY));

    let mut numbers = HashMap::new();
    for protocol in Protocol::ALL {
        let mut patterns: BTreeMap<Ports, Bound> = BTreeMap::new();
        for (index, binding) in winners.iter().filter(|(_, b)| b.protocol == protocol) {
            let ports = Ports {
                first: binding.first_port,
                last: binding.last_port,
            };
            let bound = patterns.entry(ports).or_default();
            enter(&mut compiled, bound, *index, binding);
        }
        fill_ports(&mut compiled, &mut numbers, protocol, &patterns)?;
    }
    Ok(compiled)
}

/// The bindings of each pattern, the latest first.
fn by_pattern(bindings: &[(u16, Binding)]) -> Vec<Vec<(u16, &Binding)>> {
    // Epochs wrap, so they are compared with one that is not far.
    let near = bindings.first().map_or(0, |(_, binding)| binding.created);
    let mut patterns: HashMap<_, Vec<(u16, &Binding)>> = HashMap::new();
    for (index, binding) in bindings {
        let key = same_pattern_key(binding);
        patterns.entry(key).or_default().push((*index, binding));
    }
    let mut patterns: Vec<_> = patterns.into_values().collect();
    for sharers in &mut patterns {
        sharers.sort_by_key(|(index, binding)| {
            Reverse((binding.created.wrapping_sub(near) as i32, *index))
        });
    }
    // Profiles are numbered in this order.
    patterns.sort_by_key(|sharers| sharers.first().map(|(index, _)| *index));
    patterns
}

/// Links the bindings of one pattern, given the latest first: the members of their group in the order
/// in which they were bound, and the latest with the first; all others with nobody.
fn link(next_members: &mut BTreeMap<u16, u16>, sharers: &[(u16, &Binding)]) -> Result<()> {
    next_members.extend(sharers.iter().map(|(index, _)| (*index, 0)));
    let members: Vec<_> = sharers
        .iter()
        .filter(|(_, binding)| binding.has(Binding::REUSE_PORT))
        .collect();
    // Counted without asking for the winner: it may be unbound, and that must not fail.
    if members.len() > MAX_MEMBERS {
        return Err(Error::GroupFull {
            pattern: written(&Pattern::of(members[0].1)),
            max: MAX_MEMBERS,
        });
    }
    let is_group = sharers
        .first()
        .is_some_and(|(_, winner)| winner.has(Binding::REUSE_PORT));
    if is_group && members.len() > 1 {
        let later = members.iter().cycle().skip(members.len() - 1);
        next_members.extend(
            members
                .iter()
                .zip(later)
                .map(|((index, _), (next, _))| (*index, *next)),
        );
    }
    Ok(())
}

/// Enters the winner of a pattern.
fn enter(compiled: &mut Compiled, bound: &mut Bound, index: u16, binding: &Binding) {
    let with_device = binding.ifindex != 0;
    let lookup = |plain: u32, device: u32| if with_device { device } else { plain };
    match (binding.family, binding.prefix_len) {
        (Family::Ipv4, 0) => {
            bound.lookups |= lookup(PortPattern::ANY_V4, PortPattern::ANY_V4_DEVICE);
            enter_wildcard(compiled, &mut bound.any_v4, index, binding, Scope::Ipv4);
        }
        (Family::Ipv6, 0) => {
            bound.lookups |= lookup(PortPattern::ANY_V6, PortPattern::ANY_V6_DEVICE);
            enter_wildcard(compiled, &mut bound.any_v6, index, binding, Scope::Ipv6);
            if !binding.has(Binding::V6_ONLY) {
                bound.lookups |= lookup(PortPattern::DUAL, PortPattern::DUAL_DEVICE);
                enter_wildcard(compiled, &mut bound.dual, index, binding, Scope::DualStack);
            }
        }
        (Family::Ipv4, 32) | (Family::Ipv6, 128) => {
            bound.lookups |= lookup(PortPattern::ADDRESS, PortPattern::ADDRESS_DEVICE);
            let key = address_key(binding, binding.family.into());
            compiled.addresses.insert(key, index);
        }
        (_, prefix_len) => {
            bound.lookups |= lookup(PortPattern::PREFIX, PortPattern::PREFIX_DEVICE);
            let found = PrefixMatch {
                binding: index,
                prefix_len: u16::from(prefix_len),
            };
            compiled.prefixes.insert(prefix_key(binding), found);
        }
    }
}

fn enter_wildcard(
    compiled: &mut Compiled,
    in_slot: &mut u16,
    index: u16,
    binding: &Binding,
    scope: Scope,
) {
    if binding.ifindex == 0 {
        *in_slot = index;
    } else {
        compiled
            .addresses
            .insert(address_key(binding, scope), index);
    }
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
