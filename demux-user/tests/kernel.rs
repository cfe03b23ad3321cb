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

use demux_common::{
    decide::Decision,
    reason::{Reason, Verdict},
};
use live::{Live, XDP_DROP, XDP_PASS};
use table::{
    cases,
    check::Subject as _,
    damaged,
    model::Model,
    oracle, random,
    random::Random,
    world::{HOST, dropping},
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
        let bindings = format!("{:?}", case.world.bindings);
        (case.world.forwarding, !asks, bindings)
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
        live.prepare(&dropping().without_kernel_sockets().tracking_bound());
        for _ in 0..random::cases(10_000).div_ceil(PACKETS) {
            let (bindings, compiled) = random::bindings(&mut random, live.ifindex());
            live.publish(&bindings, &compiled);
            for _ in 0..PACKETS {
                let (arrival, frame) = random::arrival(&mut random, live.ifindex());
                let local = arrival.local.to_string();
                let is_local = local == "127.0.0.1" || HOST.contains(&local.as_str());
                let expected = oracle::judge(&bindings, &arrival, is_local);
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
                assert_eq!(live.action(&frame.bytes), action(verdict));
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

fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Drop => XDP_DROP,
        _ => XDP_PASS,
    }
}
