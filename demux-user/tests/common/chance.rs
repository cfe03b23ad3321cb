//! Chance that can be repeated.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "test programs include it, and use a part of it"
)]

use std::{env, time::SystemTime};

/// The environment variable that repeats a run.
const SEED: &str = "DEMUX_TEST_SEED";

/// The environment variable that asks for fewer cases.
const CASES: &str = "DEMUX_TEST_CASES";

/// `most` cases, or as many as the environment allows.
pub fn cases(most: usize) -> usize {
    env::var(CASES).map_or(most, |text| {
        let fewer: usize = text.parse().expect("a number of cases");
        most.min(fewer)
    })
}

/// SplitMix64: small, and good enough for this.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Seeded by the environment, or by the clock; says which.
    pub fn new() -> Self {
        let seed = env::var(SEED).map_or_else(
            |_| {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                now.expect("a time after 1970").as_nanos() as u64
            },
            |text| text.parse().expect("a number as seed"),
        );
        println!("to repeat this: {SEED}={seed}");
        Self(seed)
    }

    /// Another one that goes its own way.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}
