//! The case table and random packets on the host model: no privilege needed.

mod table;

#[path = "model/connections.rs"]
mod connections;
#[path = "model/steering.rs"]
mod steering;

use std::collections::HashMap;

use demux_common::{
    decide::Decision,
    reason::{Reason, Stage, Verdict},
};
use table::{
    answer, cases,
    check::{Case, Ran},
    damaged,
    model::{Host, Model, STEADY, WRAPPED},
    oracle, random,
    random::Random,
    shortcut,
    world::{HOST, passing},
};

const IFINDEX: u32 = 7;

#[test]
fn every_case_of_the_table_holds_on_the_model() {
    let cases = cases::all();
    println!("{} cases", cases.len());
    assert!(cases.len() >= 951);
    // Also where times before the packet lie behind the end of the clock.
    for clock in [STEADY, WRAPPED] {
        let mut host = Host::new(clock);
        let differences: Vec<String> = cases
            .iter()
            .flat_map(|case: &Case| case.differences(&mut host))
            .collect();
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

#[test]
fn every_answer_of_the_table_is_given_on_the_model() {
    let cases = cases::reject::answers();
    println!("{} packets", cases.len());
    let model = Model::new(&cases::reject::refusing(), IFINDEX);
    for case in &cases {
        assert_eq!(case.world, cases::reject::refusing(), "{}", case.name);
        let expected = case.decision().expect("it arrives");
        assert_eq!(model.explain(&case.frame), expected, "{}", case.name);
        model.refill();
        let (
            Decision {
                verdict, reason, ..
            },
            answer,
        ) = model.process(&case.frame);
        assert_eq!((verdict, reason), case.outcome(expected), "{}", case.name);
        assert_eq!(
            case.complaint(&Ran {
                verdict,
                answer,
                changed: None
            }),
            None
        );
    }
}

#[test]
fn every_reason_is_in_the_table() {
    let mut cases = cases::all();
    cases.extend(cases::reject::answers());
    for reason in Reason::ALL {
        // That takes more than one packet.
        if *reason == Reason::RateLimited {
            continue;
        }
        let is_for = |case: &Case| {
            case.decision().is_some_and(|it| it.reason == *reason)
                || case.unanswered.is_some_and(|(_, it)| it == *reason)
        };
        assert!(cases.iter().any(is_for), "no case for {}", reason.name());
    }
}

#[test]
fn random_packets_meet_the_binding_that_the_rules_of_precedence_name() {
    const PACKETS: usize = 50;
    let mut random = Random::new();
    let (mut seen, mut answers, mut steered) = ([0; 4], 0, HashMap::new());
    for _ in 0..random::cases(100_000) / PACKETS {
        let (bindings, compiled) = random::bindings(&mut random, IFINDEX);
        let world = random::world(&mut random);
        let model = Model::with_compiled(&world, IFINDEX, &bindings, compiled);
        for _ in 0..PACKETS {
            let (arrival, frame) = random::arrival(&mut random, IFINDEX);
            let is_local = arrival.local.to_string() == "127.0.0.1"
                || HOST.contains(&arrival.local.to_string().as_str());
            let expected = oracle::judge(&bindings, &world, &arrival, is_local);
            let Decision {
                verdict,
                reason,
                binding,
                ..
            } = model.explain(&frame.bytes);
            assert_eq!(
                expected,
                (verdict, reason, binding),
                "{arrival:?} among {bindings:#?}"
            );
            let (outcome, answer) = model.process(&frame.bytes);
            if matches!(verdict, Verdict::Redirect)
                || matches!(reason, Reason::NoTarget | Reason::TooLong)
            {
                *steered.entry((verdict.name(), reason.name())).or_insert(0) += 1;
            }
            if let Some(answer) = answer {
                answer::check(&frame.bytes, &answer).unwrap();
                answers += 1;
            } else {
                let is_unanswerable = outcome.reason == Reason::Unanswerable;
                assert!(outcome.verdict == verdict || is_unanswerable, "{arrival:?}");
            }
            seen[usize::from(verdict != Verdict::Pass) + 2 * usize::from(binding != 0)] += 1;
        }
    }
    println!(
        "{answers} answers; passed and refused by default {:?}, by a binding {:?}",
        &seen[..2],
        &seen[2..]
    );
    println!("{steered:?}");
    // Handed on; too long or without a target, passed and dropped.
    assert_eq!(steered.len(), 5, "{steered:?}");
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
fn no_cut_and_no_mutation_of_a_frame_upsets_the_model_that_hands_frames_on() {
    let world = damaged::steering();
    let mut model = Model::new(&world, IFINDEX);
    let mut scene = damaged::Scene::default();
    let visit = |frame: &[u8]| {
        scene.set(frame, &mut model);
        let explained = model.explain(frame);
        damaged::compare(frame, explained, model.decide(frame));
        scene.count(explained);
        scene.clear(&mut model);
    };
    let count = damaged::steered(&mut Random::new(), random::cases(60_000), visit);
    println!("{count} frames: {scene:?}");
    scene.assert_everything_was_met();
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
fn the_shortest_way_of_a_packet_leads_where_the_long_one_does() {
    let packets = random::cases(20_000);
    let ways = shortcut::compare(&mut Random::new(), packets);
    println!("{ways:?}");
    assert!(
        ways.arrived * 50 > ways.all && ways.left * 50 > ways.all,
        "{ways:?}"
    );
}
