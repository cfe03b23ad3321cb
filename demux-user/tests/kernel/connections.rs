//! Connections in the kernel and on the model, under the same packets.

use std::collections::HashMap;

use demux_common::{
    command::Outcome,
    connection::{Connection, ConnectionKey},
};

use crate::{
    live::Live,
    table::{
        check::{Subject as _, difference},
        model::{Model, STEADY},
        random::{self, Random},
        scene::Scene,
    },
};

#[test]
fn random_packets_of_connections_do_in_the_kernel_what_they_do_on_the_model() {
    const OF_A_SCENE: usize = 12;
    Live::run(|live| {
        live.open_sockets();
        let mut random = Random::new();
        for _ in 0..random::cases(6_000).div_ceil(OF_A_SCENE) {
            let mut scene = Scene::new(&mut random);
            // In the kernel time goes on: nothing is to expire meanwhile.
            scene
                .rows
                .iter_mut()
                .for_each(|row| row.age = row.age.min(1));
            live.prepare(&scene.world);
            let mut model = Model::new(&scene.world, live.ifindex());
            for row in &scene.rows {
                let epoch = row.epoch + 1;
                let command = row.command(&STEADY);
                assert_eq!(model.enter(epoch, &command), Outcome::Done);
                live.enter(&scene.world, epoch, row);
            }
            let before = live.snapshot();
            for _ in 0..OF_A_SCENE {
                let packet = scene.packet(&mut random, &model.lines().rows());
                let bytes = &packet.bytes;
                if let Some(leaving) = &packet.leaving {
                    if live.takes(bytes) {
                        model.leave(bytes, leaving);
                        live.leave(bytes, leaving);
                    }
                } else {
                    let expected = model.decide(bytes).verdict;
                    assert_eq!(live.run(bytes).verdict, expected, "{bytes:02x?}");
                }
                let (after, model) = (live.snapshot(), model.snapshot());
                let (found, expected) = (timeless(&after.rows), timeless(&model.rows));
                for (key, row) in found.iter().chain(&expected) {
                    assert_eq!(
                        found.get(key),
                        expected.get(key),
                        "{row:?} of {key:?} after {bytes:02x?} {:?}",
                        packet.leaving
                    );
                }
                for (slot, counters) in after.counters.iter().enumerate() {
                    let counted = difference(counters, &before.counters[slot]);
                    assert!(
                        counted == model.counters[slot],
                        "slot {slot} after {bytes:02x?}"
                    );
                }
                let ended = after.table.ended - before.table.ended;
                let entered = after.table.entered - before.table.entered;
                let expected = (model.table.ended, model.table.entered);
                assert_eq!((ended, entered), expected, "{bytes:02x?}");
            }
        }
    });
}

/// The rows without what the clock says.
fn timeless(rows: &HashMap<ConnectionKey, Connection>) -> HashMap<ConnectionKey, Connection> {
    let timeless = |row: &Connection| Connection {
        created: 0,
        last_seen: 0,
        ..*row
    };
    rows.iter()
        .map(|(key, row)| (*key, timeless(row)))
        .collect()
}
