//! When a row is absent, on a clock that may wrap.

use demux_common::{
    clock::Clock,
    config::{Interface, Mode, Policy, Reply},
    connection::{Connection, State, Timeouts, is_past, since},
    table::Flags,
    tcp::Half,
};

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of a tick where the kernel has 1000, 300, 250 and 100 of them in a second.
const TICKS: [u32; 4] = [1_000_000, 3_333_333, 4_000_000, 10_000_000];

/// What the tick counter shows at boot: its 32-bit half wraps five minutes later (include/linux/jiffies.h).
const fn initial_ticks(tick_ns: u32) -> u64 {
    (u32::MAX - (300 * SECOND / tick_ns as u64) as u32 + 1) as u64
}

#[test]
fn a_row_is_absent_from_the_moment_at_which_it_expires() {
    for tick_ns in TICKS {
        let lifetimes = Clock::new(0, tick_ns).lifetimes(&Timeouts::default());
        for &state in State::ALL {
            // Also where the moment lies behind the end of the clock.
            for last_seen in [0, 80, u32::MAX, u32::MAX - 20, 1 << 31] {
                let row = row(state, last_seen);
                let expires = last_seen.wrapping_add(lifetimes[state as usize]);
                for (now, absent) in [
                    (last_seen, false),
                    (last_seen.wrapping_add(1), false),
                    (expires.wrapping_sub(1), false),
                    (expires, true),
                    (expires.wrapping_add(1), true),
                    (expires.wrapping_add(86_400 * 16), true),
                ] {
                    assert_eq!(
                        row.is_expired(&lifetimes, now),
                        absent,
                        "{state:?} at {now}"
                    );
                }
                // Another CPU has touched the row since the clock was read.
                assert_eq!(row.idle(last_seen.wrapping_sub(1)), 0);
                assert!(!row.is_expired(&lifetimes, last_seen.wrapping_sub(1)));
            }
        }
    }
}

#[test]
fn a_row_lives_no_shorter_than_its_seconds_and_less_than_a_unit_longer() {
    for tick_ns in TICKS {
        let clock = Clock::new(0, tick_ns);
        for seconds in [1, 2, 7, 30, 60, 120, 8000, 1_000_000] {
            let mut timeouts = Timeouts::default();
            *timeouts.of_mut(State::Replied) = seconds;
            let units = u64::from(clock.lifetimes(&timeouts)[State::Replied as usize]);
            let asked = u64::from(seconds) * SECOND;
            assert!(units * clock.unit_ns() >= asked);
            assert!((units - 1) * clock.unit_ns() < asked);
        }
    }
}

#[test]
fn a_timeout_of_zero_makes_a_row_absent_after_one_unit() {
    let mut timeouts = Timeouts::default();
    *timeouts.of_mut(State::Established) = 0;
    let lifetimes = Clock::new(0, TICKS[0]).lifetimes(&timeouts);
    assert!(!row(State::Established, 7).is_expired(&lifetimes, 7));
    assert!(row(State::Established, 7).is_expired(&lifetimes, 8));
}

#[test]
fn the_longest_timeout_is_longer_than_two_years_and_does_not_wrap() {
    let mut timeouts = Timeouts::default();
    *timeouts.of_mut(State::Established) = u32::MAX;
    for tick_ns in TICKS {
        let clock = Clock::new(0, tick_ns);
        let lifetimes = clock.lifetimes(&timeouts);
        for last_seen in [0, u32::MAX] {
            let row = row(State::Established, last_seen);
            let years = (2 * 365 * 86_400 * SECOND / clock.unit_ns()) as u32;
            assert!(!row.is_expired(&lifetimes, last_seen.wrapping_add(years)));
            assert!(row.is_expired(&lifetimes, last_seen.wrapping_add(i32::MAX as u32)));
        }
    }
}

#[test]
fn a_unit_is_close_to_64_milliseconds() {
    for tick_ns in TICKS {
        let clock = Clock::new(0, tick_ns);
        assert!((1 << 25..=1 << 26).contains(&clock.unit_ns()), "{clock:?}");
        assert_eq!(clock.unit_ns(), u64::from(tick_ns) << clock.shift);
    }
}

#[test]
fn the_tick_counter_and_the_monotonic_clock_tell_the_same_time() {
    for tick_ns in TICKS {
        let boot = initial_ticks(tick_ns);
        let clock = Clock::new(boot, tick_ns);
        let tick = u64::from(tick_ns);
        for passed in [0, 1, 15, 16, 17, 75_000, 1 << 32, 1 << 40] {
            let time = clock.at_ticks(boot + passed);
            assert_eq!(clock.at(passed * tick), time);
            assert_eq!(clock.at(passed * tick + tick - 1), time);
        }
        // The 32-bit half of the counter wraps five minutes after boot, which is nothing here.
        let passed = since(clock.at(299 * SECOND), clock.at(301 * SECOND));
        assert!((2 * SECOND / clock.unit_ns()).abs_diff(u64::from(passed)) <= 1);
    }
}

#[test]
fn time_goes_on_where_the_units_wrap() {
    for tick_ns in TICKS {
        let shift = Clock::new(0, tick_ns).shift;
        // Ten units before they wrap.
        let clock = Clock::new((1 << (32 + shift)) - (10 << shift), tick_ns);
        let unit = clock.unit_ns();
        for units in 0..20 {
            let time = clock.at(units * unit);
            assert_eq!(time, (u32::MAX - 9).wrapping_add(units as u32));
            assert_eq!(since(clock.at(0), time), units as u32);
        }
        let lifetimes = clock.lifetimes(&Timeouts::default());
        let row = row(State::Unreplied, clock.at(0));
        assert!(!row.is_expired(&lifetimes, clock.at(29 * SECOND)));
        assert!(row.is_expired(&lifetimes, clock.at(30 * SECOND + unit)));
    }
}

#[test]
fn a_clock_that_was_never_set_harms_nobody() {
    let clock = Clock {
        ticks_at_zero: 0,
        tick_ns: 0,
        shift: 0,
    };
    let _ = (clock.at(7), clock.lifetimes(&Timeouts::default()));
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
        (State::CloseWait, 8000),
        (State::Listen, 60),
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
        egress: 0,
        reply: Reply::Transmit,
        reserved: [0; 2],
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

fn row(state: State, last_seen: u32) -> Connection {
    Connection {
        rx_packets: 1,
        rx_bytes: 60,
        tx_packets: 0,
        tx_bytes: 0,
        created: last_seen,
        last_seen,
        remote: Half::UNKNOWN,
        local: Half::UNKNOWN,
        epoch: 1,
        binding: 0,
        state,
        flags: Flags(0),
    }
}
