//! The shortest way of a packet beside the long one: the same packets, by chance, through two
//! tables that are alike.

use demux_common::{
    command::Outcome,
    table::{Cold, Line},
};

use super::{
    model::{Model, STEADY, WRAPPED},
    random::Random,
    row::SECOND,
    scene::Scene,
};

const IFINDEX: u32 = 7;

/// Few, so that rows stand in each other's windows.
const CONNECTIONS: u32 = 8;

/// How many packets took which way.
#[derive(Debug, Default)]
pub struct Ways {
    /// Arriving packets that a steady row had.
    pub arrived: usize,
    /// Leaving packets that a steady row had.
    pub left: usize,
    pub all: usize,
}

/// Sends so many packets through tables with rows of every kind; ends the test at a difference.
pub fn compare(random: &mut Random, packets: usize) -> Ways {
    const OF_A_WORLD: usize = 12;
    let mut ways = Ways::default();
    for _ in 0..packets.div_ceil(OF_A_WORLD) {
        let both = Both::new(random);
        for _ in 0..OF_A_WORLD {
            both.step(random, &mut ways);
        }
    }
    ways
}

struct Both {
    scene: Scene,
    short: Model,
    long: Model,
}

impl Both {
    fn new(random: &mut Random) -> Self {
        let (scene, clock) = (Scene::new(random), random.pick(&[STEADY, WRAPPED]));
        // Where the tallies stand: at their beginning, and short of what they can hold.
        let filled: Vec<[u32; 2]> = scene
            .rows
            .iter()
            .map(|_| {
                let bytes = random.pick(&[0, 700, u32::MAX, u32::MAX - 60, u32::MAX - 300]);
                [random.pick(&[7, 7, 0x00ff_fffe, 0x00ff_ffff]), bytes]
            })
            .collect();
        let model = || {
            let mut model = Model::at(&scene.world, IFINDEX, clock).with_connections(CONNECTIONS);
            for (row, [packets, bytes]) in scene.rows.iter().zip(&filled) {
                let command = row.command(&clock);
                assert_eq!(model.enter(row.epoch + 1, &command), Outcome::Done);
                model.count_before(&row.key, *packets, *bytes);
            }
            model
        };
        let (short, long) = (model(), model().without_shortcut());
        Self { scene, short, long }
    }

    fn step(&self, random: &mut Random, ways: &mut Ways) {
        if random.one_in(6) {
            let passed = random.pick(&[1, 64_000_000, SECOND, 70 * SECOND, 9000 * SECOND]);
            self.short.advance_ns(passed);
            self.long.advance_ns(passed);
        }
        let packet = self.scene.packet(random, &self.short.lines().rows());
        let bytes = &packet.bytes;
        ways.all += 1;
        if let Some(leaving) = &packet.leaving {
            self.short.leave(bytes, leaving);
            self.long.leave(bytes, leaving);
        } else {
            let (short, long) = (self.short.decide(bytes), self.long.decide(bytes));
            assert_eq!(short, long, "{bytes:02x?}");
        }
        let [arrived, left] = self.short.taken();
        ways.arrived += arrived;
        ways.left += left;
        let (short, long) = (lines(&self.short), lines(&self.long));
        for (index, (short, long)) in short.iter().zip(&long).enumerate() {
            assert_eq!(short, long, "line {index} after {bytes:02x?}");
        }
        assert!(self.short.counts_as(&self.long), "{bytes:02x?}");
        self.short.lines().assert_sound();
    }
}

fn lines(model: &Model) -> Vec<(Line, Cold)> {
    let lines = model.lines();
    (0..lines.count())
        .map(|index| (lines.hot(index), lines.cold_line(index)))
        .collect()
}
