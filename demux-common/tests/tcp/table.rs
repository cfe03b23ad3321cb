//! Every cell of the table of the kernel's nf_conntrack (`tcp_conntracks` in
//! nf_conntrack_proto_tcp.c), beside what this machine does, and why where they differ.

use std::fmt::Write as _;

use demux_common::{
    connection::State,
    tcp::{Marks, Side, Tracked},
};

use super::common::{Observer, Segment, row};

const BOTH: u8 = Marks::LOCAL_SEEN | Marks::REMOTE_SEEN;

/// The columns: no row, SYN-SENT, SYN-RECV, ESTABLISHED, FIN-WAIT, CLOSE-WAIT, LAST-ACK, TIME-WAIT,
/// CLOSE, and SYN-SENT2 of a simultaneous open.
const STATES: [&str; 10] = ["NO", "SS", "SR", "ES", "FW", "CW", "LA", "TW", "CL", "S2"];

/// The rows: who sends what. O is who opened the connection, R the other; iv leaves the state
/// because the segment is invalid, ig because it is ignored.
const CONNTRACK: [(&str, &str); 12] = [
    ("O syn", "SS SS ig ig ig ig ig SS SS S2"),
    ("O syn+ack", "iv iv SR iv iv iv iv iv iv SR"),
    ("O fin", "iv iv FW FW LA LA LA TW CL iv"),
    ("O ack", "ES iv ES ES CW CW TW TW CL iv"),
    ("O rst", "iv CL CL CL CL CL CL CL CL CL"),
    ("O none", "iv iv iv iv iv iv iv iv iv iv"),
    ("R syn", "iv S2 iv iv iv iv iv SS iv S2"),
    ("R syn+ack", "iv SR ig ig ig ig ig ig ig SR"),
    ("R fin", "iv iv FW FW LA LA LA TW CL iv"),
    ("R ack", "iv ig SR ES CW CW TW TW CL ig"),
    ("R rst", "iv CL CL CL CL CL CL CL CL CL"),
    ("R none", "iv iv iv iv iv iv iv iv iv iv"),
];

/// This host's number of its SYN, and the remote's.
const LOCAL: u32 = 0xffff_ff00;
const REMOTE: u32 = 0x7fff_ffff;

/// A connection that one side opens and closes first, as this host sees it in each state of
/// conntrack's; what has ended has no row.
struct Scenario {
    name: &'static str,
    opener: Side,
    rows: [Option<Tracked>; 10],
    /// Cells that differ: row, column, what follows here, and why.
    differences: &'static [(&'static str, &'static str, &'static str, &'static str)],
}

const PICK_UP: &str = "a segment without a row shows a connection under way";
const NEW_SYN: &str = "a SYN without a row begins one, whoever sends it; what is over has none";
const TELLING: &str =
    "an empty ACK of this host makes no row: it may be the last of a dead connection";
const NEW_SOCKET: &str = "this host sends a SYN from a new socket only: what was is over";
const REOPENS: &str = "the remote is who opens, and this host has not answered";
const ANSWER: &str = "a SYN,ACK of this host is believed: it answers a SYN that it has taken";
const ANSWERED: &str = "this host is ESTABLISHED as soon as its SYN is acknowledged";
const MISSED: &str = "what this host sends is believed: only the handshake was missed";
const WHOSE_FIN: &str = "conntrack has one state for both sides; it is this host that closes";
const CLOSES: &str = "the remote closes; its FIN counts once this host acknowledges it";
const ONE_FIN: &str = "conntrack does not ask whose FIN it is; the same one again changes nothing";
const ANY_SEGMENT: &str = "an acknowledgement counts by its number, on whatever segment it comes";
const OWN_ACK: &str =
    "conntrack takes any ACK for that of the FIN; it has to come from the other side";

