//! In which order bindings come and go, so that packets which several of them could claim never go to one
//! that is neither their old answer nor their new one.
//!
//! Let new ones come, the most specific first: whatever a packet finds is the best of all old ones, or
//! the best of all new ones, since those that are better are there before. Then let old ones go, the
//! least specific first: what comes up in the place of one is new.
//! (Were they to go all at once, the packets of an address that is unbound together with its network would
//! see the network's binding for a moment, in which only the address's is gone.)
//!
//! Bindings that no packet could ask for both of come and go in one stage; there are mostly few stages.

use std::cmp::Reverse;

use demux_common::{binding::Binding, protocol::Protocol};

use super::{Pattern, Ports};

/// The ports of both protocols, a bit for each.
struct PortBits(Vec<u64>);

impl PortBits {
    fn new() -> Self {
        Self(vec![0; 2 << 10])
    }

    /// The words that a range touches, each with its bits.
    fn words(protocol: Protocol, ports: Ports) -> impl Iterator<Item = (usize, u64)> {
        let base = (protocol as usize) << 10;
        let (first, last) = (usize::from(ports.first), usize::from(ports.last));
        (first >> 6..=last >> 6).map(move |word| {
            let from = if word == first >> 6 { first & 63 } else { 0 };
            let to = if word == last >> 6 { last & 63 } else { 63 };
            (base + word, u64::MAX << from & u64::MAX >> (63 - to))
        })
    }

    fn has_any(&self, protocol: Protocol, ports: Ports) -> bool {
        Self::words(protocol, ports).any(|(word, bits)| self.0[word] & bits != 0)
    }

    fn insert(&mut self, protocol: Protocol, ports: Ports) {
        for (word, bits) in Self::words(protocol, ports) {
            self.0[word] |= bits;
        }
    }
}

fn ports(binding: &Binding) -> Ports {
    Ports {
        first: binding.first_port,
        last: binding.last_port,
    }
}

/// Which bindings have one rank: no packet could ask for two of them, unless they have one pattern.
fn rank(binding: &Binding) -> impl Ord + use<> {
    // The wildcards: IPv4, IPv6, both.
    let scope = match Pattern::of(binding).address {
        super::LocalAddress::AnyV4 => 1,
        super::LocalAddress::AnyV6 => 2,
        super::LocalAddress::Any => 3,
        _ => 0,
    };
    (
        scope,
        // Bits of an IPv4 prefix and of an IPv6 prefix are never compared, but 32 is as exact as 128.
        Reverse(Pattern::of(binding).exactness()),
        ports(binding).width(),
        binding.first_port,
        binding.ifindex == 0,
    )
}

/// The stages in which bindings come, as their numbers in the order given.
pub(super) fn additions<'b>(bindings: impl Iterator<Item = &'b Binding>) -> Vec<Vec<usize>> {
    let mut ordered: Vec<(usize, &Binding)> = bindings.enumerate().collect();
    ordered.sort_by_key(|(_, binding)| rank(binding));
    staged(&ordered)
}

/// The stages in which bindings go, as their numbers in the order given.
pub(super) fn removals<'b>(bindings: impl Iterator<Item = &'b Binding>) -> Vec<Vec<usize>> {
    let mut ordered: Vec<(usize, &Binding)> = bindings.enumerate().collect();
    ordered.sort_by_key(|(_, binding)| Reverse(rank(binding)));
    staged(&ordered)
}

/// Takes bindings together until one meets another of a different rank at one port.
fn staged(ordered: &[(usize, &Binding)]) -> Vec<Vec<usize>> {
    let mut stages: Vec<Vec<usize>> = Vec::new();
    let mut stage = Vec::new();
    let mut covered = PortBits::new();
    for equals in ordered.chunk_by(|(_, one), (_, other)| rank(one) == rank(other)) {
        let meets =
            |(_, binding): &(usize, &Binding)| covered.has_any(binding.protocol, ports(binding));
        if equals.iter().any(meets) {
            stages.push(std::mem::take(&mut stage));
            covered = PortBits::new();
        }
        for (number, binding) in equals {
            stage.push(*number);
            covered.insert(binding.protocol, ports(binding));
        }
    }
    if !stage.is_empty() {
        stages.push(stage);
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::{BindRequest, Destination, change::stored};

    fn bindings(locals: &[&str]) -> Vec<Binding> {
        let request = |local: &&str| {
            let (local, ifindex) = local.split_once('@').map_or((*local, 0), |(local, index)| {
                (local, index.parse().unwrap())
            });
            let request = BindRequest::new(Protocol::Tcp, local, Destination::Stack).unwrap();
            stored(&BindRequest { ifindex, ..request }, "", 1)
        };
        locals.iter().map(request).collect()
    }

    #[test]
    fn what_cannot_meet_comes_together() {
        let all: Vec<String> = (1..5000).map(|port| format!(":{port}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(additions(bindings(&all).iter()).len(), 1);
        let mixed = bindings(&[
            "10.0.0.1:80",
            "10.0.0.2:80",
            "[fd00::1]:80",
            ":81",
            "10.0.0.0/8:82",
        ]);
        assert_eq!(additions(mixed.iter()).len(), 1);
    }

    #[test]
    fn the_most_specific_comes_first_and_goes_last() {
        let locals = [
            ":80",
            "0.0.0.0:80",
            "10.0.0.0/8:80",
            "10.0.0.0/16:80",
            "10.0.0.1:80-90",
            "10.0.0.1:80",
            "10.0.0.1:80@3",
        ];
        let bindings = bindings(&locals);
        let order = |stages: Vec<Vec<usize>>| -> Vec<usize> { stages.concat() };
        let came = additions(bindings.iter());
        assert_eq!(came.len(), locals.len());
        assert_eq!(order(came), [6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(order(removals(bindings.iter())), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn ranges_that_overlap_are_apart() {
        let overlapping = bindings(&[":80-90", ":85-95", ":100-110", ":64-127@1"]);
        assert_eq!(additions(overlapping.iter()).len(), 3);
    }

    #[test]
    fn bits_of_ports_are_counted_to_both_ends() {
        let mut bits = PortBits::new();
        let ports = |first, last| Ports { first, last };
        bits.insert(Protocol::Tcp, ports(63, 128));
        for (range, expected) in [
            (ports(0, 62), false),
            (ports(63, 63), true),
            (ports(100, 100), true),
            (ports(128, 200), true),
            (ports(129, 65535), false),
            (Ports::ANY, true),
        ] {
            assert_eq!(bits.has_any(Protocol::Tcp, range), expected, "{range}");
            assert!(!bits.has_any(Protocol::Udp, range));
        }
    }
}
