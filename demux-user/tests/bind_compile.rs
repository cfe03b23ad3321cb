//! Groups as they are compiled: who is in the ring, in which order, and whom the tables name.

mod common;

use std::collections::HashMap;

use common::chance::{Random, cases};

use demux_common::{
    binding::{Binding, NAME_LEN, PortSlot, Target},
    config::Config,
    group::MAX_MEMBERS,
    protocol::Protocol,
};
use demux_user::{
    Error,
    bindings::{Compiled, Pattern, compile},
};

const SHARED: u8 = Binding::REUSE_ADDR | Binding::REUSE_PORT;

fn binding(local: &str, v6_only: bool, created: u32, flags: u8) -> Binding {
    let pattern = Pattern::parse(Protocol::Tcp, local, v6_only).unwrap();
    let (address, family, prefix_len, v6_only) = pattern.stored_address();
    Binding {
        address,
        name: [b'x'; NAME_LEN],
        created,
        ifindex: 0,
        first_port: pattern.ports.first,
        last_port: pattern.ports.last,
        family,
        protocol: pattern.protocol,
        prefix_len,
        target: Target::Stack,
        flags: flags | if v6_only { Binding::V6_ONLY } else { 0 },
        reserved: 0,
        next_member: 0,
        set: 0,
        steered_until: 0,
    }
}

/// The bindings as they are stored once `compiled` is published.
fn stored(bindings: &[(u16, Binding)], compiled: &Compiled) -> HashMap<u16, Binding> {
    let mut stored: HashMap<u16, Binding> = bindings.iter().copied().collect();
    for (index, binding) in &compiled.relinked {
        let old = stored.insert(*index, *binding).expect("a binding");
        assert_ne!(old.next_member, binding.next_member, "nothing to write");
        let unlinked = Binding {
            next_member: old.next_member,
            ..*binding
        };
        assert_eq!(unlinked, old);
    }
    stored
}

/// Everybody that is met from a member on.
fn walk(stored: &HashMap<u16, Binding>, from: u16) -> Vec<u16> {
    let mut met = vec![from];
    while let next @ 1.. = stored[met.last().unwrap()].next_member {
        if next == from {
            break;
        }
        assert!(met.len() <= stored.len(), "a ring without {from}: {met:?}");
        met.push(next);
    }
    met
}

fn slot(compiled: &Compiled, port: u16) -> PortSlot {
    compiled.ports[PortSlot::index(Protocol::Tcp, port) as usize]
}

#[test]
fn the_last_one_wins_and_leads_to_its_group() {
    let port = Binding::REUSE_PORT;
    let mut bindings = vec![
        (3, binding(":80", false, u32::MAX, SHARED)),
        (9, binding(":80", false, u32::MAX - 1, port)),
        (5, binding(":80", false, 2, SHARED)),
        // Not of the group: without the flag, IPv6 alone, another port.
        (4, binding(":80", false, 1, Binding::REUSE_ADDR)),
        (7, binding("[::]:80", true, 3, SHARED)),
        (8, binding(":81", false, 4, SHARED)),
    ];
    let compiled = compile(&bindings).unwrap();
    assert_eq!(
        (slot(&compiled, 80).any_v4, slot(&compiled, 80).any_v6),
        (5, 7)
    );
    let linked = stored(&bindings, &compiled);
    // In the order in which they were bound, across the wrap of the epoch.
    assert_eq!(walk(&linked, 5), [5, 9, 3]);
    for alone in [4, 7, 8] {
        assert_eq!(linked[&alone].next_member, 0);
    }

    // Nothing is to be written again.
    bindings = linked.into_iter().collect();
    assert_eq!(compile(&bindings).unwrap().relinked, []);

    // One that is last and has not the flag ends the group for as long as it is there.
    bindings.push((1, binding(":80", false, 9, Binding::REUSE_ADDR)));
    let compiled = compile(&bindings).unwrap();
    assert_eq!(slot(&compiled, 80).any_v4, 1);
    let linked = stored(&bindings, &compiled);
    assert!(linked.values().all(|binding| binding.next_member == 0));
    bindings = linked
        .into_iter()
        .filter(|(index, _)| *index != 1)
        .collect();
    let compiled = compile(&bindings).unwrap();
    assert_eq!(walk(&stored(&bindings, &compiled), 5), [5, 9, 3]);
}

#[test]
fn a_group_has_a_bound_whoever_wins() {
    let members = |count: u16| -> Vec<(u16, Binding)> {
        (1..=count)
            .map(|index| (index, binding("10.0.0.2:80", false, index.into(), SHARED)))
            .collect()
    };
    let most = MAX_MEMBERS as u16;
    let whole = members(most);
    let linked = stored(&whole, &compile(&whole).unwrap());
    assert_eq!(walk(&linked, 1), (1..=most).collect::<Vec<_>>());

    let mut more = members(most + 1);
    let full = |bindings: &[(u16, Binding)]| match compile(bindings) {
        Err(Error::GroupFull { pattern, max }) => {
            assert_eq!((pattern.as_str(), max), ("tcp 10.0.0.2:80", MAX_MEMBERS));
        }
        other => panic!("{other:?}"),
    };
    full(&more);
    more.push((999, binding("10.0.0.2:80", false, 999, Binding::REUSE_ADDR)));
    full(&more);
}

/// Each ring has all of its pattern that have the flag, if the latest has it, and nobody else.
#[test]
fn rings_are_what_they_should_be() {
    let mut random = Random::new();
    for _ in 0..cases(5000) {
        // Not far from the wrap.
        let mut created: u32 = random.pick(&[1, u32::MAX - 5]);
        let mut bindings = Vec::new();
        for index in 1..=1 + random.below(24) as u16 {
            let local = random.pick(&[
                ":80",
                "0.0.0.0:80",
                "[::]:80",
                "10.0.0.2:80",
                "10.0.0.0/8:1-9",
                "*:*",
            ]);
            let v6_only = local == "[::]:80" && random.one_in(2);
            let binding = Binding {
                // Whatever was linked before.
                next_member: random.below(4) as u16,
                ..binding(local, v6_only, created, random.below(4) as u8)
            };
            bindings.push((index, binding));
            created = Config::next_epoch(created);
        }
        let linked = stored(&bindings, &compile(&bindings).unwrap());
        for (index, one) in &bindings {
            // They were made in the order of their indices.
            let same: Vec<_> = bindings
                .iter()
                .filter(|(_, other)| Pattern::of(other) == Pattern::of(one))
                .collect();
            let winner = same.last().unwrap().1;
            let is_member =
                |other: &Binding| winner.has(Binding::REUSE_PORT) && other.has(Binding::REUSE_PORT);
            let mut expected: Vec<u16> = same
                .iter()
                .filter(|(_, other)| is_member(other))
                .map(|(other, _)| *other)
                .collect();
            match expected.iter().position(|other| other == index) {
                Some(place) => expected.rotate_left(place),
                None => expected = vec![*index],
            }
            assert_eq!(walk(&linked, *index), expected, "{bindings:?}");
        }
    }
}