fn scenarios() -> [Scenario; 2] {
    let known = |state, marks: u8, local, remote| Some(row(state, BOTH | marks, local, remote));
    let (l, r) = (LOCAL, REMOTE);
    let (l1, l2) = (l.wrapping_add(1), l.wrapping_add(2));
    let (r1, r2) = (r.wrapping_add(1), r.wrapping_add(2));
    let (lf, rf) = (Marks::LOCAL_FIN, Marks::REMOTE_FIN);
    [
        Scenario {
            name: "opened and closed first by the remote",
            opener: Side::Remote,
            rows: [
                None,
                Some(row(State::Listen, Marks::REMOTE_SEEN, (0, 0), (r1, 0))),
                known(State::SynReceived, 0, (l1, r1), (r1, l)),
                known(State::Established, 0, (l1, r1), (r1, l1)),
                known(State::Established, rf, (l1, r1), (r2, l1)),
                known(State::CloseWait, rf, (l1, r2), (r2, l1)),
                known(State::LastAck, rf | lf, (l2, r2), (r2, l1)),
                None,
                None,
                known(State::SynSent, 0, (l1, 0), (r1, l)),
            ],
            differences: PASSIVE,
        },
        Scenario {
            name: "opened and closed first by this host",
            opener: Side::Local,
            rows: [
                None,
                Some(row(State::SynSent, Marks::LOCAL_SEEN, (l1, 0), (0, l))),
                known(State::Established, 0, (l1, r1), (r1, l1)),
                known(State::Established, 0, (l1, r1), (r1, l1)),
                known(State::FinWait1, lf, (l2, r1), (r1, l1)),
                known(State::FinWait2, lf, (l2, r1), (r1, l2)),
                known(State::FinWait2, lf | rf, (l2, r1), (r2, l2)),
                known(State::TimeWait, lf | rf, (l2, r2), (r2, l2)),
                None,
                known(State::SynSent, 0, (l1, 0), (r1, l)),
            ],
            differences: ACTIVE,
        },
    ]
}

const PASSIVE: &[(&str, &str, &str, &str)] = &[
    ("O syn+ack", "NO", "ESTABLISHED", PICK_UP),
    ("O syn+ack", "SR", "ESTABLISHED", ANSWERED),
    ("O syn+ack", "TW", "ESTABLISHED", PICK_UP),
    ("O syn+ack", "CL", "ESTABLISHED", PICK_UP),
    ("O syn+ack", "S2", "ESTABLISHED", ANSWERED),
    ("O fin", "NO", "ESTABLISHED+FIN", PICK_UP),
    ("O fin", "FW", "ESTABLISHED+FIN", ONE_FIN),
    ("O fin", "CW", "CLOSE-WAIT", ONE_FIN),
    ("O fin", "LA", "-", ANY_SEGMENT),
    ("O fin", "TW", "ESTABLISHED+FIN", PICK_UP),
    ("O fin", "CL", "ESTABLISHED+FIN", PICK_UP),
    ("O ack", "FW", "ESTABLISHED+FIN", OWN_ACK),
    ("O ack", "TW", "ESTABLISHED", PICK_UP),
    ("O ack", "CL", "ESTABLISHED", PICK_UP),
    ("R syn", "NO", "SYN-SENT", NEW_SYN),
    ("R syn", "ES", "SYN-SENT", NEW_SOCKET),
    ("R syn", "FW", "SYN-SENT", NEW_SOCKET),
    ("R syn", "CW", "SYN-SENT", NEW_SOCKET),
    ("R syn", "LA", "SYN-SENT", NEW_SOCKET),
    ("R syn", "TW", "SYN-SENT", NEW_SYN),
    ("R syn", "CL", "SYN-SENT", NEW_SYN),
    ("R syn+ack", "NO", "SYN-RECEIVED", PICK_UP),
    ("R syn+ack", "ES", "SYN-RECEIVED", ANSWER),
    ("R syn+ack", "FW", "SYN-RECEIVED", ANSWER),
    ("R syn+ack", "CW", "SYN-RECEIVED", ANSWER),
    ("R syn+ack", "LA", "SYN-RECEIVED", ANSWER),
    ("R syn+ack", "TW", "SYN-RECEIVED", PICK_UP),
    ("R syn+ack", "CL", "SYN-RECEIVED", PICK_UP),
    ("R fin", "NO", "FIN-WAIT-1", PICK_UP),
    ("R fin", "SS", "FIN-WAIT-1", MISSED),
    ("R fin", "SR", "FIN-WAIT-1", WHOSE_FIN),
    ("R fin", "ES", "FIN-WAIT-1", WHOSE_FIN),
    ("R fin", "TW", "FIN-WAIT-1", PICK_UP),
    ("R fin", "CL", "FIN-WAIT-1", PICK_UP),
    ("R fin", "S2", "FIN-WAIT-1", MISSED),
    ("R ack", "SS", "ESTABLISHED", MISSED),
    ("R ack", "LA", "LAST-ACK", OWN_ACK),
    ("R ack", "S2", "ESTABLISHED", MISSED),
];

