//! The connection table under packets: when rows are there, how they are followed, and a table that
//! is full.

use demux_common::{
    command::Outcome,
    connection::{Connection, State, Timeouts},
    reason::{Count, Reason, Stage, Verdict},
};

use crate::{
    IFINDEX,
    table::{
        check::Leaving,
        frames,
        model::{Model, STEADY, WRAPPED},
        world::{Bound, EPOCH, Row, dropping, passing},
    },
};

#[test]
fn a_full_table_stops_no_traffic_and_counts_what_it_could_not_track() {
    let world = passing().seeing_both();
    let mut model = Model::new(&world, IFINDEX).with_connections(1);
    let capacity = fill(&mut model, 0);
    assert!((2..=model.lines().count()).contains(&capacity));

    let syn = frames::tcp("10.0.0.1:60000", "10.0.0.2:80");
    assert_eq!(model.decide(&syn.bytes).verdict, Verdict::Pass);
    let answer = frames::datagram("10.0.0.2:53", "10.0.0.1:60001", b"demux");
    model.leave(&answer.bytes, &leaving(3));

    let snapshot = model.snapshot();
    assert_eq!(snapshot.rows.len(), capacity as usize);
    assert!(snapshot.rows.values().all(Connection::is_confirmed));
    let counters = snapshot.counters[world.slot(IFINDEX)];
    // As many bytes as go out, in three frames.
    let bytes = (syn.bytes.len() + answer.bytes.len() + 2 * 42) as u64;
    assert_eq!(counters.untracked, Count { packets: 2, bytes },);
    assert_eq!(counters.get(Verdict::Pass, Reason::Unbound).packets, 1);
    assert_eq!((snapshot.table.untracked, snapshot.table.entered), (2, 0));
}

#[test]
fn a_flood_displaces_what_nobody_has_consented_to_and_nothing_else() {
    let mut model = Model::new(&passing(), IFINDEX).with_connections(1);
    let consented = Row::tcp("10.0.0.9:1", "10.0.0.2:80", State::Established, 1).confirmed();
    assert_eq!(
        model.enter(EPOCH, &consented.command(&STEADY)),
        Outcome::Done
    );
    let flood: u16 = 1000;
    for port in 0..flood {
        let frame = frames::tcp(&format!("10.0.0.1:{port}"), "10.0.0.2:80");
        assert_eq!(model.decide(&frame.bytes).verdict, Verdict::Pass);
        model.lines().assert_sound();
    }
    let snapshot = model.snapshot();
    assert!(snapshot.rows[&consented.key].is_confirmed());
    assert_eq!(snapshot.table.untracked, 0);
    assert_eq!(snapshot.table.entered, u64::from(flood));
    let there = snapshot.rows.len() as u64 - 1;
    assert_eq!(snapshot.table.over_unconfirmed, u64::from(flood) - there);
    assert_eq!(snapshot.table.over_expired, 0);
}

#[test]
fn a_new_connection_takes_the_line_of_an_expired_one() {
    let mut model = Model::new(&passing(), IFINDEX).with_connections(1);
    let capacity = fill(&mut model, 0);
    model.advance(8000);
    for port in 0..1000 {
        let frame = frames::tcp(&format!("10.0.0.7:{port}"), "10.0.0.2:80");
        model.decide(&frame.bytes);
    }
    let snapshot = model.snapshot();
    model.lines().assert_sound();
    assert_eq!(snapshot.table.untracked, 0);
    assert_eq!(snapshot.table.over_expired, u64::from(capacity));
    assert!(snapshot.rows.values().all(|row| !row.is_confirmed()));
}

#[test]
fn a_row_is_there_until_the_very_moment_at_which_it_expires() {
    for clock in [STEADY, WRAPPED] {
        let lifetimes = clock.lifetimes(&Timeouts::default());
        for &state in State::ALL {
            let is_udp = matches!(state, State::Unreplied | State::Replied | State::Assured);
            let (remote, own) = ("10.0.0.1:40000", "10.0.0.2:80");
            let (row, arrives, leaves) = if is_udp {
                (
                    Row::udp(remote, own, state),
                    frames::udp(remote, own),
                    frames::udp(own, remote),
                )
            } else {
                (
                    Row::tcp(remote, own, state, 1000),
                    frames::segment(remote, own, 0, 1000, &[]),
                    frames::segment(own, remote, 0, 1000, &[]),
                )
            };
            let command = row.aged(0).command(&clock);
            for (is_late, stage, packets) in [(0, Stage::Connection, 1), (1, Stage::Default, 0)] {
                let model = || {
                    // By a binding that tracks nothing, what leaves makes no row.
                    let world = dropping()
                        .seeing_both()
                        .tracking_bound()
                        .without_kernel_sockets();
                    let mut model = Model::at(&world, IFINDEX, clock);
                    assert_eq!(model.enter(EPOCH + 1, &command), Outcome::Done);
                    let units = u64::from(lifetimes[state as usize]) - 1 + is_late;
                    model.advance_ns(units * clock.unit_ns());
                    model
                };
                let (arriving, departing) = (model(), model());
                let decision = arriving.decide(&arrives.bytes);
                // A row that only holds a port says nothing about what arrives, and counts nothing of it.
                let is_held = state == State::Reserved;
                let (stage, arrived) = if is_held {
                    (Stage::Default, 0)
                } else {
                    (stage, packets)
                };
                assert_eq!(decision.stage, stage, "{}", state.name());
                departing.leave(&leaves.bytes, &leaving(1));
                for (model, counted) in [(arriving, arrived), (departing, packets)] {
                    let rows = model.snapshot().rows;
                    let seen = rows
                        .values()
                        .map(|row| row.rx_packets + row.tx_packets)
                        .sum::<u64>();
                    assert_eq!(seen, counted, "{}: {rows:?}", state.name());
                    assert_eq!(rows.len() as u64, 1 - is_late);
                }
            }
        }
    }
}

