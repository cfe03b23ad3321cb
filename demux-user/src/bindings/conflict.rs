//! Which bindings cannot have their endpoints together.

use std::collections::HashMap;

use demux_common::{
    address::{ANY_V4, ANY_V6, Address, Family},
    binding::Binding,
    overlap::{Endpoint, may_share, overlaps},
    protocol::Protocol,
};

/// What bind(2) could have been asked for: one address or any, and one port.
pub(super) fn bindable(binding: &Binding) -> Option<Endpoint> {
    if binding.first_port == binding.last_port {
        Endpoint::of(binding)
    } else {
        None
    }
}

/// What bindings of one pattern have in common.
pub(crate) type PatternKey = (Protocol, Family, Address, u8, [u16; 2], u32, bool);

/// The key of a binding's pattern.
pub(crate) fn same_pattern_key(binding: &Binding) -> PatternKey {
    (
        binding.protocol,
        binding.family,
        binding.address,
        binding.prefix_len,
        [binding.first_port, binding.last_port],
        binding.ifindex,
        binding.has(Binding::V6_ONLY),
    )
}

/// Bindings by what can be in the way of another one, so that each of many is compared with few.
///
/// Patterns that bind(2) can express conflict as sockets would that are bound and do not listen; others
/// conflict with the same pattern only, and the more specific one wins.
#[derive(Debug, Default)]
pub(crate) struct Index {
    bindings: Vec<Binding>,
    ports: HashMap<(Protocol, u16), AtPort>,
    patterns: HashMap<PatternKey, Vec<usize>>,
}

/// What bind(2) could have been asked for at one port.
#[derive(Debug, Default)]
struct AtPort {
    wildcards: Vec<usize>,
    addresses: HashMap<Address, Vec<usize>>,
}

fn is_wildcard(endpoint: &Endpoint) -> bool {
    endpoint.address == ANY_V4 || endpoint.address == ANY_V6
}

impl Index {
    /// Those of several bindings.
    pub(crate) fn of<'b>(bindings: impl IntoIterator<Item = &'b Binding>) -> Self {
        let mut index = Self::default();
        for binding in bindings {
            index.push(binding);
        }
        index
    }

    /// Adds a binding, whose number is how many were there before.
    pub(crate) fn push(&mut self, binding: &Binding) {
        let number = self.bindings.len();
        self.bindings.push(*binding);
        let Some(endpoint) = bindable(binding) else {
            let same = self.patterns.entry(same_pattern_key(binding));
            same.or_default().push(number);
            return;
        };
        let at = self.ports.entry((binding.protocol, binding.first_port));
        let at = at.or_default();
        if is_wildcard(&endpoint) {
            at.wildcards.push(number);
        } else {
            at.addresses
                .entry(endpoint.address)
                .or_default()
                .push(number);
        }
    }

    /// The binding with this number.
    pub(crate) fn get(&self, number: usize) -> &Binding {
        &self.bindings[number]
    }

    /// The number of the binding that `new` cannot exist beside, if possible one of the same pattern.
    pub(crate) fn holder(&self, new: &Binding) -> Option<usize> {
        let in_the_way = |number: &&usize| {
            let other = self.get(**number);
            let meets = match (bindable(other), bindable(new)) {
                (Some(theirs), Some(ours)) => overlaps(&theirs, &ours),
                _ => true,
            };
            meets && !may_share(other.flags, new.flags, false, true)
        };
        let key = same_pattern_key(new);
        let order = |number: &usize| (same_pattern_key(self.get(*number)) != key, *number);
        let Some(endpoint) = bindable(new) else {
            let same = self.patterns.get(&key)?;
            return same.iter().find(in_the_way).copied();
        };
        let at = self.ports.get(&(new.protocol, new.first_port))?;
        let wildcards = at.wildcards.iter();
        if is_wildcard(&endpoint) {
            let all = wildcards.chain(at.addresses.values().flatten());
            all.filter(in_the_way).copied().min_by_key(order)
        } else {
            let same = at.addresses.get(&endpoint.address).into_iter().flatten();
            let few = wildcards.chain(same);
            few.filter(in_the_way).copied().min_by_key(order)
        }
    }
}
