//! Which bindings cannot have their endpoints together.

use std::hash::Hash;

use demux_common::{
    binding::Binding,
    overlap::{Endpoint, may_share, overlaps},
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
pub(super) fn same_pattern_key(binding: &Binding) -> impl Eq + Hash + use<> {
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

/// The binding of `bindings` that `new` cannot exist beside, if possible one of the same pattern.
///
/// Patterns that bind(2) can express conflict as sockets would that are bound and do not listen; others
/// conflict with the same pattern only, and the more specific one wins.
pub(super) fn holder<'a>(
    new: &Binding,
    bindings: impl Iterator<Item = &'a Binding>,
) -> Option<&'a Binding> {
    let is_same = |other: &Binding| same_pattern_key(other) == same_pattern_key(new);
    bindings
        .filter(|other| other.protocol == new.protocol)
        .filter(|other| match (bindable(other), bindable(new)) {
            (Some(theirs), Some(ours)) => {
                other.first_port == new.first_port && overlaps(&theirs, &ours)
            }
            _ => is_same(other),
        })
        .filter(|other| !may_share(other.flags, new.flags, false, true))
        .min_by_key(|other| !is_same(other))
}
