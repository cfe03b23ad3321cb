//! What sets of control bits ask for.

use demux_common::tcp::{Flags, Kind, is_plain};

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
fn a_plain_segment_carries_an_acknowledgement_and_nothing_else_that_matters() {
    for bits in 0..64 {
        let expected = [0x10, 0x18, 0x30, 0x38].contains(&bits);
        assert_eq!(is_plain(Flags(bits)), expected, "{bits:#04x}");
    }
}
