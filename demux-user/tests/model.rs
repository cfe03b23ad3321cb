//! The case table and random packets on the host model: no privilege needed.

mod table;

use demux_common::{
    decide::Decision,
    reason::{Reason, Stage, Verdict},
};
use table::{
    cases,
    check::Case,
    damaged, frames,
    model::{Host, Model},
    oracle, random,
    random::Random,
    world::{HOST, World, dropping, passing},
};

const IFINDEX: u32 = 7;

#[test]
fn every_case_of_the_table_holds_on_the_model() {
    let cases = cases::all();
    let mut host = Host::new();
    let differences: Vec<String> = cases
        .iter()
        .flat_map(|case: &Case| case.differences(&mut host))
        .collect();
    println!("{} cases", cases.len());
    assert!(cases.len() >= 160);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_reason_is_in_the_table() {
    let cases = cases::all();
    for reason in Reason::ALL {
        assert!(
            cases.iter().any(|case| case.expected.reason == *reason),
            "no case for {}",
            reason.name()
        );
    }
}

#[test]
fn random_packets_meet_the_binding_that_the_rules_of_precedence_name() {
    const PACKETS: usize = 50;
    let mut random = Random::new();
    let mut seen = [0; 4];
    for _ in 0..random::cases(100_000) / PACKETS {
        let (bindings, compiled) = random::bindings(&mut random, IFINDEX);
        let model = Model::with_compiled(&world_of_random_packets(), IFINDEX, &bindings, compiled);
        for _ in 0..PACKETS {
            let (arrival, frame) = random::arrival(&mut random, IFINDEX);
            let is_local = arrival.local.to_string() == "127.0.0.1"
                || HOST.contains(&arrival.local.to_string().as_str());
            let expected = oracle::judge(&bindings, &arrival, is_local);
            let Decision {
                verdict,
                reason,
                binding,
                ..
            } = model.decide(&frame.bytes);
            assert_eq!(
                expected,
                (verdict, reason, binding),
                "{arrival:?} among {bindings:#?}"
            );
            seen[usize::from(verdict == Verdict::Drop) + 2 * usize::from(binding != 0)] += 1;
        }
    }
    println!(
        "passed and dropped by default {:?}, by a binding {:?}",
        &seen[..2],
        &seen[2..]
    );
    assert!(
        seen.iter().all(|count| *count > 0),
        "not every way was gone: {seen:?}"
    );
}

#[test]
fn no_cut_and_no_mutation_of_a_frame_upsets_the_model() {
    let model = Model::new(&damaged::world(), IFINDEX);
    let visit = |frame: &[u8]| {
        let explained = model.explain(frame);
        damaged::compare(frame, explained, model.decide(frame));
    };
    let cuts = damaged::cut(visit);
    let mutations = random::cases(100_000);
    damaged::mutated(&mut Random::new(), mutations, visit);
    println!("{cuts} cuts and {mutations} mutations");
    assert!(model.snapshot().rows.is_empty());
}

#[test]
fn frames_too_short_for_a_header_are_truncated() {
    let model = Model::new(&passing(), IFINDEX);
    for length in 0..14 {
        let decision = model.decide(&[0; 14][..length]);
        assert_eq!(
            (decision.stage, decision.reason),
            (Stage::Parse, Reason::Truncated)
        );
    }
}

#[test]
fn a_full_table_stops_no_traffic_and_counts_what_it_could_not_track() {
    let model = Model::new(&passing(), IFINDEX).with_capacity(1);
    for port in [40_000, 40_001, 40_002] {
        let frame = frames::tcp(&format!("10.0.0.1:{port}"), "10.0.0.2:80");
        assert_eq!(model.decide(&frame.bytes).verdict, Verdict::Pass);
    }
    let snapshot = model.snapshot();
    assert_eq!(snapshot.rows.len(), 1);
    let counters = snapshot.counters[passing().slot(IFINDEX)];
    assert_eq!(
        (counters.untracked.packets, counters.untracked.bytes),
        (2, 108)
    );
    assert_eq!(counters.get(Verdict::Pass, Reason::Unbound).packets, 3);
}

#[test]
fn a_connection_is_followed_from_its_handshake_to_its_end() {
    use demux_common::connection::State;
    use frames::{ACK, FIN, RST, SYN, segment};
    let model = Model::new(&passing(), IFINDEX);
    let arrives = |flags, sequence, data: &[u8]| {
        let frame = segment("10.0.0.1:40000", "10.0.0.2:80", flags, sequence, data);
        model.decide(&frame.bytes);
        let rows = model.snapshot().rows;
        assert!(rows.len() <= 1);
        rows.into_values().next()
    };
    assert_eq!(arrives(SYN, 99, &[]).unwrap().state, State::SynReceived);
    let row = arrives(ACK, 100, &[]).unwrap();
    assert_eq!((row.state, row.flags), (State::Established, 1));
    model.advance(7_999);
    assert_eq!(arrives(ACK, 100, b"question").unwrap().remote_next, 108);
    model.advance(7_999);
    assert_eq!(
        arrives(FIN | ACK, 108, &[]).unwrap().state,
        State::CloseWait
    );
    let row = arrives(ACK, 109, &[]).unwrap();
    assert_eq!((row.state, row.rx_packets), (State::CloseWait, 5));
    assert_eq!(arrives(RST, 109, &[]), None);
}

/// A world in which the bindings decide, and the default where there is none.
fn world_of_random_packets() -> World {
    dropping().without_kernel_sockets().tracking_bound()
}
