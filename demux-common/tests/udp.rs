//! Datagrams: every row, and whoever sends the next one.

use demux_common::{
    connection::State::{self, Assured, Replied, Unreplied},
    tcp::Side,
    udp::{ANSWERED, REMOTE_SENT, Tracked, opens, step},
};

const BOTH: u8 = REMOTE_SENT | ANSWERED;

const fn row(state: State, marks: u8) -> Tracked {
    Tracked { state, marks }
}

#[test]
fn a_first_datagram_says_who_has_sent() {
    assert_eq!(opens(Side::Remote), row(Unreplied, REMOTE_SENT));
    assert_eq!(opens(Side::Local), row(Unreplied, 0));
}

#[test]
fn every_row_goes_on_as_it_should() {
    // Of whom the conversation is, the row, and after a datagram of this host and of the remote:
    // the row, and whether that proves consent.
    type Line = (bool, Tracked, (Tracked, bool), (Tracked, bool));
    const TABLE: [Line; 12] = [
        // The remote began.
        (
            false,
            row(Unreplied, REMOTE_SENT),
            (row(Replied, BOTH), false),
            (row(Unreplied, REMOTE_SENT), false),
        ),
        (
            false,
            row(Replied, BOTH),
            (row(Replied, BOTH), false),
            (row(Assured, BOTH), true),
        ),
        (
            false,
            row(Assured, BOTH),
            (row(Assured, BOTH), false),
            (row(Assured, BOTH), true),
        ),
        // Rows from the kernel's list: nothing was seen.
        (
            false,
            row(Unreplied, 0),
            (row(Unreplied, 0), false),
            (row(Unreplied, 0), false),
        ),
        (
            false,
            row(Replied, 0),
            (row(Replied, 0), false),
            (row(Replied, 0), false),
        ),
        (
            false,
            row(Assured, 0),
            (row(Assured, 0), false),
            (row(Assured, 0), false),
        ),
        // This host began.
        (
            true,
            row(Unreplied, 0),
            (row(Unreplied, 0), false),
            (row(Replied, REMOTE_SENT), true),
        ),
        (
            true,
            row(Replied, REMOTE_SENT),
            (row(Replied, BOTH), false),
            (row(Replied, REMOTE_SENT), true),
        ),
        (
            true,
            row(Replied, BOTH),
            (row(Replied, BOTH), false),
            (row(Assured, BOTH), true),
        ),
        (
            true,
            row(Assured, BOTH),
            (row(Assured, BOTH), false),
            (row(Assured, BOTH), true),
        ),
        (
            true,
            row(Replied, 0),
            (row(Replied, 0), false),
            (row(Replied, REMOTE_SENT), true),
        ),
        (
            true,
            row(Assured, 0),
            (row(Assured, 0), false),
            (row(Assured, REMOTE_SENT), true),
        ),
    ];
    for (opened_here, before, local, remote) in TABLE {
        assert_eq!(
            step(before, Side::Local, opened_here),
            local,
            "{before:?} {opened_here}"
        );
        assert_eq!(
            step(before, Side::Remote, opened_here),
            remote,
            "{before:?} {opened_here}"
        );
    }
}

#[test]
fn however_much_the_remote_sends_it_proves_nothing_without_an_answer() {
    let mut now = opens(Side::Remote);
    for _ in 0..100 {
        let (next, is_consent) = step(now, Side::Remote, false);
        assert_eq!((next, is_consent), (now, false));
        now = next;
    }
    let (answered, is_consent) = step(now, Side::Local, false);
    assert_eq!((answered.state, is_consent), (Replied, false));
    let (assured, is_consent) = step(answered, Side::Remote, false);
    assert_eq!((assured.state, is_consent), (Assured, true));
}
