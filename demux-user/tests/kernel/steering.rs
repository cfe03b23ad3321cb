//! Packets handed to CPUs and sockets in the kernel, over more than one packet, and damaged ones.

use std::collections::HashMap;

use demux_common::connection::{Connection, ConnectionKey};

use crate::{
    action,
    live::Live,
    table::{
        check::{Subject as _, difference},
        conversation, damaged,
        model::Model,
        random::{self, Random},
    },
};

#[test]
fn a_connection_of_a_socket_is_followed_by_what_is_reported() {
    Live::run(|live| conversation::of_a_socket(live));
}

#[test]
fn no_cut_and_no_mutation_of_a_frame_upsets_the_kernel_that_hands_frames_on() {
    Live::run(|live| {
        live.open_sockets();
        let world = damaged::steering();
        live.prepare(&world);
        let before = live.snapshot();
        let mut model = Model::new(&world, live.ifindex());
        let mut scene = damaged::Scene::default();
        let visit = |frame: &[u8]| {
            scene.set(frame, &mut model);
            scene.set(frame, live);
            let explained = live.report(frame);
            let expected = model.decide(frame);
            damaged::compare(frame, expected, explained);
            assert_eq!(live.action(frame), action(expected.verdict), "{frame:02x?}");
            scene.count(expected);
            scene.clear(&mut model);
            scene.clear(live);
        };
        let count = damaged::steered(&mut Random::new(), random::cases(20_000), visit);
        println!("{count} frames: {scene:?}");
        scene.assert_everything_was_met();
        let (after, model) = (live.snapshot(), model.snapshot());
        for (slot, counters) in after.counters.iter().enumerate() {
            let counted = difference(counters, &before.counters[slot]);
            assert_eq!(counted, model.counters[slot], "slot {slot}");
        }
        assert_eq!(after.binding_counts[..8], model.binding_counts[..8]);
        let none = HashMap::<ConnectionKey, Connection>::new();
        assert_eq!((&after.rows, &model.rows), (&none, &none));
    });
}
