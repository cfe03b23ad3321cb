//! When a row is absent, on a clock that may wrap.

use demux_common::{
    config::{Interface, Mode, Policy},
    connection::{Connection, State, Timeouts, is_past},
};
use zerocopy::TryFromBytes as _;

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_row_is_absent_from_the_moment_at_which_it_expires() {
    let timeouts = Timeouts::default();
    for &state in State::ALL {
        // Also where the moment lies behind the end of the clock.
        for last_seen in [0, 5 * SECOND, u64::MAX, u64::MAX - SECOND, 1 << 63] {
            let row = row(state, last_seen);
            let expires = last_seen.wrapping_add(u64::from(timeouts.of(state)) * SECOND);
            assert_eq!(row.expires(&timeouts), expires);
            assert_eq!(timeouts.expiry(state, last_seen), expires);
            for (now, absent) in [
                (last_seen, false),
                (last_seen.wrapping_add(1), false),
                (expires.wrapping_sub(1), false),
                (expires, true),
                (expires.wrapping_add(1), true),
                (expires.wrapping_add(86_400 * SECOND), true),
            ] {
                assert_eq!(row.is_expired(&timeouts, now), absent, "{state:?} at {now}");
            }
        }
    }
}

#[test]
fn a_timeout_of_zero_makes_a_row_absent_at_once() {
    let mut timeouts = Timeouts::default();
    *timeouts.of_mut(State::Established) = 0;
    assert!(row(State::Established, 7).is_expired(&timeouts, 7));
}

#[test]
fn the_longest_timeout_is_longer_than_a_century_and_does_not_wrap() {
    let mut timeouts = Timeouts::default();
    *timeouts.of_mut(State::Established) = u32::MAX;
    let row = row(State::Established, 0);
    assert!(!row.is_expired(&timeouts, 100 * 365 * 86_400 * SECOND));
    assert!(row.is_expired(&timeouts, u64::from(u32::MAX) * SECOND));
}

#[test]
fn a_moment_has_come_when_the_clock_has_reached_it() {
    assert!(is_past(7, 7));
    assert!(is_past(7, 8));
    assert!(!is_past(8, 7));
    assert!(!is_past(3, u64::MAX));
    assert!(is_past(u64::MAX, 3));
}

#[test]
fn every_state_has_the_timeout_that_is_set_for_it() {
    let mut timeouts = Timeouts::default();
    for (seconds, &state) in (1..).zip(State::ALL) {
        *timeouts.of_mut(state) = seconds;
    }
    for (seconds, &state) in (1..).zip(State::ALL) {
        assert_eq!(timeouts.of(state), seconds);
    }
}

#[test]
fn the_timeouts_are_those_of_the_kernel_where_nothing_else_is_set() {
    let timeouts = Timeouts::default();
    for (state, seconds) in [
        (State::SynReceived, 60),
        (State::Established, 8000),
        (State::FinWait1, 8000),
        (State::FinWait2, 60),
        (State::TimeWait, 60),
        (State::Unreplied, 30),
        (State::Assured, 120),
    ] {
        assert_eq!(timeouts.of(state), seconds, "{}", state.name());
    }
}

#[test]
fn the_number_of_a_state_leads_back_to_it() {
    for &state in State::ALL {
        assert_eq!(State::from_number(state as u8), state);
    }
    // What no state has is read as one all the same.
    for number in 0..=u8::MAX {
        let _ = State::from_number(number);
    }
}

#[test]
fn probation_ends_at_its_moment_and_a_confirmed_default_has_none() {
    let mut interface = Interface {
        probation_ends: 0,
        ifindex: 1,
        station: [0; 6],
        default: Policy::Drop,
        mode: Mode::Native,
        reserved: [0; 4],
    };
    assert!(!interface.is_probation_over(u64::MAX));
    interface.probation_ends = 100;
    assert!(!interface.is_probation_over(99));
    assert!(interface.is_probation_over(100));
    // The clock has wrapped since.
    interface.probation_ends = u64::MAX;
    assert!(!interface.is_probation_over(u64::MAX - 5));
    assert!(interface.is_probation_over(3));
}

fn row(state: State, last_seen: u64) -> Connection {
    let empty = [0; size_of::<Connection>()];
    Connection {
        last_seen,
        state,
        ..Connection::try_read_from_bytes(&empty).expect("a row")
    }
}