const ACTIVE: &[(&str, &str, &str, &str)] = &[
    ("O syn", "SR", "SYN-SENT", NEW_SOCKET),
    ("O syn", "ES", "SYN-SENT", NEW_SOCKET),
    ("O syn", "FW", "SYN-SENT", NEW_SOCKET),
    ("O syn", "CW", "SYN-SENT", NEW_SOCKET),
    ("O syn", "LA", "SYN-SENT", NEW_SOCKET),
    ("O syn+ack", "NO", "SYN-RECEIVED", PICK_UP),
    ("O syn+ack", "SS", "SYN-RECEIVED", ANSWER),
    ("O syn+ack", "SR", "SYN-RECEIVED", ANSWER),
    ("O syn+ack", "ES", "SYN-RECEIVED", ANSWER),
    ("O syn+ack", "FW", "SYN-RECEIVED", ANSWER),
    ("O syn+ack", "CW", "SYN-RECEIVED", ANSWER),
    ("O syn+ack", "LA", "SYN-RECEIVED", ANSWER),
    ("O syn+ack", "TW", "SYN-RECEIVED", ANSWER),
    ("O syn+ack", "CL", "SYN-RECEIVED", PICK_UP),
    ("O syn+ack", "S2", "SYN-RECEIVED", ANSWER),
    ("O fin", "NO", "FIN-WAIT-1", PICK_UP),
    ("O fin", "SS", "FIN-WAIT-1", MISSED),
    ("O fin", "FW", "FIN-WAIT-1", ONE_FIN),
    ("O fin", "LA", "TIME-WAIT", ANY_SEGMENT),
    ("O fin", "CL", "FIN-WAIT-1", PICK_UP),
    ("O fin", "S2", "FIN-WAIT-1", MISSED),
    ("O ack", "NO", "-", TELLING),
    ("O ack", "SS", "ESTABLISHED", MISSED),
    ("O ack", "FW", "FIN-WAIT-1", OWN_ACK),
    ("O ack", "S2", "ESTABLISHED", MISSED),
    ("R syn", "NO", "LISTEN", NEW_SYN),
    ("R syn", "TW", "LISTEN", REOPENS),
    ("R syn", "CL", "LISTEN", NEW_SYN),
    ("R syn+ack", "NO", "ESTABLISHED", PICK_UP),
    ("R syn+ack", "CL", "ESTABLISHED", PICK_UP),
    ("R fin", "NO", "ESTABLISHED+FIN", PICK_UP),
    ("R fin", "SR", "ESTABLISHED+FIN", CLOSES),
    ("R fin", "ES", "ESTABLISHED+FIN", CLOSES),
    ("R fin", "CL", "ESTABLISHED+FIN", PICK_UP),
    ("R ack", "NO", "ESTABLISHED", PICK_UP),
    ("R ack", "LA", "FIN-WAIT-2", OWN_ACK),
    ("R ack", "CL", "ESTABLISHED", PICK_UP),
];

