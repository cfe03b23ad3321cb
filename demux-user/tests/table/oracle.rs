//! The naive matcher: looks at every binding, keeps those that match, and takes the best.
//!
//! Written from the rules of precedence alone, so that it shares no mistake with the tables that
//! bindings are compiled into.

use std::{
    cmp::Reverse,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use demux_common::{
    address::Family,
    binding::{Binding, Target},
    protocol::Protocol,
    reason::{Reason, Verdict},
};

/// What a packet says of its way here.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub protocol: Protocol,
    pub local: IpAddr,
    pub port: u16,
    pub ifindex: u32,
}

/// The binding that claims a packet.
pub fn find(bindings: &[(u16, Binding)], arrival: &Arrival) -> Option<u16> {
    bindings
        .iter()
        .filter(|(_, binding)| matches(binding, arrival))
        .max_by_key(|(index, binding)| rank(*index, binding, arrival))
        .map(|(index, _)| *index)
}

/// What becomes of a packet where the default is drop, sockets are not asked and nothing is forwarded.
pub fn judge(
    bindings: &[(u16, Binding)],
    arrival: &Arrival,
    is_local: bool,
) -> (Verdict, Reason, u16) {
    let binding = find(bindings, arrival);
    let target = binding.map(|index| {
        let (_, binding) = bindings
            .iter()
            .find(|(other, _)| *other == index)
            .expect("it");
        binding.target
    });
    match (binding, target, is_local) {
        (Some(index), Some(Target::Drop), true) => (Verdict::Drop, Reason::Bound, index),
        (Some(_), Some(Target::Drop), false) => (Verdict::Pass, Reason::NotLocal, 0),
        (Some(index), _, _) => (Verdict::Pass, Reason::Bound, index),
        (None, _, true) => (Verdict::Drop, Reason::Unbound, 0),
        (None, _, false) => (Verdict::Pass, Reason::NotLocal, 0),
    }
}

fn matches(binding: &Binding, arrival: &Arrival) -> bool {
    binding.protocol == arrival.protocol
        && (binding.ifindex == 0 || binding.ifindex == arrival.ifindex)
        && (binding.first_port..=binding.last_port).contains(&arrival.port)
        && match (binding.family, arrival.local) {
            (Family::Ipv4, IpAddr::V4(address)) => {
                let [.., a, b, c, d] = binding.address.bytes;
                same_bits(
                    u128::from(u32::from(Ipv4Addr::new(a, b, c, d))) << 96,
                    u128::from(u32::from(address)) << 96,
                    binding.prefix_len,
                )
            }
            (Family::Ipv4, IpAddr::V6(_)) => false,
            (Family::Ipv6, IpAddr::V6(address)) => same_bits(
                u128::from(Ipv6Addr::from(binding.address.bytes)),
                u128::from(address),
                binding.prefix_len,
            ),
            // The wildcard of IPv6 is that of both, unless it says otherwise.
            (Family::Ipv6, IpAddr::V4(_)) => {
                binding.prefix_len == 0 && binding.flags & Binding::V6_ONLY == 0
            }
        }
}

fn same_bits(one: u128, other: u128, bits: u8) -> bool {
    bits == 0 || (one ^ other) >> (128 - u32::from(bits)) == 0
}

/// How specific a binding that matches is; the greatest wins.
fn rank(index: u16, binding: &Binding, arrival: &Arrival) -> impl Ord + use<> {
    let of_the_same_family = arrival.local.is_ipv4() == (binding.family == Family::Ipv4);
    let width = u32::from(binding.last_port) - u32::from(binding.first_port);
    (
        of_the_same_family,
        binding.prefix_len,
        Reverse(width),
        Reverse(binding.first_port),
        binding.ifindex != 0,
        binding.flags & Binding::V6_ONLY != 0,
        // Of equals the last that was bound; the last index, should they be of one epoch. The epochs of
        // a world are not far from the wrap.
        binding.created as i32,
        index,
    )
}
