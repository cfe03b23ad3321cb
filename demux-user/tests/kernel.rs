//! The loaded programs against the case table, random packets and damaged frames.
//!
//! This runs in virtual machines with nothing but this file in them, on kernels of several versions.

mod common;
mod table;

#[path = "kernel/connections.rs"]
mod connections;
#[path = "kernel/egress.rs"]
mod egress;
#[path = "kernel/live.rs"]
mod live;
#[path = "kernel/programs.rs"]
mod programs;
#[path = "kernel/sockets.rs"]
mod sockets;
#[path = "kernel/steering.rs"]
mod steering;

use demux_common::{
    decide::Decision,
    reason::{Reason, Verdict},
};
use live::{Live, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use table::{
    answer, cases,
    check::Subject as _,
    damaged,
    model::Model,
    oracle, random,
    random::Random,
    world::{HOST, rejecting},
};

#[test]
fn every_case_of_the_table_holds_in_the_kernel() {
    let mut cases = cases::all();
    // Forwarding is a setting of the whole namespace and changed once, what is in TIME-WAIT does not
    // stay for long, and bindings take time to publish.
    cases.sort_by_cached_key(|case| {
        let asks = case
            .decision()
            .is_some_and(|expected| expected.reason == Reason::KernelSocket);
        let targets = format!("{:?}", case.world.targets);
        let bindings = format!("{:?}", case.world.bindings);
        (case.world.forwarding, !asks, targets, bindings)
    });
    let differences: Vec<String> = Live::run(|live| {
        live.open_sockets();
        cases
            .iter()
            .flat_map(|case| case.differences(live))
            .collect()
    });
    println!("{} cases", cases.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn random_packets_meet_in_the_kernel_the_binding_that_the_rules_of_precedence_name() {
    const PACKETS: usize = 50;
    Live::run(|live| {
        let mut random = Random::new();
        for _ in 0..random::cases(10_000).div_ceil(PACKETS) {
            let world = random::world(&mut random);
            live.prepare(&world);
            let (bindings, compiled) = random::bindings(&mut random, live.ifindex());
            live.publish(&bindings, &compiled);
            for _ in 0..PACKETS {
                let (arrival, frame) = random::arrival(&mut random, live.ifindex());
                let local = arrival.local.to_string();
                let is_local = local == "127.0.0.1" || HOST.contains(&local.as_str());
                let expected = oracle::judge(&bindings, &world, &arrival, is_local);
                let Decision {
                    verdict,
                    reason,
                    binding,
                    ..
                } = live.report(&frame.bytes);
                assert_eq!(
                    expected,
                    (verdict, reason, binding),
                    "{arrival:?} among {bindings:#?}"
                );
                let ran = live.process(&frame.bytes);
                if let Some(answer) = &ran.answer {
                    answer::check(&frame.bytes, answer).unwrap();
                }
                // An address that never is on a wire is none to answer from.
                let is_unanswerable = verdict == Verdict::Reject && local == "127.0.0.1";
                let expected = if is_unanswerable {
                    Verdict::Drop
                } else {
                    verdict
                };
                assert_eq!(ran.verdict, expected, "{arrival:?}");
            }
        }
    });
}

#[test]
fn no_cut_and_no_mutation_of_a_frame_upsets_the_kernel() {
    Live::run(|live| {
        live.open_sockets();
        live.prepare(&damaged::world());
        let before = live.snapshot();
        let model = Model::new(&damaged::world(), live.ifindex());
        let live = &*live;
        let visit = |frame: &[u8]| {
            let expected = model.decide(frame);
            damaged::compare(frame, expected, live.report(frame));
            assert_eq!(live.action(frame), action(expected.verdict), "{frame:02x?}");
        };
        let cuts = damaged::cut(visit);
        let mutations = random::cases(100_000);
        damaged::mutated(&mut Random::new(), mutations, visit);
        println!("{cuts} cuts and {mutations} mutations");
        // What the model has counted, the kernel has counted, and nothing else.
        let (after, model) = (live.snapshot(), model.snapshot());
        for (slot, counters) in after.counters.iter().enumerate() {
            let counted = table::check::difference(counters, &before.counters[slot]);
            assert_eq!(counted, model.counters[slot], "slot {slot}");
        }
        assert_eq!(after.binding_counts[..8], model.binding_counts[..8]);
        assert!(after.rows.is_empty() && model.rows.is_empty());
        assert_eq!(after.table, before.table);
    });
}

#[test]
fn damaged_frames_are_refused_in_the_kernel_as_on_the_model() {
    let answers = Live::run(|live| {
        let world = damaged::refusing();
        live.open_sockets();
        live.prepare(&world);
        let before = live.snapshot();
        let model = Model::new(&world, live.ifindex());
        let mut answers = 0;
        let visit = |frame: &[u8]| {
            model.refill();
            let (decision, answer) = model.process(frame);
            let ran = live.process(frame);
            assert_eq!(
                (ran.verdict, &ran.answer),
                (decision.verdict, &answer),
                "{frame:02x?}"
            );
            answers += usize::from(answer.is_some());
        };
        damaged::refusals(&mut Random::new(), random::cases(30_000), visit);
        let (after, model) = (live.snapshot(), model.snapshot());
        for (slot, counters) in after.counters.iter().enumerate() {
            let counted = table::check::difference(counters, &before.counters[slot]);
            assert_eq!(counted, model.counters[slot], "slot {slot}");
        }
        assert!(after.rows.is_empty() && model.rows.is_empty());
        answers
    });
    println!("{answers} answers");
    assert!(answers * 10 > random::cases(30_000), "{answers} answers");
}

#[test]
fn every_refusal_of_the_table_is_given_in_the_kernel() {
    let cases = cases::reject::answers();
    Live::run(|live| {
        let world = cases::reject::refusing();
        live.prepare(&world);
        let before = live.snapshot();
        let model = Model::new(&world, live.ifindex());
        for case in &cases {
            let expected = case.decision().expect("it arrives");
            assert_eq!(live.report(&case.frame), expected, "{}", case.name);
            let ran = live.process(&case.frame);
            assert_eq!(ran.verdict, case.outcome(expected).0, "{}", case.name);
            assert_eq!(case.complaint(&ran), None);
            model.refill();
            let _ = model.process(&case.frame);
        }
        let (after, model) = (live.snapshot(), model.snapshot());
        for (slot, counters) in after.counters.iter().enumerate() {
            let counted = table::check::difference(counters, &before.counters[slot]);
            assert_eq!(counted, model.counters[slot], "slot {slot}");
        }
        assert!(after.rows.is_empty() && after.table == before.table);
    });
}

#[test]
fn refusals_are_limited() {
    use demux_common::reject::BURST;
    Live::run(|live| {
        live.prepare(&rejecting());
        live.refill();
        let frame = table::frames::tcp("10.0.0.1:40000", "10.0.0.2:80").bytes;
        // On one processor, whose budget it is.
        pin_to_one_cpu();
        let before = live.snapshot();
        let actions: Vec<u32> = (0..4 * BURST).map(|_| live.action(&frame)).collect();
        assert!(
            actions[..BURST as usize]
                .iter()
                .all(|action| *action == XDP_TX)
        );
        let dropped = actions.iter().filter(|action| **action == XDP_DROP).count() as u64;
        let after = live.snapshot();
        let slot = rejecting().slot(live.ifindex());
        let counted = |verdict, reason| {
            let [before, after] =
                [&before, &after].map(|at| at.counters[slot].get(verdict, reason).packets);
            after - before
        };
        assert!(dropped > BURST, "{dropped} of {}", actions.len());
        assert_eq!(counted(Verdict::Drop, Reason::RateLimited), dropped);
        let sent = counted(Verdict::Reject, Reason::NoSocket);
        assert_eq!(sent, actions.len() as u64 - dropped);
    });
}

fn pin_to_one_cpu() {
    let mut set = nix::sched::CpuSet::new();
    set.set(0).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).unwrap();
}

fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Drop => XDP_DROP,
        Verdict::Redirect => XDP_REDIRECT,
        _ => XDP_PASS,
    }
}
