//! The TCP state machine, seen from the segments that arrive.

use demux_common::{
    connection::State,
    tcp::{Flags, Kind, Step, opens, step},
};

/// What the remote sends next.
const NEXT: u32 = 1000;

#[test]
fn the_kinds_of_all_sixty_four_sets_of_flags_are_those_of_the_kernels_table() {
    const VALID: [(u32, Kind); 14] = [
        (0x02, Kind::Syn),
        (0x22, Kind::Syn),
        (0x0a, Kind::Syn),
        (0x2a, Kind::Syn),
        (0x12, Kind::SynAck),
        (0x1a, Kind::SynAck),
        (0x04, Kind::Reset),
        (0x14, Kind::Reset),
        (0x0c, Kind::Reset),
        (0x1c, Kind::Reset),
        (0x11, Kind::Fin),
        (0x31, Kind::Fin),
        (0x19, Kind::Fin),
        (0x39, Kind::Fin),
    ];
    const ACKNOWLEDGEMENTS: [u32; 4] = [0x10, 0x18, 0x30, 0x38];
    for bits in 0..64 {
        let expected = if ACKNOWLEDGEMENTS.contains(&bits) {
            Some(Kind::Ack)
        } else {
            let mut valid = VALID.into_iter();
            valid
                .find(|(other, _)| *other == bits)
                .map(|(_, kind)| kind)
        };
        assert_eq!(Flags(bits).kind(), expected, "{bits:#04x}");
        // ECE and CWR belong to congestion control and say nothing here.
        assert_eq!(Flags(bits | 0xc0).kind(), expected, "{bits:#04x}");
    }
}

#[test]
fn syn_and_fin_take_a_sequence_number_each() {
    for (flags, space) in [
        (0, 0),
        (Flags::SYN, 1),
        (Flags::FIN, 1),
        (0x3f, 2),
        (0x3c, 0),
    ] {
        assert_eq!(Flags(flags).sequence_space(), space);
    }
}

#[test]
fn a_first_segment_opens_a_row_unless_it_is_a_reset() {
    assert_eq!(opens(Kind::Syn, 9, 1), Some((State::SynReceived, 10)));
    assert_eq!(opens(Kind::SynAck, 9, 1), Some((State::Established, 10)));
    assert_eq!(opens(Kind::Ack, 9, 0), Some((State::Established, 9)));
    assert_eq!(opens(Kind::Fin, 9, 4), Some((State::CloseWait, 13)));
    assert_eq!(opens(Kind::Reset, 9, 0), None);
    assert_eq!(opens(Kind::Syn, u32::MAX, 1), Some((State::SynReceived, 0)));
}

#[test]
fn an_acknowledgement_ends_the_handshake_and_else_changes_no_state() {
    for &state in State::ALL {
        let after = match state {
            State::SynReceived => State::Established,
            other => other,
        };
        assert_eq!(
            step(state, NEXT, Kind::Ack, NEXT, 0),
            Step::Goes(after, NEXT)
        );
    }
}

#[test]
fn a_finish_means_that_the_remote_has_closed() {
    for &state in State::ALL {
        let finished = step(state, NEXT, Kind::Fin, NEXT, 1);
        assert_eq!(finished, Step::Goes(State::CloseWait, NEXT + 1));
    }
}

#[test]
fn what_is_expected_next_only_moves_forward() {
    for (sequence, length, next) in [
        (NEXT, 10, NEXT + 10),
        (NEXT - 10, 10, NEXT),
        (NEXT - 100, 10, NEXT),
        (NEXT + 100, 10, NEXT + 110),
        (NEXT - 5, 10, NEXT + 5),
    ] {
        let went = step(State::Established, NEXT, Kind::Ack, sequence, length);
        assert_eq!(went, Step::Goes(State::Established, next));
    }
    // Across the end of the sequence numbers.
    let went = step(
        State::Established,
        u32::MAX - 4,
        Kind::Ack,
        u32::MAX - 4,
        10,
    );
    assert_eq!(went, Step::Goes(State::Established, 5));
    let went = step(State::Established, 5, Kind::Ack, u32::MAX - 4, 10);
    assert_eq!(went, Step::Goes(State::Established, 5));
    let went = step(State::Established, 5, Kind::Ack, u32::MAX - 40, 10);
    assert_eq!(went, Step::Goes(State::Established, 5));
}

#[test]
fn a_reset_ends_the_row_where_its_number_could_be_genuine() {
    for &state in State::ALL {
        for next in [NEXT, 0, u32::MAX, 1 << 31] {
            for (distance, ends) in [
                (0, true),
                (1, true),
                (65_535, true),
                (65_536, false),
                (u32::MAX, false),
                (1 << 31, false),
            ] {
                let expected = if ends { Step::Ends } else { Step::Ignored };
                let sequence = next.wrapping_add(distance);
                assert_eq!(step(state, next, Kind::Reset, sequence, 0), expected);
            }
        }
    }
}

#[test]
fn a_syn_opens_anew_where_its_number_is_after_all_that_was() {
    for &state in State::ALL {
        for (sequence, after) in [(NEXT, true), (NEXT + (1 << 30), true), (NEXT - 2, false)] {
            let expected = if after && state != State::Established {
                Step::Reopened
            } else {
                Step::Ignored
            };
            assert_eq!(
                step(state, NEXT, Kind::Syn, sequence, 1),
                expected,
                "{state:?}"
            );
        }
        // The one that opened the connection, sent again.
        let expected = if state == State::SynReceived {
            Step::Goes(state, NEXT)
        } else {
            Step::Ignored
        };
        assert_eq!(
            step(state, NEXT, Kind::Syn, NEXT - 1, 1),
            expected,
            "{state:?}"
        );
    }
}

#[test]
fn the_answer_to_our_own_syn_changes_no_state() {
    for &state in State::ALL {
        let went = step(state, NEXT, Kind::SynAck, NEXT, 1);
        assert_eq!(went, Step::Goes(state, NEXT + 1));
    }
}
