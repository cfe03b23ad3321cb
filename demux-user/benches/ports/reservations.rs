//! Ports that demux has reserved towards one destination, and what another one takes.

use std::time::{Duration, Instant};

use demux_common::{
    command::{BATCH, Command, Outcome},
    connection::ConnectionKey,
    ports::{Algorithm, Answer, Request},
    protocol::Protocol,
};
use demux_user::{
    load::{LoadOptions, load},
    netns::NetworkNamespace,
    ports::{AllocateRequest, Allocator, Change, PortRange, change},
    state::{Instance, Lock},
    tables::{Access, Control, Tables},
};

use crate::{
    common::{
        bpffs::TemporaryBpfFs,
        inside,
        pair::{Family, HOST, Pair},
    },
    usage::{COUNT, FIRST, InUse, LAST},
};

/// The destination's port.
const REMOTE: u16 = 80;

/// Longer than any measurement, in seconds and in units of the table's clock.
const LIFETIME: Duration = Duration::from_secs(86_400);
const UNITS: u32 = 1 << 20;

/// How a port that is in use ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is released.
    Released,
    /// Its row leaves the table, as those of connections do that were closed or have expired: nobody
    /// tells the allocator, which has its hints of what is in use only to see that they are stale.
    Unseen,
}

/// An instance of demux whose only rows are the reservations.
pub(crate) struct Reservations {
    allocator: Allocator,
    control: Control,
    in_use: InUse<()>,
    pair: Pair,
    _bpffs: TemporaryBpfFs,
}

impl Reservations {
    /// None yet.
    pub(crate) fn new() -> Self {
        let pair = Pair::new();
        let bpffs = TemporaryBpfFs::new();
        let (allocator, control) = pair.host.enter(|| {
            let options = LoadOptions::default();
            load(bpffs.bpffs(), &[HOST.to_owned()], &options).expect("demux loads");
            let cookie = NetworkNamespace::current().expect("a namespace").cookie();
            let instance =
                Instance::open(bpffs.bpffs(), cookie, Lock::Shared).expect("an instance");
            let tables = Tables::open(&instance, Access::ReadWrite).expect("its tables");
            let range = PortRange {
                first: FIRST,
                last: LAST,
            };
            change(&tables, &[Change::Range(Some(range))]).expect("a range");
            (
                Allocator::open(bpffs.bpffs()).expect("an allocator"),
                Control::open(instance.paths()).expect("its control"),
            )
        });
        Self {
            allocator,
            control,
            in_use: InUse::new(),
            pair,
            _bpffs: bpffs,
        }
    }

    /// Reserves ports until the range is full, and ends some at random until so many are left.
    pub(crate) fn set_use(&mut self, count: usize, end: End) {
        let missing = COUNT - self.in_use.len();
        let asked = asked(Algorithm::default());
        let reserved = self
            .pair
            .host
            .enter(|| self.allocator.allocate_many(&asked, missing as u32))
            .expect("all ports of the range");
        for allocation in reserved {
            self.in_use.insert(allocation.local.port(), ());
        }
        shrink(&self.control, &mut self.in_use, count, end);
    }

    /// How many ports are reserved by one run of the control program: as many as fit, unless that
    /// would change how many are free by more than a tenth.
    fn batch(&self) -> usize {
        ((COUNT - self.in_use.len()) / 10).clamp(1, BATCH)
    }

    /// Reserves ports by so many runs of the control program, and ends as many others each time.
    /// Returns the nanoseconds of each, over those of a run without a command.
    pub(crate) fn measure_datapath(
        &mut self,
        algorithm: Algorithm,
        end: End,
        runs: usize,
    ) -> Vec<f64> {
        let count = self.in_use.len();
        let request = Request {
            algorithm: algorithm as u32,
            lifetime: UNITS,
            ..Request::of(key(0))
        };
        let requests = vec![request; self.batch()];
        (0..runs)
            .map(|_| {
                let start = Instant::now();
                self.control.ticks().expect("the control runs");
                let idle = start.elapsed();
                let start = Instant::now();
                let answers = self.control.allocate(&requests).expect("the control runs");
                let time = start.elapsed();
                for answer in answers {
                    let Answer::Port(port) = answer else {
                        panic!("{} answers {answer:?}", algorithm.name());
                    };
                    self.in_use.insert(port, ());
                }
                shrink(&self.control, &mut self.in_use, count, end);
                (time.as_nanos() as f64 - idle.as_nanos() as f64) / requests.len() as f64
            })
            .collect()
    }

    /// Reserves ports by so many calls of the library, and ends another one each time.
    pub(crate) fn measure_library(
        &mut self,
        algorithm: Algorithm,
        end: End,
        calls: usize,
    ) -> Vec<f64> {
        let asked = asked(algorithm);
        let Self {
            allocator,
            control,
            in_use,
            pair,
            ..
        } = self;
        let count = in_use.len();
        pair.host.enter(|| {
            (0..calls)
                .map(|_| {
                    let start = Instant::now();
                    let reserved = allocator.allocate(&asked).expect("a port");
                    let time = start.elapsed();
                    in_use.insert(reserved.local.port(), ());
                    shrink(control, in_use, count, end);
                    time.as_nanos() as f64
                })
                .collect()
        })
    }
}

/// Ends reservations at random until so many are left.
fn shrink(control: &Control, in_use: &mut InUse<()>, to: usize, end: End) {
    let keys: Vec<ConnectionKey> = in_use
        .shrink(to)
        .into_iter()
        .map(|(port, ())| key(port))
        .collect();
    match end {
        End::Released => {
            let released = control.release(&keys).expect("the control runs");
            assert!(released.into_iter().all(|is_released| is_released));
        }
        End::Unseen => {
            let commands: Vec<Command> = keys.into_iter().map(Command::remove).collect();
            let outcomes = control.execute(&commands).expect("the control runs");
            assert!(outcomes.into_iter().all(|outcome| outcome == Outcome::Done));
        }
    }
}

/// What the library is asked for.
fn asked(algorithm: Algorithm) -> AllocateRequest {
    AllocateRequest {
        address: Some(Family::V4.host()),
        algorithm: Some(algorithm),
        lifetime: LIFETIME,
        ..AllocateRequest::new(Protocol::Tcp, Family::V4.at_peer(REMOTE))
    }
}

/// The connection from a port; 0 for any that is free.
fn key(port: u16) -> ConnectionKey {
    let (local, remote) = (Family::V4.at_host(port), Family::V4.at_peer(REMOTE));
    inside::key(Protocol::Tcp, local, remote)
}
