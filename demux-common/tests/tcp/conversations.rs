//! Whole conversations, segment by segment, with the state that this host is in after each.

use demux_common::{
    connection::State::{self, *},
    tcp::{Half, Marks, Side, Visibility},
};

use super::common::{Observer, Segment, row};

const KNOWN: u8 = Marks::LOCAL_SEEN | Marks::REMOTE_SEEN;

/// Where the numbers of both sides begin: the ordinary, and those that wrap in the middle.
const INITIAL: [(u32, u32); 5] = [
    (1000, 5000),
    (u32::MAX, u32::MAX),
    (u32::MAX - 1, 0x7fff_fffe),
    (0x7fff_ffff, u32::MAX - 100),
    (u32::MAX - 101, 0),
];

/// One line of a script: `<` arrives, `>` leaves; flags, sequence and acknowledgement relative to
/// the initial numbers of their owners, bytes of data; and the state afterwards, `None` for no row.
type Line = (char, &'static str, u32, u32, u32, Option<State>);

fn play(observer: &mut Observer, script: &[Line], (local, remote): (u32, u32)) {
    for (at, &(direction, flags, sequence, acknowledgement, length, state)) in
        script.iter().enumerate()
    {
        let (side, own, other) = match direction {
            '<' => (Side::Remote, remote, local),
            _ => (Side::Local, local, remote),
        };
        let acknowledgement = if flags.contains('A') {
            other.wrapping_add(acknowledgement)
        } else {
            0
        };
        let segment = Segment::new(flags, own.wrapping_add(sequence), acknowledgement, length);
        observer.sees(side, segment);
        assert_eq!(
            observer.state(),
            state,
            "line {at}, {:?}, from {local:#x} and {remote:#x}: {:x?}",
            script[at],
            observer.row
        );
    }
}

fn plays(script: &[Line]) {
    for initial in INITIAL {
        play(&mut Observer::new(), script, initial);
    }
}

const PASSIVE: [Line; 3] = [
    ('<', "S", 0, 0, 0, Some(Listen)),
    ('>', "SA", 0, 1, 0, Some(SynReceived)),
    ('<', "A", 1, 1, 0, Some(Established)),
];

const ACTIVE: [Line; 3] = [
    ('>', "S", 0, 0, 0, Some(SynSent)),
    ('<', "SA", 0, 1, 0, Some(Established)),
    ('>', "A", 1, 1, 0, Some(Established)),
];

/// Plays what follows a handshake.
fn plays_after(handshake: &[Line], script: &[Line]) {
    plays(&[handshake, script].concat());
}

#[test]
fn the_remote_opens_and_closes() {
    plays_after(
        &PASSIVE,
        &[
            ('<', "A", 1, 1, 100, Some(Established)),
            ('>', "A", 1, 101, 500, Some(Established)),
            ('<', "FA", 101, 501, 0, Some(Established)),
            ('>', "A", 501, 102, 0, Some(CloseWait)),
            ('>', "FA", 501, 102, 0, Some(LastAck)),
            ('<', "A", 102, 502, 0, None),
        ],
    );
}

#[test]
fn this_host_opens_and_closes() {
    plays_after(
        &ACTIVE,
        &[
            ('>', "A", 1, 1, 100, Some(Established)),
            ('<', "A", 1, 101, 500, Some(Established)),
            ('>', "FA", 101, 501, 0, Some(FinWait1)),
            ('<', "A", 501, 102, 0, Some(FinWait2)),
            ('<', "FA", 501, 102, 0, Some(FinWait2)),
            ('>', "A", 102, 502, 0, Some(TimeWait)),
            ('<', "FA", 501, 102, 0, Some(TimeWait)),
            ('>', "A", 102, 502, 0, Some(TimeWait)),
        ],
    );
}

#[test]
fn a_fin_rides_on_data_and_answers_a_fin() {
    plays_after(
        &PASSIVE,
        &[
            ('<', "FA", 1, 1, 100, Some(Established)),
            // At once, before anything else was acknowledged.
            ('>', "FA", 1, 102, 500, Some(LastAck)),
            ('<', "A", 102, 502, 0, None),
        ],
    );
    plays_after(
        &ACTIVE,
        &[
            ('>', "FA", 1, 1, 100, Some(FinWait1)),
            ('<', "FA", 1, 102, 0, Some(FinWait2)),
            ('>', "A", 102, 2, 0, Some(TimeWait)),
        ],
    );
}

#[test]
fn both_open_at_once() {
    plays(&[
        ('>', "S", 0, 0, 0, Some(SynSent)),
        ('<', "S", 0, 0, 0, Some(SynSent)),
        ('>', "SA", 0, 1, 0, Some(SynReceived)),
        ('<', "SA", 0, 1, 0, Some(Established)),
        ('>', "A", 1, 1, 10, Some(Established)),
    ]);
    // Older kernels answer such a SYN,ACK with a challenge ACK, and that completes it.
    plays(&[
        ('>', "S", 0, 0, 0, Some(SynSent)),
        ('<', "S", 0, 0, 0, Some(SynSent)),
        ('>', "SA", 0, 1, 0, Some(SynReceived)),
        ('>', "A", 1, 1, 0, Some(SynReceived)),
        ('<', "A", 1, 1, 0, Some(Established)),
    ]);
}

#[test]
fn both_close_at_once() {
    plays_after(
        &ACTIVE,
        &[
            ('>', "FA", 1, 1, 0, Some(FinWait1)),
            ('<', "FA", 1, 1, 0, Some(FinWait1)),
            ('>', "A", 2, 2, 0, Some(Closing)),
            ('<', "A", 2, 2, 0, Some(TimeWait)),
        ],
    );
    // The acknowledgement arrives before this host's own leaves.
    plays_after(
        &ACTIVE,
        &[
            ('>', "FA", 1, 1, 0, Some(FinWait1)),
            ('<', "FA", 1, 1, 0, Some(FinWait1)),
            ('<', "A", 2, 2, 0, Some(FinWait2)),
            ('>', "A", 2, 2, 0, Some(TimeWait)),
        ],
    );
}

#[test]
fn one_side_goes_on_after_the_others_fin() {
    plays_after(
        &PASSIVE,
        &[
            ('<', "FA", 1, 1, 0, Some(Established)),
            ('>', "A", 1, 2, 0, Some(CloseWait)),
            ('>', "A", 1, 2, 60_000, Some(CloseWait)),
            ('<', "A", 2, 60_001, 0, Some(CloseWait)),
            ('>', "FA", 60_001, 2, 100, Some(LastAck)),
            ('<', "A", 2, 60_051, 0, Some(LastAck)),
            ('<', "A", 2, 60_102, 0, None),
        ],
    );
    plays_after(
        &ACTIVE,
        &[
            ('>', "FA", 1, 1, 0, Some(FinWait1)),
            ('<', "A", 1, 2, 60_000, Some(FinWait2)),
            ('>', "A", 2, 60_001, 0, Some(FinWait2)),
            ('<', "FA", 60_001, 2, 5, Some(FinWait2)),
            ('>', "A", 2, 60_007, 0, Some(TimeWait)),
        ],
    );
}

#[test]
fn what_is_sent_again_changes_nothing() {
    plays(&[
        ('<', "S", 0, 0, 0, Some(Listen)),
        ('<', "S", 0, 0, 0, Some(Listen)),
        ('>', "SA", 0, 1, 0, Some(SynReceived)),
        ('<', "S", 0, 0, 0, Some(SynReceived)),
        ('>', "SA", 0, 1, 0, Some(SynReceived)),
        ('<', "A", 1, 1, 0, Some(Established)),
        ('>', "SA", 0, 1, 0, Some(Established)),
        ('<', "A", 1, 1, 100, Some(Established)),
        ('<', "A", 1, 1, 100, Some(Established)),
        ('>', "A", 1, 101, 0, Some(Established)),
        ('<', "FA", 101, 1, 0, Some(Established)),
        ('<', "FA", 101, 1, 0, Some(Established)),
        ('>', "A", 1, 102, 0, Some(CloseWait)),
        ('<', "FA", 101, 1, 0, Some(CloseWait)),
        ('>', "FA", 1, 102, 0, Some(LastAck)),
        ('>', "FA", 1, 102, 0, Some(LastAck)),
        ('<', "FA", 101, 1, 0, Some(LastAck)),
        ('<', "A", 102, 2, 0, None),
    ]);
}

#[test]
fn a_fin_before_a_lost_segment_counts_when_that_is_acknowledged() {
    plays_after(
        &PASSIVE,
        &[
            ('<', "FA", 101, 1, 0, Some(Established)),
            ('>', "A", 1, 1, 0, Some(Established)),
            // Only what was lost is sent again.
            ('<', "A", 1, 1, 50, Some(Established)),
            ('>', "A", 1, 51, 0, Some(Established)),
            ('<', "A", 51, 1, 50, Some(Established)),
            ('>', "A", 1, 102, 0, Some(CloseWait)),
        ],
    );
}

#[test]
fn what_follows_a_handshake_may_arrive_before_this_host_has_answered() {
    plays(&[
        ('>', "S", 0, 0, 0, Some(SynSent)),
        ('<', "SA", 0, 1, 0, Some(Established)),
        ('<', "A", 1, 1, 100, Some(Established)),
        ('<', "FA", 101, 1, 0, Some(Established)),
        ('>', "A", 1, 1, 0, Some(Established)),
        ('>', "A", 1, 102, 0, Some(CloseWait)),
    ]);
}

#[test]
fn data_rides_on_a_syn() {
    // Taken whole, and lost; sent again without the data.
    plays(&[
        ('>', "S", 0, 0, 500, Some(SynSent)),
        ('<', "SA", 0, 501, 0, Some(Established)),
        ('>', "A", 501, 1, 0, Some(Established)),
    ]);
    plays(&[
        ('>', "S", 0, 0, 500, Some(SynSent)),
        ('<', "SA", 0, 1, 0, Some(Established)),
        ('>', "A", 1, 1, 500, Some(Established)),
    ]);
    plays(&[
        ('>', "S", 0, 0, 500, Some(SynSent)),
        ('>', "S", 0, 0, 0, Some(SynSent)),
        ('<', "SA", 0, 501, 0, Some(Established)),
    ]);
    plays(&[
        ('<', "S", 0, 0, 500, Some(Listen)),
        ('>', "SA", 0, 501, 0, Some(SynReceived)),
        ('<', "A", 501, 1, 0, Some(Established)),
    ]);
    plays(&[
        ('<', "S", 0, 0, 500, Some(Listen)),
        ('>', "SA", 0, 501, 300, Some(SynReceived)),
        ('<', "A", 501, 301, 0, Some(Established)),
    ]);
    // The answer to the request leaves before the handshake is finished.
    plays(&[
        ('<', "S", 0, 0, 500, Some(Listen)),
        ('>', "SA", 0, 501, 0, Some(SynReceived)),
        ('>', "A", 1, 501, 3000, Some(Established)),
        ('>', "SA", 0, 501, 0, Some(Established)),
        ('<', "A", 501, 3001, 0, Some(Established)),
    ]);
}

#[test]
fn a_refused_attempt_ends() {
    plays(&[
        ('<', "S", 0, 0, 0, Some(Listen)),
        ('>', "RA", 0u32, 1, 0, None),
    ]);
    plays(&[
        ('>', "S", 0, 0, 0, Some(SynSent)),
        ('<', "RA", 0, 1, 0, None),
    ]);
    // One that acknowledges something else, or nothing, does not refuse this SYN.
    plays(&[
        ('>', "S", 0, 0, 0, Some(SynSent)),
        ('<', "RA", 0, 0, 0, Some(SynSent)),
        ('<', "RA", 0, 2, 0, Some(SynSent)),
        ('<', "R", 0, 0, 0, Some(SynSent)),
    ]);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_refused_and_the_handshake_goes_on() {
    plays(&[
        ('<', "S", 0, 0, 0, Some(Listen)),
        ('>', "SA", 0, 1, 0, Some(SynReceived)),
        ('<', "A", 1, 70_000, 0, Some(SynReceived)),
        ('>', "R", 70_000, 0, 0, Some(SynReceived)),
        ('<', "A", 1, 0, 0, Some(SynReceived)),
        ('>', "R", 0, 0, 0, Some(SynReceived)),
        // Outside of the window: a challenge.
        ('>', "A", 1, 1, 0, Some(SynReceived)),
        ('<', "A", 1, 1, 0, Some(Established)),
    ]);
    plays(&[
        ('>', "S", 0, 0, 0, Some(SynSent)),
        ('<', "A", 77, 70_000, 0, Some(SynSent)),
        ('>', "R", 70_000, 0, 0, Some(SynSent)),
        ('<', "SA", 0, 70_000, 0, Some(SynSent)),
        ('<', "SA", 0, 0, 0, Some(SynSent)),
        ('<', "SA", 0, 1, 0, Some(Established)),
    ]);
}

#[test]
fn a_challenge_ack_proves_nothing_and_its_answer_does() {
    plays_after(
        &ACTIVE,
        &[
            // A reset in the window, then the exact one.
            ('<', "R", 100, 0, 0, Some(Established)),
            ('>', "A", 1, 1, 0, Some(Established)),
            ('<', "R", 1, 0, 0, None),
        ],
    );
    plays_after(
        &ACTIVE,
        &[
            // The remote has started anew.
            ('<', "S", 1_000_000, 0, 0, Some(Established)),
            ('>', "A", 1, 1, 0, Some(Established)),
            ('<', "R", 1, 0, 0, None),
            ('<', "S", 1_000_000, 0, 0, Some(Listen)),
        ],
    );
}

#[test]
fn an_aborted_handshake_ends_although_its_data_was_lost() {
    plays(&[
        ('<', "S", 0, 0, 0, Some(Listen)),
        ('>', "SA", 0, 1, 0, Some(SynReceived)),
        ('<', "RA", 1461, 1, 0, None),
    ]);
    // A SYN in the window of the handshake ends it too (tcp_check_req).
    plays(&[
        ('<', "S", 0, 0, 0, Some(Listen)),
        ('>', "SA", 0, 1, 0, Some(SynReceived)),
        ('<', "S", 500, 0, 0, Some(SynReceived)),
    ]);
    let mut observer = Observer::new();
    play(&mut observer, &PASSIVE[..2], INITIAL[0]);
    observer.sees(Side::Local, Segment::new("RA", 0, 5501, 0));
    assert_eq!(observer.row, None);
}

#[test]
fn an_abort_ends_every_state() {
    for (state, marks) in synchronized() {
        let fresh = row(state, marks, (1000, 5000), (5000, 1000));
        for flags in ["R", "RA"] {
            for (side, sequence) in [(Side::Local, 1000), (Side::Remote, 5000)] {
                let mut observer = Observer::of(fresh);
                observer.sees(side, Segment::new(flags, sequence, 0, 0));
                assert_eq!(observer.row, None, "{state:?} {flags} {side:?}");
            }
        }
        // Data is on its way in both directions, and what arrived is not acknowledged yet.
        let busy = row(state, marks, (3000, 5000), (7000, 1000));
        for (side, sequence) in [
            (Side::Local, 3000),
            (Side::Local, 1000),
            (Side::Remote, 5000),
            (Side::Remote, 7000),
        ] {
            let mut observer = Observer::of(busy);
            observer.sees(side, Segment::new("R", sequence, 0, 0));
            assert_eq!(observer.row, None, "{state:?} {side:?} {sequence}");
        }
        // The refusal of a SYN shows that there is no such connection.
        let mut observer = Observer::of(busy);
        observer.sees(Side::Local, Segment::new("RA", 0, 77, 0));
        assert_eq!(observer.row, None, "{state:?}");
    }
}

#[test]
fn a_reset_with_another_number_ends_nothing() {
    for (state, marks) in synchronized() {
        let busy = row(state, marks, (3000, 5000), (7000, 1000));
        for sequence in [4998, 5001, 6000, 6999, 7001, 0, 5000 + (1 << 31)] {
            let mut observer = Observer::of(busy);
            observer.sees(Side::Remote, Segment::new("RA", sequence, 3000, 0));
            assert_eq!(observer.row, Some(busy), "{sequence}");
        }
        // The number of a FIN counts for it (tcp_reset_check).
        let takes_fin = matches!(state, CloseWait | Closing | LastAck);
        let mut observer = Observer::of(busy);
        observer.sees(Side::Remote, Segment::new("R", 4999, 0, 0));
        assert_eq!(observer.row.is_none(), takes_fin, "{state:?}");
    }
}

fn synchronized() -> [(State, u8); 7] {
    let (local, remote) = (Marks::LOCAL_FIN, Marks::REMOTE_FIN);
    [
        (Established, KNOWN),
        (FinWait1, KNOWN | local),
        (FinWait2, KNOWN | local),
        (CloseWait, KNOWN | remote),
        (Closing, KNOWN | local | remote),
        (LastAck, KNOWN | local | remote),
        (TimeWait, KNOWN | local | remote),
    ]
}

/// To TIME-WAIT, with 2 as the next number of either side.
fn waits() -> Vec<Line> {
    let mut script = ACTIVE.to_vec();
    script.extend([
        ('>', "FA", 1, 1, 0, Some(FinWait1)),
        ('<', "FA", 1, 2, 0, Some(FinWait2)),
        ('>', "A", 2, 2, 0, Some(TimeWait)),
    ]);
    script
}

#[test]
fn time_wait_is_reopened_by_a_later_number() {
    plays_after(
        &waits(),
        &[
            ('<', "S", 3, 0, 0, Some(Listen)),
            ('>', "SA", 65_539, 4, 0, Some(SynReceived)),
            ('<', "A", 4, 65_540, 0, Some(Established)),
        ],
    );
    // The very next number is not later: it may be an old duplicate.
    plays_after(&waits(), &[('<', "S", 2, 0, 0, Some(TimeWait))]);
}

#[test]
fn time_wait_is_reopened_where_this_host_accepted_by_timestamps() {
    plays_after(
        &waits(),
        &[
            ('<', "S", 0u32.wrapping_sub(9000), 0, 0, Some(TimeWait)),
            (
                '>',
                "SA",
                65_539,
                0u32.wrapping_sub(8999),
                0,
                Some(SynReceived),
            ),
            (
                '<',
                "A",
                0u32.wrapping_sub(8999),
                65_540,
                0,
                Some(Established),
            ),
        ],
    );
    // Even if the new number of this host is near the old one.
    plays_after(&waits(), &[('>', "SA", 0, 777, 0, Some(SynReceived))]);
}

#[test]
fn time_wait_is_reopened_by_this_host() {
    plays_after(
        &waits(),
        &[
            ('>', "S", 65_539, 0, 0, Some(SynSent)),
            ('<', "SA", 900_000, 65_540, 0, Some(Established)),
        ],
    );
}

#[test]
fn time_wait_answers_a_syn_that_nobody_listens_for() {
    plays_after(
        &waits(),
        &[
            ('<', "S", 500, 0, 0, Some(Listen)),
            // Of the connection before.
            ('>', "A", 2, 2, 0, Some(Listen)),
            ('<', "R", 2, 0, 0, Some(Listen)),
            ('<', "S", 500, 0, 0, Some(Listen)),
            ('>', "RA", 0, 501, 0, None),
        ],
    );
}

#[test]
fn a_connection_under_way_is_picked_up_from_either_side() {
    plays(&[
        ('<', "A", 1, 1, 100, Some(Established)),
        ('>', "A", 1, 101, 0, Some(Established)),
        ('<', "FA", 101, 1, 0, Some(Established)),
        ('>', "A", 1, 102, 0, Some(CloseWait)),
    ]);
    plays(&[
        ('>', "A", 1, 1, 100, Some(Established)),
        ('>', "FA", 101, 1, 0, Some(FinWait1)),
        ('<', "A", 1, 102, 0, Some(FinWait2)),
    ]);
    plays(&[
        ('<', "FA", 101, 1, 0, Some(Established)),
        ('>', "A", 1, 102, 0, Some(CloseWait)),
    ]);
    plays(&[
        ('>', "FA", 101, 1, 0, Some(FinWait1)),
        ('<', "FA", 1, 102, 0, Some(FinWait2)),
        ('>', "A", 102, 2, 0, Some(TimeWait)),
    ]);
    plays(&[
        ('>', "SA", 0, 1, 0, Some(SynReceived)),
        ('<', "A", 1, 1, 0, Some(Established)),
    ]);
    // An empty one of this host may be the last of what is over.
    plays(&[
        ('>', "A", 1, 1, 0, None),
        ('<', "A", 1, 1, 0, Some(Established)),
    ]);
    // A handshake of which one side was missed.
    plays(&[
        ('<', "S", 0, 0, 0, Some(Listen)),
        ('>', "A", 1, 1, 100, Some(Established)),
        ('>', "FA", 101, 1, 0, Some(FinWait1)),
        ('<', "A", 1, 102, 0, Some(FinWait2)),
    ]);
    plays(&[
        ('>', "S", 0, 0, 0, Some(SynSent)),
        ('>', "A", 1, 1, 0, Some(Established)),
        ('<', "FA", 1, 1, 0, Some(Established)),
        ('>', "A", 1, 2, 0, Some(CloseWait)),
    ]);
}

#[test]
fn a_row_from_the_kernels_list_goes_on_from_any_state() {
    let plays_from = |state, script: &[Line]| {
        for initial in INITIAL {
            play(
                &mut Observer::of(row(state, 0, (0, 0), (0, 0))),
                script,
                initial,
            );
        }
    };
    plays_from(
        Established,
        &[
            ('<', "FA", 101, 1, 0, Some(Established)),
            ('>', "A", 1, 102, 0, Some(CloseWait)),
        ],
    );
    plays_from(SynSent, &[('>', "A", 1, 1, 0, Some(Established))]);
    plays_from(SynReceived, &[('<', "A", 1, 1, 0, Some(Established))]);
    plays_from(
        FinWait1,
        &[
            ('<', "FA", 101, 51, 0, Some(FinWait1)),
            ('>', "A", 51, 102, 0, Some(TimeWait)),
        ],
    );
    plays_from(
        FinWait1,
        &[
            ('<', "FA", 101, 50, 0, Some(FinWait1)),
            ('>', "A", 51, 102, 0, Some(Closing)),
            ('<', "A", 102, 51, 0, Some(TimeWait)),
        ],
    );
    plays_from(
        FinWait2,
        &[
            ('<', "FA", 101, 51, 0, Some(FinWait2)),
            ('>', "A", 51, 102, 0, Some(TimeWait)),
        ],
    );
    plays_from(
        CloseWait,
        &[
            ('>', "FA", 50, 102, 0, Some(LastAck)),
            ('<', "A", 102, 51, 0, None),
        ],
    );
    plays_from(
        LastAck,
        &[
            ('>', "FA", 50, 102, 0, Some(LastAck)),
            ('<', "A", 102, 51, 0, None),
        ],
    );
    plays_from(
        Closing,
        &[
            ('>', "FA", 50, 102, 0, Some(Closing)),
            ('<', "A", 102, 51, 0, Some(TimeWait)),
        ],
    );
    plays_from(TimeWait, &[('<', "S", 7, 0, 0, Some(Listen))]);
    for &state in State::ALL {
        if !matches!(state, Listen | Unreplied | Replied | Assured) {
            plays_from(state, &[('<', "RA", 1, 1, 0, None)]);
            plays_from(state, &[('>', "RA", 1, 1, 0, None)]);
        }
    }
}

#[test]
fn numbers_that_moved_on_unseen_are_caught_up_with() {
    for far in [1 << 27, 1 << 30, 1 << 31, 3 << 30] {
        // Whichever side is heard first.
        plays_after(
            &PASSIVE,
            &[
                ('>', "A", far, far, 10, Some(Established)),
                ('<', "A", far, far + 10, 10, Some(Established)),
                ('<', "FA", far + 10, far + 10, 0, Some(Established)),
                ('>', "A", far + 10, far + 11, 0, Some(CloseWait)),
                ('>', "FA", far + 10, far + 11, 0, Some(LastAck)),
                ('<', "A", far + 11, far + 11, 0, None),
            ],
        );
        plays_after(
            &PASSIVE,
            &[
                ('<', "A", far, far, 10, Some(Established)),
                ('>', "A", far, far + 10, 0, Some(Established)),
                ('>', "FA", far, far + 10, 0, Some(FinWait1)),
                ('<', "FA", far + 10, far + 1, 0, Some(FinWait2)),
                ('>', "A", far + 1, far + 11, 0, Some(TimeWait)),
            ],
        );
    }
}

#[test]
fn a_forged_fin_does_not_break_what_follows() {
    // Ahead of what was sent.
    plays_after(
        &PASSIVE,
        &[
            ('<', "FA", 5000, 1, 0, Some(Established)),
            ('<', "A", 1, 1, 100, Some(Established)),
            ('>', "A", 1, 101, 0, Some(Established)),
            ('<', "FA", 101, 1, 0, Some(Established)),
            ('>', "A", 1, 102, 0, Some(CloseWait)),
        ],
    );
    // Behind it, and in the middle of it.
    plays_after(
        &PASSIVE,
        &[
            ('<', "A", 1, 1, 100, Some(Established)),
            ('>', "A", 1, 101, 0, Some(Established)),
            ('<', "FA", 10, 1, 0, Some(Established)),
            ('>', "A", 1, 101, 0, Some(Established)),
            ('<', "FA", 500, 1, 0, Some(Established)),
            ('<', "A", 101, 1, 900, Some(Established)),
            ('>', "A", 1, 1001, 0, Some(Established)),
            ('<', "FA", 1001, 1, 0, Some(Established)),
            ('>', "A", 1, 1002, 0, Some(CloseWait)),
        ],
    );
    // Nothing is behind the one that this host has taken.
    plays_after(
        &PASSIVE,
        &[
            ('<', "FA", 1, 1, 0, Some(Established)),
            ('>', "A", 1, 2, 0, Some(CloseWait)),
            ('<', "A", 50_000, 1, 0, Some(CloseWait)),
            ('<', "R", 50_000, 0, 0, Some(CloseWait)),
            ('>', "FA", 1, 2, 0, Some(LastAck)),
        ],
    );
    // Where the next acknowledgement happens to end.
    plays_after(
        &PASSIVE,
        &[
            ('<', "A", 1, 1, 200, Some(Established)),
            ('<', "FA", 100, 1, 0, Some(Established)),
            ('>', "A", 1, 101, 0, Some(CloseWait)),
            ('>', "A", 1, 201, 0, Some(Established)),
            ('<', "FA", 201, 1, 0, Some(Established)),
            ('>', "A", 1, 202, 0, Some(CloseWait)),
        ],
    );
}

#[test]
fn what_a_forgery_said_first_yields_to_this_host() {
    plays(&[
        ('<', "A", 1 << 30, 1 << 20, 0, Some(Established)),
        ('>', "A", 1, 1, 10, Some(Established)),
        ('>', "FA", 11, 1, 0, Some(FinWait1)),
        ('<', "A", 1, 12, 0, Some(FinWait2)),
    ]);
}

#[test]
fn zero_window_probes_and_keepalives_change_nothing() {
    plays_after(
        &PASSIVE,
        &[
            ('<', "A", 1, 1, 100, Some(Established)),
            ('>', "A", 1, 101, 100, Some(Established)),
            ('<', "A", 100, 101, 0, Some(Established)),
            ('<', "A", 100, 101, 1, Some(Established)),
            ('>', "A", 100, 101, 0, Some(Established)),
            ('<', "FA", 101, 101, 0, Some(Established)),
            ('>', "A", 100, 102, 0, Some(CloseWait)),
            ('<', "A", 101, 101, 0, Some(CloseWait)),
        ],
    );
}

fn ingress_only(script: &[Line]) {
    for initial in INITIAL {
        let mut observer = Observer {
            visibility: Visibility::IngressOnly,
            ..Observer::new()
        };
        play(&mut observer, script, initial);
    }
}

#[test]
fn where_only_the_remote_is_seen_its_segments_have_to_do() {
    ingress_only(&[
        ('<', "S", 0, 0, 0, Some(Listen)),
        ('<', "S", 0, 0, 0, Some(Listen)),
        ('<', "A", 7, 1, 0, Some(Listen)),
        ('<', "A", 1, 1, 0, Some(Established)),
        ('<', "A", 1, 1, 100, Some(Established)),
        ('<', "S", 900, 0, 0, Some(Established)),
        ('<', "FA", 101, 50, 0, Some(CloseWait)),
        ('<', "A", 102, 90, 0, Some(CloseWait)),
        ('<', "S", 900, 0, 0, Some(Listen)),
    ]);
    ingress_only(&[
        ('<', "SA", 0, 1, 0, Some(Established)),
        ('<', "RA", 70_000, 1, 0, Some(Established)),
        ('<', "RA", 1, 1, 0, None),
        ('<', "RA", 1, 1, 0, None),
        ('<', "FA", 1, 1, 0, Some(CloseWait)),
    ]);
    // A FIN that something follows was none; one far away is a guess.
    ingress_only(&[
        ('<', "A", 1, 1, 100, Some(Established)),
        ('<', "FA", 301, 1, 0, Some(CloseWait)),
        ('<', "A", 101, 1, 900, Some(Established)),
        ('<', "FA", 1 << 28, 1, 0, Some(Established)),
        ('<', "A", 1001, 1, 100, Some(Established)),
        ('<', "FA", 1101, 1, 0, Some(CloseWait)),
    ]);
    // Rows from the kernel's list.
    for (state, script) in [
        (SynSent, ('<', "SA", 0, 1, 0, Some(Established))),
        (SynReceived, ('<', "A", 1, 1, 0, Some(Established))),
        (FinWait1, ('<', "FA", 1, 1, 0, Some(TimeWait))),
        (FinWait2, ('<', "FA", 1, 1, 0, Some(TimeWait))),
        (TimeWait, ('<', "FA", 1, 1, 0, Some(TimeWait))),
        (LastAck, ('<', "FA", 1, 1, 0, Some(LastAck))),
    ] {
        let mut observer = Observer {
            row: Some(row(state, 0, (0, 0), (0, 0))),
            visibility: Visibility::IngressOnly,
            ..Observer::new()
        };
        play(&mut observer, &[script], INITIAL[0]);
    }
}

#[test]
fn only_this_hosts_consent_confirms() {
    let confirmed = |script: &[Line]| {
        let mut observer = Observer::new();
        play(&mut observer, script, INITIAL[0]);
        observer.is_confirmed
    };
    assert!(!confirmed(&PASSIVE[..2]));
    assert!(confirmed(&PASSIVE));
    assert!(!confirmed(&ACTIVE[..1]));
    assert!(confirmed(&ACTIVE[..2]));
    assert!(!confirmed(&[
        ('<', "A", 1, 1, 100, Some(Established)),
        ('<', "A", 101, 1, 100, Some(Established)),
    ]));
    assert!(confirmed(&[
        ('<', "A", 1, 1, 100, Some(Established)),
        ('>', "A", 1, 101, 0, Some(Established)),
    ]));
}

#[test]
fn a_half_is_one_word() {
    let half = Half {
        next: 0x0102_0304,
        ack: 0xf1f2_f3f4,
    };
    assert_eq!(half.word(), 0xf1f2_f3f4_0102_0304);
    assert_eq!(Half::from_word(half.word()), half);
}
