//! Why the hash is keyed by its multipliers, and that it spreads keys that resemble each other.

use demux_common::{
    address::Address, connection::ConnectionKey, protocol::Protocol, table::Secret,
};

use super::{
    names::{random, secret},
    oracle::home,
};

/// What this table does not do: mixes a secret into the words of a key, and then multiplies by
/// numbers that everybody knows.
fn seeded(words: &[u64], seed: u64) -> u64 {
    words.iter().fold(seed, |state, word| {
        let mixed = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 32
    })
}

#[test]
fn a_seed_before_fixed_multipliers_collides_under_every_seed() {
    // The top bit stays the top bit under an odd multiplier, and the shift copies it to one other
    // place: so this difference in the next word takes it back, whatever the seed.
    let difference = [1 << 63, 1 << 63 | 1 << 31];
    let mut chance = 1;
    for _ in 0..1000 {
        let (seed, words) = (
            random(&mut chance),
            [random(&mut chance), random(&mut chance)],
        );
        let others = [words[0] ^ difference[0], words[1] ^ difference[1]];
        assert_eq!(seeded(&words, seed), seeded(&others, seed));
    }
}

fn v4(addresses: u64, ports: u32) -> ConnectionKey {
    let [a, b, c, d, e, f, g, h] = addresses.to_le_bytes();
    ConnectionKey {
        remote_address: Address::from_v4([a, b, c, d]),
        local_address: Address::from_v4([e, f, g, h]),
        local_port: ports as u16,
        remote_port: (ports >> 16) as u16,
        protocol: Protocol::Tcp,
    }
}

const HOMES: u32 = 1 << 16;

#[test]
fn no_difference_collides_under_every_secret() {
    // Every difference of one bit, of two, and of the top bits of several words.
    let mut differences: Vec<(u64, u32)> = (0..64).map(|bit| (1 << bit, 0)).collect();
    differences.extend((0..32).map(|bit| (0, 1 << bit)));
    differences.extend((0..32).map(|bit| (1 << bit | 1 << (bit + 32), 0)));
    differences.extend((0..32).map(|bit| (1 << 63 | 1 << 31, 1 << bit)));
    let mut chance = 2;
    for (addresses, ports) in differences {
        let one = (random(&mut chance), random(&mut chance) as u32);
        let pair = [v4(one.0, one.1), v4(one.0 ^ addresses, one.1 ^ ports)];
        let collisions = (0..64)
            .filter(|&seed| {
                let secret = secret(seed);
                home(&pair[0], &secret, HOMES) == home(&pair[1], &secret, HOMES)
            })
            .count();
        // 64 tries at one in 65,536.
        assert!(
            collisions <= 1,
            "{addresses:x} {ports:x}: {collisions} of 64"
        );
    }
}

/// How far the numbers of keys by home are from what chance would make them, in standard deviations.
fn deviation(keys: impl Iterator<Item = ConnectionKey>, secret: &Secret) -> f64 {
    const HOMES: u32 = 1024;
    let mut counts = vec![0u32; HOMES as usize];
    let mut all = 0u32;
    for key in keys {
        counts[home(&key, secret, HOMES) as usize] += 1;
        all += 1;
    }
    let expected = f64::from(all) / f64::from(HOMES);
    let chi_square: f64 = counts
        .iter()
        .map(|&count| (f64::from(count) - expected).powi(2) / expected)
        .sum();
    let freedom = f64::from(HOMES - 1);
    (chi_square - freedom) / (2.0 * freedom).sqrt()
}

#[test]
fn keys_that_resemble_each_other_spread_evenly() {
    let address = |number: u32| {
        u64::from(u32::from_be_bytes([10, 0, 0, 1])) << 32 | u64::from(number.to_be())
    };
    let v6 = |number: u32| {
        let mut remote = [0x20; 16];
        remote[12..].copy_from_slice(&number.to_be_bytes());
        ConnectionKey {
            local_address: Address::from_v6([0xfd; 16]),
            remote_address: Address::from_v6(remote),
            local_port: 443,
            remote_port: 40_000,
            protocol: Protocol::Udp,
        }
    };
    const KEYS: u32 = 1 << 15;
    for seed in 0..6 {
        let secret = secret(seed);
        let client = 0xc0a8_0000;
        let sets: [(&str, Vec<ConnectionKey>); 6] = [
            (
                "ports",
                (0..KEYS)
                    .map(|n| v4(address(client), (n + 32_768) << 16 | 443))
                    .collect(),
            ),
            (
                "even ports",
                (0..KEYS)
                    .map(|n| v4(address(client), n << 17 | 443))
                    .collect(),
            ),
            (
                "addresses",
                (0..KEYS)
                    .map(|n| v4(address(client + n), 40_000 << 16 | 443))
                    .collect(),
            ),
            (
                "networks",
                (0..KEYS)
                    .map(|n| v4(address(n << 8), 40_000 << 16 | 443))
                    .collect(),
            ),
            (
                "both",
                (0..KEYS)
                    .map(|n| v4(address(client + n), (n & 0xffff) << 16 | 443))
                    .collect(),
            ),
            ("IPv6", (0..KEYS).map(v6).collect()),
        ];
        for (what, keys) in sets {
            let deviation = deviation(keys.into_iter(), &secret);
            println!("{what}, secret {seed}: {deviation:.1}");
            // More even than chance does no harm.
            assert!(deviation < 6.0, "{what}, secret {seed}: {deviation}");
        }
    }
}
