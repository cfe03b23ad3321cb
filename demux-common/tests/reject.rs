//! The budget of refusals and the Internet checksum, beside what they are meant to be.

use demux_common::reject::{BURST, Budget, RATE, checksum::fold};
use proptest::prelude::*;

/// Nanoseconds of a tick at 100, 250, 300 and 1,000 ticks a second.
const TICKS: [u32; 4] = [10_000_000, 4_000_000, 3_333_333, 1_000_000];

/// Some time after the machine was started: the counter begins five minutes before it wraps.
const NOW: u64 = 4_294_900_000;

/// How many refusals are sent at a tick, of as many as are asked for.
fn send(budget: &mut Budget, ticks: u64, tick_ns: u32, asked: u64) -> u64 {
    *budget = budget.filled(ticks, tick_ns);
    for sent in 0..asked {
        match budget.spent() {
            Some(rest) => *budget = rest,
            None => return sent,
        }
    }
    asked
}

#[test]
fn a_new_budget_is_a_burst() {
    for tick_ns in TICKS {
        let mut budget = Budget::default();
        assert_eq!(send(&mut budget, NOW, tick_ns, 10 * BURST), BURST);
        assert_eq!(send(&mut budget, NOW, tick_ns, 1), 0);
    }
}

#[test]
fn after_the_burst_there_are_as_many_as_the_rate_says() {
    for tick_ns in TICKS {
        let mut budget = Budget::default();
        send(&mut budget, NOW, tick_ns, BURST);
        let seconds = 10;
        let ticks = seconds * 1_000_000_000 / u64::from(tick_ns);
        let sent: u64 = (1..=ticks)
            .map(|tick| send(&mut budget, NOW + tick, tick_ns, BURST))
            .sum();
        // Nothing is lost between ticks but the part of a tick that is not over.
        assert!(
            (seconds * RATE - 1..=seconds * RATE).contains(&sent),
            "{sent}"
        );
    }
}

proptest! {
    #[test]
    fn no_time_sends_more_than_the_rate_and_one_burst(
        steps in prop::collection::vec((0_u64..5000, 0_u64..3000), 1..100),
        tick in 0_usize..4,
    ) {
        let tick_ns = TICKS[tick];
        let (mut budget, mut now, mut sent) = (Budget::default(), NOW, 0);
        for (pause, asked) in steps {
            now += pause;
            sent += send(&mut budget, now, tick_ns, asked);
            let credit = (now - NOW) * u64::from(tick_ns) * RATE / 1_000_000_000;
            prop_assert!(sent <= credit + BURST);
        }
    }

    #[test]
    fn any_budget_and_any_time_are_borne(filled_at: u64, left: u64, ticks: u64, tick_ns: u32) {
        let budget = Budget { filled_at, left }.filled(ticks, tick_ns);
        prop_assert_eq!(budget.filled_at, ticks);
        let mut rest = budget;
        prop_assert!(send(&mut rest, ticks, tick_ns, 2 * BURST) <= BURST);
    }

    #[test]
    fn a_sum_is_folded_as_often_as_it_takes(sum: u64) {
        let mut naive = u128::from(sum);
        while naive > 0xffff {
            naive = (naive & 0xffff) + (naive >> 16);
        }
        prop_assert_eq!(u128::from(fold(sum)), naive);
    }
}

#[test]
fn the_example_of_rfc_1071_adds_up() {
    let words: [u16; 4] = [0x0001, 0xf203, 0xf4f5, 0xf6f7];
    let sum = words.iter().map(|word| u64::from(*word)).sum();
    assert_eq!(fold(sum), 0xddf2);
    assert_eq!(
        (fold(0), fold(0xffff), fold(0x1_0000), fold(u64::MAX)),
        (0, 0xffff, 1, 0xffff)
    );
}
