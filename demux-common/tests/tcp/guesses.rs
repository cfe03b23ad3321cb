//! Guesses: what somebody who sees nothing of a connection may send, and any segments at all.

use demux_common::{
    connection::State,
    tcp::{Flags, Half, Marks, Side, Tracked, Visibility},
};
use proptest::prelude::*;

use super::common::{Observer, Random, Segment, cases, row, shortcut_agrees};

const KNOWN: u8 = Marks::LOCAL_SEEN | Marks::REMOTE_SEEN;

/// Rows of each state with all that is known of them, at random numbers.
fn rows(random: &mut Random) -> Vec<Tracked> {
    let (local, remote) = (random.number(), random.number());
    let (lf, rf) = (Marks::LOCAL_FIN, Marks::REMOTE_FIN);
    let syn = (local, remote.wrapping_add(1));
    let at = |state, marks| row(state, KNOWN | marks, (local, remote), (remote, local));
    vec![
        row(State::Listen, Marks::REMOTE_SEEN, (0, 0), (remote, 0)),
        row(
            State::SynSent,
            Marks::LOCAL_SEEN,
            (local, 0),
            (0, local.wrapping_sub(1)),
        ),
        row(
            State::SynReceived,
            KNOWN,
            syn,
            (syn.1, local.wrapping_sub(1)),
        ),
        at(State::Established, 0),
        at(State::FinWait1, lf),
        at(State::FinWait2, lf),
        at(State::CloseWait, rf),
        at(State::Closing, lf | rf),
        at(State::LastAck, lf | rf),
    ]
    .into_iter()
    .map(|mut row| {
        // What these states mean: this host's FIN is not acknowledged.
        if matches!(row.state, State::FinWait1 | State::Closing | State::LastAck) {
            row.remote.ack = row.remote.ack.wrapping_sub(1);
        }
        row
    })
    .collect()
}

#[test]
fn a_guess_ends_and_advances_nothing() {
    let mut random = Random::new();
    let rounds = cases(20_000);
    let mut changed = Vec::new();
    for _ in 0..rounds {
        for before in rows(&mut random) {
            for flags in ["S", "SA", "A", "FA", "R", "RA"] {
                // Another SYN replaces one that nobody has answered, and one crosses ours.
                if flags == "S" && matches!(before.state, State::Listen | State::SynSent) {
                    continue;
                }
                let length = if flags == "A" {
                    random.pick(&[0, 1, 1400])
                } else {
                    0
                };
                let segment = Segment::new(flags, random.number(), random.number(), length);
                let mut observer = Observer::of(before);
                observer.sees(Side::Remote, segment);
                if observer.state() != Some(before.state) {
                    changed.push((before, segment, observer.row));
                }
            }
        }
    }
    // A reset of a handshake is believed in a window of 2^16, two to a round; everything else needs
    // an exact number.
    let (handshake, other): (Vec<_>, Vec<_>) = changed
        .into_iter()
        .partition(|(row, ..)| row.state == State::SynReceived);
    assert!(handshake.len() <= 12 + rounds / 8192, "{handshake:x?}");
    assert!(other.len() <= 1, "{other:x?}");
}

#[test]
fn after_a_thousand_guesses_the_connection_still_closes_as_it_should() {
    let mut random = Random::new();
    for _ in 0..cases(500) {
        let (local, remote) = (random.number(), random.number());
        let fresh = row(State::Established, KNOWN, (local, remote), (remote, local));
        let mut observer = Observer::of(fresh);
        for _ in 0..1000 {
            let flags = random.pick(&["S", "SA", "A", "FA"]);
            // Some are lucky with both numbers.
            let near = |random: &mut Random, number: u32| {
                if random.one_in(4) {
                    number.wrapping_sub(random.number() % (1 << 25))
                } else {
                    random.number()
                }
            };
            let sequence = near(&mut random, remote.wrapping_add(1 << 24));
            let acknowledgement = near(&mut random, local);
            observer.sees(
                Side::Remote,
                Segment::new(flags, sequence, acknowledgement, 0),
            );
            if observer.state() != Some(State::Established) {
                // An exact hit: the kernel takes it too.
                observer = Observer::of(fresh);
            }
        }
        let next = remote.wrapping_add(10);
        for (side, segment, state) in [
            (
                Side::Remote,
                Segment::new("A", remote, local, 10),
                State::Established,
            ),
            (
                Side::Local,
                Segment::new("A", local, next, 0),
                State::Established,
            ),
            (
                Side::Remote,
                Segment::new("FA", next, local, 0),
                State::Established,
            ),
            (
                Side::Local,
                Segment::new("A", local, next.wrapping_add(1), 0),
                State::CloseWait,
            ),
        ] {
            observer.sees(side, segment);
            assert_eq!(observer.state(), Some(state), "{:x?}", observer.row);
        }
    }
}

fn half() -> impl Strategy<Value = Half> {
    (number(), number()).prop_map(|(next, ack)| Half { next, ack })
}

/// Numbers near each other, near the end, near the middle, and any.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        (0u32..3000).prop_map(|near| near.wrapping_sub(1500)),
        (0u32..1 << 28).prop_map(|near| near.wrapping_sub(1 << 27)),
        (0u32..3000).prop_map(|near| near.wrapping_sub(1500).wrapping_add(1 << 31)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(100_000) as u32, ..ProptestConfig::default() })]

    #[test]
    fn the_shortcut_of_plain_segments_is_what_the_machine_does(
        local in half(),
        remote in half(),
        marks in 0u8..16,
        is_local: bool,
        is_ingress_only: bool,
        (sequence, acknowledgement, length) in (number(), number(), 0u32..70_000),
    ) {
        let row = Tracked { state: State::Established, marks: Marks(marks), local, remote };
        let segment = Segment { flags: Flags::ACK, sequence, acknowledgement, length };
        let (side, visibility) = match (is_local, is_ingress_only) {
            (true, _) => (Side::Local, Visibility::Both),
            (false, true) => (Side::Remote, Visibility::IngressOnly),
            (false, false) => (Side::Remote, Visibility::Both),
        };
        shortcut_agrees(row, side, segment, visibility);
    }
}
