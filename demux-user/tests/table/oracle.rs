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
    config::Policy,
    protocol::Protocol,
    reason::{Reason, Verdict},
};

use super::{
    random,
    steering::Targets,
    world::{Device, World},
};

/// What a packet says of its way here.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub protocol: Protocol,
    pub local: IpAddr,
    pub port: u16,
    pub ifindex: u32,
    /// The bytes of the frame.
    pub length: usize,
}

/// The binding that claims a packet.
pub fn find(bindings: &[(u16, Binding)], arrival: &Arrival) -> Option<u16> {
    bindings
        .iter()
        .filter(|(_, binding)| matches(binding, arrival))
        .max_by_key(|(index, binding)| rank(*index, binding, arrival))
        .map(|(index, _)| *index)
}

/// What becomes of a packet where the default is one that drops or rejects, sockets are not asked and
/// nothing is forwarded.
pub fn judge(
    bindings: &[(u16, Binding)],
    world: &World,
    arrival: &Arrival,
    is_local: bool,
) -> (Verdict, Reason, u16) {
    let default = world.default;
    let binding = find(bindings, arrival);
    let bound = binding.map(|index| {
        let (_, binding) = bindings
            .iter()
            .find(|(other, _)| *other == index)
            .expect("it");
        binding
    });
    let target = bound.map(|binding| binding.target);
    let default = match default {
        Policy::Drop => Verdict::Drop,
        Policy::Reject => Verdict::Reject,
        Policy::Pass => panic!("a default of pass asks for nothing"),
    };
    match (binding, target, is_local) {
        (Some(index), Some(Target::Drop), true) => (Verdict::Drop, Reason::Bound, index),
        (Some(index), Some(Target::Reject), true) => (Verdict::Reject, Reason::Bound, index),
        (Some(index), Some(Target::Cpu | Target::Xsk), true) => {
            let bound = bound.expect("a binding");
            let obstacle = match bound.target {
                Target::Cpu => obstacle_to_cpus(&world.targets, &random::cpus(index)),
                _ => obstacle_to_socket(&world.targets, bound.set, arrival.length),
            };
            match obstacle {
                None => (Verdict::Redirect, Reason::Bound, index),
                Some(reason) if bound.has(Binding::FALLBACK_STACK) => {
                    (Verdict::Pass, reason, index)
                }
                Some(reason) => (Verdict::Drop, reason, index),
            }
        }
        (Some(_), Some(Target::Drop | Target::Reject | Target::Cpu | Target::Xsk), false) => {
            (Verdict::Pass, Reason::NotLocal, 0)
        }
        (Some(index), _, _) => (Verdict::Pass, Reason::Bound, index),
        (None, _, true) => (default, Reason::Unbound, 0),
        (None, _, false) => (Verdict::Pass, Reason::NotLocal, 0),
    }
}

/// Why none of a binding's CPUs takes a packet.
fn obstacle_to_cpus(targets: &Targets, cpus: &[u16]) -> Option<Reason> {
    let takes = cpus.iter().all(|cpu| targets.cpus.contains(cpu));
    (!takes).then_some(Reason::NoTarget)
}

/// Why no socket of a set takes a frame.
fn obstacle_to_socket(targets: &Targets, set: u16, length: usize) -> Option<Reason> {
    let set = targets.sets.get(usize::from(set) - 1);
    let place = set.and_then(|set| {
        let mut places = set.places.iter();
        let place = places.find(|place| place.device == Device::This)?;
        (targets.queue < u32::from(place.queues)).then_some((set, place))
    });
    match place {
        None => Some(Reason::NoTarget),
        Some((set, _)) if length > set.longest as usize => Some(Reason::TooLong),
        Some((_, place)) => {
            let slot = place.first_slot + targets.queue as u16;
            (!targets.slots.contains(&slot)).then_some(Reason::NoTarget)
        }
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