/// The segment of a cell, with the numbers that its sender would give it now.
fn segment(row: Option<Tracked>, side: Side, class: &str) -> Segment {
    let known = |is_known: bool, number: u32, other: u32| if is_known { number } else { other };
    let (next, other) = match (row, side) {
        (Some(row), Side::Local) => (
            known(row.marks.has(Marks::LOCAL_SEEN), row.local.next, LOCAL),
            known(row.marks.has(Marks::REMOTE_SEEN), row.remote.next, REMOTE),
        ),
        (Some(row), Side::Remote) => (
            known(row.marks.has(Marks::REMOTE_SEEN), row.remote.next, REMOTE),
            known(row.marks.has(Marks::LOCAL_SEEN), row.local.next, LOCAL),
        ),
        (None, Side::Local) => (LOCAL.wrapping_add(2), REMOTE.wrapping_add(2)),
        (None, Side::Remote) => (REMOTE.wrapping_add(2), LOCAL.wrapping_add(2)),
    };
    // What begins anew has another number; what was sent before is sent again with the same.
    let again = |flag: u8| row.is_some_and(|row| row.marks.has(flag));
    let (seen, fin) = match side {
        Side::Local => (Marks::LOCAL_SEEN, Marks::LOCAL_FIN),
        Side::Remote => (Marks::REMOTE_SEEN, Marks::REMOTE_FIN),
    };
    let handshake = row.is_some_and(|row| {
        matches!(
            row.state,
            State::Listen | State::SynSent | State::SynReceived
        )
    });
    match class {
        "syn" if handshake && again(seen) => Segment::new("S", next.wrapping_sub(1), 0, 0),
        "syn" => Segment::new("S", next.wrapping_add(100_000), 0, 0),
        "syn+ack" if handshake && again(seen) => Segment::new("SA", next.wrapping_sub(1), other, 0),
        "syn+ack" => Segment::new("SA", next.wrapping_add(100_000), other, 0),
        "fin" if again(fin) => Segment::new("FA", next.wrapping_sub(1), other, 0),
        "fin" => Segment::new("FA", next, other, 0),
        "ack" => Segment::new("A", next, other, 0),
        "rst" => Segment::new("RA", next, other, 0),
        "none" => Segment::new("", next, other, 0),
        other => panic!("no class is called {other}"),
    }
}

/// What follows in words: the state, `-` for none, `=` where the row stays as it was.
fn happens(scenario: &Scenario, line: usize, column: usize) -> String {
    let before = scenario.rows[column];
    let (who, class) = CONNTRACK[line].0.split_once(' ').expect("two words");
    let side = match (who, scenario.opener) {
        ("O", side) => side,
        (_, Side::Local) => Side::Remote,
        (_, Side::Remote) => Side::Local,
    };
    let segment = segment(before, side, class);
    let mut observer = Observer {
        row: before,
        ..Observer::new()
    };
    observer.sees(side, segment);
    name(observer.row)
}

fn name(row: Option<Tracked>) -> String {
    row.map_or("-".into(), |row| {
        let fin = if row.state == State::Established && row.marks.has(Marks::REMOTE_FIN) {
            "+FIN"
        } else {
            ""
        };
        format!("{}{fin}", row.state.name())
    })
}

/// What would follow if conntrack were right about this host's end.
fn conntrack(scenario: &Scenario, line: usize, column: usize) -> String {
    let cell = CONNTRACK[line]
        .1
        .split(' ')
        .nth(column)
        .expect("ten columns");
    let column = match cell {
        "iv" | "ig" => column,
        state => STATES
            .iter()
            .position(|name| *name == state)
            .expect("a state"),
    };
    name(scenario.rows[column])
}

#[test]
fn every_cell_is_that_of_the_kernels_tracker_or_differs_for_a_reason() {
    let mut report = String::new();
    for scenario in &scenarios() {
        for (line, (who, cells)) in CONNTRACK.iter().enumerate() {
            for (column, state) in STATES.iter().enumerate() {
                let theirs = conntrack(scenario, line, column);
                let ours = happens(scenario, line, column);
                let listed = scenario
                    .differences
                    .iter()
                    .find(|(other, at, ..)| other == who && at == state);
                let complaint = match listed {
                    None if ours == theirs => continue,
                    None => "differs",
                    Some((.., expected, _)) if ours == theirs && *expected != ours => {
                        "is listed, but the same"
                    }
                    Some((.., expected, _)) if *expected != ours => "is listed otherwise",
                    Some(_) if ours == theirs => "is listed, but the same",
                    Some(_) => continue,
                };
                let cell = cells.split(' ').nth(column).expect("ten columns");
                let before = name(scenario.rows[column]);
                writeln!(
                    report,
                    "{}: {who:<9} in {state} ({before}): conntrack {cell} ({theirs}), here {ours}: {complaint}",
                    scenario.name
                )
                .expect("a string");
            }
        }
    }
    assert!(report.is_empty(), "\n{report}");
}
