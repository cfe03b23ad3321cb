//! How full a table gets before somebody finds no room.

use demux_common::{
    address::Address,
    clock::Clock,
    connection::{ConnectionKey, State, Timeouts},
    protocol::Protocol,
    table::{self, Cold, Inserted, Line, Memory, Probe},
};

use super::{
    names::{new, random, secret},
    stress::Flat,
};

/// How many of these keys, confirmed all, find no room in a table for so many.
fn refused(keys: impl Iterator<Item = ConnectionKey>, connections: u32, seed: u64) -> u32 {
    let (homes, secret) = (table::homes(connections), secret(seed));
    let lifetimes = Clock::new(0, 1 << 26).lifetimes(&Timeouts::default());
    let memory = Flat::new(table::lines(connections));
    let mut refused = 0;
    for key in keys {
        let probe = Probe::new(&key, &secret, homes);
        match table::insert(&memory, &probe, &key, &new(4), &lifetimes) {
            Inserted::Entered(_) => {}
            Inserted::Full => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    refused
}

fn key(remote: u32, remote_port: u16, local_port: u16) -> ConnectionKey {
    ConnectionKey {
        local_address: Address::from_v4([10, 0, 0, 1]),
        remote_address: Address::from_v4(remote.to_be_bytes()),
        local_port,
        remote_port,
        protocol: Protocol::Tcp,
    }
}

#[test]
fn a_table_for_a_million_takes_a_million() {
    const COUNT: u32 = 1_000_000;
    for seed in 0..2 {
        let mut chance = seed + 100;
        // The counter makes them differ.
        let keys = (0..COUNT).map(|n| {
            let chance = random(&mut chance);
            key(
                chance as u32,
                (chance >> 32) as u16,
                n as u16 ^ (n >> 16) as u16,
            )
        });
        let refused = refused(keys, COUNT, seed);
        println!("random keys, secret {seed}: {refused} refused");
        assert!(refused <= COUNT / 1000);
    }
}

#[test]
fn every_port_of_a_client_finds_room() {
    for seed in 0..8 {
        let keys = (1..=u16::MAX).map(|port| key(0xc0a8_0001, port, 443));
        let refused = refused(keys, 65_536, seed);
        println!("ports, secret {seed}: {refused} refused");
        assert!(refused <= 65);
    }
}

#[test]
fn neighbouring_clients_find_room() {
    for seed in 0..4 {
        let addresses = (0..200_000).map(|n| key(0x0a01_0000 + n, 50_000, 443));
        let both =
            (0..200_000u32).map(|n| key(0x0a01_0000 + n / 64, 32_768 + (n % 64) as u16, 443));
        let networks = (0..200_000u32).map(|n| key(n << 8 | 1, 50_000, 443));
        for (what, refused) in [
            ("addresses", refused(addresses, 200_000, seed)),
            ("addresses and ports", refused(both, 200_000, seed)),
            ("networks", refused(networks, 200_000, seed)),
        ] {
            println!("{what}, secret {seed}: {refused} refused");
            assert!(refused <= 200);
        }
    }
}

#[test]
fn sizes() {
    assert_eq!((size_of::<Line>(), size_of::<Cold>()), (64, 64));
    for connections in [1, 2, 1000, 1_000_000] {
        assert_eq!(table::connections(table::lines(connections)), connections);
    }
    // No state has a lifetime of zero, not even one that does not exist.
    assert!(State::ALL.len() <= State::SLOTS);
    assert!(Flat::new(3).line(3).is_none());
}