#[test]
fn a_connection_is_followed_where_only_the_remote_is_seen() {
    use frames::{ACK, FIN, RST, SYN, segment};
    let model = Model::new(&passing(), IFINDEX);
    // The kernel has a socket of this four-tuple.
    let arrives = |flags, sequence, data: &[u8]| {
        let frame = segment("10.0.0.1:40001", "10.0.0.2:22", flags, sequence, data);
        model.decide(&frame.bytes);
        only(&model)
    };
    let row = arrives(SYN, 99, &[]).unwrap();
    assert_eq!((row.state, row.is_confirmed()), (State::Listen, false));
    let row = arrives(ACK, 100, &[]).unwrap();
    assert_eq!((row.state, row.is_confirmed()), (State::Established, true));
    model.advance(7_999);
    assert_eq!(arrives(ACK, 100, b"question").unwrap().remote.next, 108);
    model.advance(7_999);
    assert_eq!(
        arrives(FIN | ACK, 108, &[]).unwrap().state,
        State::CloseWait
    );
    let row = arrives(ACK, 109, &[]).unwrap();
    assert_eq!((row.state, row.rx_packets), (State::CloseWait, 5));
    assert_eq!(arrives(RST, 109, &[]), None);
    assert_eq!(model.snapshot().table.ended, 1);
}

#[test]
fn a_connection_is_followed_where_both_sides_are_seen() {
    use State::{CloseWait, Established, LastAck, Listen, SynReceived};
    use frames::{ACK, FIN, PSH, SYN, segment};
    let (remote, own) = ("10.0.0.1:40000", "10.0.0.2:80");
    let model = Model::new(&dropping().seeing_both().with([Bound::tcp(":80")]), IFINDEX);
    let arrives = |flags, sequence, acknowledgement, data: &[u8]| {
        let frame = segment(remote, own, flags, sequence, data).acknowledging(acknowledgement);
        assert_eq!(model.decide(&frame.bytes).binding, 1);
        only(&model)
    };
    let leaves = |flags, sequence, acknowledgement, data: &[u8]| {
        let frame = segment(own, remote, flags, sequence, data).acknowledging(acknowledgement);
        model.leave(&frame.bytes, &leaving(1));
        only(&model)
    };
    let is = |row: Option<Connection>, state, confirmed| {
        let row = row.expect("a row");
        assert_eq!((row.state, row.is_confirmed()), (state, confirmed));
    };
    is(arrives(SYN, 99, 0, &[]), Listen, false);
    is(leaves(SYN | ACK, 499, 100, &[]), SynReceived, false);
    is(arrives(ACK, 100, 500, &[]), Established, true);
    model.advance(7_999);
    is(arrives(ACK | PSH, 100, 500, b"question"), Established, true);
    is(leaves(ACK | PSH, 500, 108, b"answer"), Established, true);
    model.advance(7_999);
    is(arrives(FIN | ACK, 108, 506, &[]), Established, true);
    is(leaves(ACK, 506, 109, &[]), CloseWait, true);
    is(leaves(FIN | ACK, 506, 109, &[]), LastAck, true);
    let row = only(&model).unwrap();
    assert_eq!((row.rx_packets, row.tx_packets), (4, 4));
    assert_eq!(model.now() - row.created, 2 * 7_999 * 1000 / 64);
    assert_eq!(arrives(ACK, 109, 507, &[]), None);
    let table = model.snapshot().table;
    assert_eq!((table.entered, table.ended), (1, 1));
}

/// The only row there is, if any.
fn only(model: &Model) -> Option<Connection> {
    let rows = model.snapshot().rows;
    assert!(rows.len() <= 1);
    rows.into_values().next()
}

/// How a packet leaves that is cut into so many.
fn leaving(segments: u32) -> Leaving {
    Leaving {
        segments,
        is_forwarded: false,
        is_reported: false,
        packets: u64::from(segments),
        bytes: 0,
        binding: 0,
    }
}

/// Fills the table with connections that this host has consented to; returns how many.
fn fill(model: &mut Model, age: u64) -> u32 {
    let mut capacity = 0;
    for port in 0..1000 {
        let remote = format!("10.0.0.1:{port}");
        let row = Row::tcp(&remote, "10.0.0.2:80", State::Established, 1)
            .confirmed()
            .aged(age);
        match model.enter(EPOCH, &row.command(&STEADY)) {
            Outcome::Done => capacity += 1,
            outcome => assert_eq!(outcome, Outcome::Full),
        }
    }
    capacity
}
