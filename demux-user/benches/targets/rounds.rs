//! All cases both ways, by turns, so that a machine that changes its pace changes it for both.

use std::{os::fd::AsFd as _, path::Path, thread, time::Duration};

use crate::{
    case::{Case, Target, Way},
    common::nftables,
    consumer::{self, Consumer},
    feeder::Feeder,
    flows::FLOWS,
    frames,
    plain::Plain,
    report::{Figures, Sample},
    stage::{self, DEMUX, Stage},
    steered::Steered,
    threads::Thread,
};

/// How often to measure, and how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// How often all cases take turns.
    rounds: usize,
    /// How many frames are sent in a turn.
    frames: u32,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        rounds: 21,
        frames: 1 << 20,
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 10,
        frames: 1 << 18,
    };
}

/// What receives goes before the driver's thread, so that nothing piles up between them.
const DRIVER: i32 = 1;
const BEHIND: i32 = 2;

/// Measures the cases whose names contain the filter.
pub(crate) fn measure(reference: &Path, filter: Option<&str>, effort: Effort) -> Vec<Figures> {
    let cases: Vec<Case> = Case::all()
        .filter(|case| filter.is_none_or(|filter| case.name().contains(filter)))
        .collect();
    if cases.is_empty() {
        return Vec::new();
    }
    let mut bench = Bench::new(reference);
    for case in &cases {
        bench.establish(*case);
    }
    let mut figures: Vec<Figures> = cases.iter().map(|case| Figures::new(*case)).collect();
    for round in 0..effort.rounds {
        eprint!("\rbench: round {} of {}", round + 1, effort.rounds);
        for figures in &mut figures {
            // Who comes first has a colder cache.
            let mut ways = [Way::Plain, Way::Demux];
            if round % 2 != 0 {
                ways.reverse();
            }
            for way in ways {
                let sample = bench.measure(figures.case, way, effort.frames);
                figures.add(way, sample);
            }
        }
    }
    eprintln!();
    figures
}

/// All that takes part.
struct Bench {
    // The reader ends before the sockets' places go.
    consumer: Consumer,
    receivers: Vec<Thread>,
    steered: Steered,
    plain: Plain,
    stage: Stage,
    sending_cpu: usize,
}

impl Bench {
    fn new(reference: &Path) -> Self {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        assert!(cpus >= 2, "one CPU sends and another receives");
        // Interrupts go to the first more often.
        let (sending_cpu, receiving_cpu) = (0, cpus - 1);
        let stage = Stage::new();
        let ifindex = stage.host.index(DEMUX);
        let steered = stage.host.enter(|| Steered::load(ifindex, receiving_cpu));
        let plain = Plain::load(reference, &stage, receiving_cpu);
        // What passes is received by nobody, and not answered.
        stage.host.enter(|| nftables::drop_all("bench"));
        let ports = stage.host.enter(|| {
            let plain_interface = stage::plain(Target::Xsk);
            let of_plain = consumer::open(&plain_interface, stage.host.index(&plain_interface));
            let of_demux = consumer::open(DEMUX, ifindex);
            steered.publish(&of_demux);
            vec![of_plain, of_demux]
        });
        plain.set_socket(consumer::socket(&ports[0]).as_fd());
        let consumer = Consumer::start(ports);
        let mut receivers = stage.receivers();
        for thread in &receivers {
            thread.bind(receiving_cpu);
            thread.prefer(DRIVER);
        }
        consumer.thread.bind(receiving_cpu);
        let behind = [steered.threads(), plain.threads(), vec![consumer.thread]].concat();
        for thread in &behind {
            thread.prefer(BEHIND);
        }
        receivers.extend(behind);
        Self {
            consumer,
            receivers,
            steered,
            plain,
            stage,
            sending_cpu,
        }
    }

    /// Opens all flows of a case, so that this host and the remote have consented to them.
    fn establish(&mut self, case: Case) {
        let stations = self.stage.stations(DEMUX);
        self.send(DEMUX, &frames::opening(case, stations), FLOWS);
        self.settle(case.target);
        self.steered.answer(case);
        for _ in 0..2 {
            self.send(DEMUX, &frames::steady(case, stations), FLOWS);
        }
        self.settle(case.target);
        let before = self.steered.followed(case.target);
        self.send(DEMUX, &frames::steady(case, stations), FLOWS);
        self.settle(case.target);
        let followed = self.steered.followed(case.target) - before;
        assert_eq!(followed, u64::from(FLOWS), "{} has rows", case.name());
    }

    fn send(&self, interface: &str, frame: &[u8], count: u32) {
        self.feeder()
            .send(frame, self.stage.sending(interface), count);
    }

    fn feeder(&self) -> Feeder<'_> {
        Feeder {
            peer: &self.stage.peer,
            program: self.plain.program("feed"),
            map: self.plain.map("FEED"),
            cpu: self.sending_cpu,
        }
    }

    fn measure(&self, case: Case, way: Way, count: u32) -> Sample {
        let interface = match way {
            Way::Plain => stage::plain(case.target),
            Way::Demux => DEMUX.to_owned(),
        };
        let frame = frames::steady(case, self.stage.stations(&interface));
        let followed = self.steered.followed(case.target);
        let (arrived, cpu_time) = (self.arrived(case.target), self.cpu_time());
        let ifindex = self.stage.sending(&interface);
        let target = case.target;
        let now = || self.arrived(target);
        let taken = self.feeder().measure(&frame, ifindex, count, now);
        self.settle(case.target);
        let packets = self.arrived(case.target) - arrived;
        let followed = self.steered.followed(case.target) - followed;
        let cpu_time = self.cpu_time() - cpu_time;
        assert!(packets > 0, "{} has arrived nowhere", case.name());
        if way == Way::Demux {
            assert!(
                followed >= packets - packets / 20,
                "{followed} of {packets} packets of {} had a row",
                case.name()
            );
        }
        Sample {
            arrived: taken.arrived as f64 / f64::from(count),
            per_second: taken.arrived as f64 / taken.time.as_secs_f64(),
            receiving_ns: cpu_time as f64 / packets as f64,
            sending_ns: taken.cpu_time as f64 / f64::from(count),
        }
    }

    /// How many packets have arrived at a target.
    fn arrived(&self, target: Target) -> u64 {
        match target {
            Target::Pass | Target::Cpu => self.plain.to_stack(),
            Target::Xsk => self.consumer.received(),
        }
    }

    /// How long all that receives has run.
    fn cpu_time(&self) -> u64 {
        self.receivers.iter().map(|thread| thread.cpu_time()).sum()
    }

    /// Waits until nothing arrives any more. Others may have the receiving CPU for some milliseconds.
    fn settle(&self, target: Target) {
        const PAUSE: Duration = Duration::from_millis(5);
        const PAUSES: u32 = 4;
        let mut before = self.arrived(target);
        let mut quiet = 0;
        while quiet < PAUSES {
            thread::sleep(PAUSE);
            let now = self.arrived(target);
            quiet = if now == before { quiet + 1 } else { 0 };
            before = now;
        }
    }
}
