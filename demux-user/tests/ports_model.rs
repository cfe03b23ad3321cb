//! The port allocator on the host model, against the algorithms as RFC 6056 writes them.

mod ports;
mod table;

#[path = "common/chance.rs"]
mod chance;

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use chance::{Random, cases};
use demux_common::{
    command::{Command, Outcome},
    connection::{ConnectionKey, State},
    ports::{self as allocator, Algorithm, Answer, Barred, HINT_WORDS, Request},
    protocol::Protocol,
    table::Flags,
};
use demux_user::bindings::pattern::from_ip;
use ports::{
    rfc6056::{Destination, Rfc6056},
    uniform::assert_uniform,
};
use table::{
    frames::{ACK, SYN, segment},
    model::{Model, SECRET, STEADY},
    world::passing,
};

const IFINDEX: u32 = 7;

fn model() -> Model {
    Model::new(&passing(), IFINDEX).with_connections(16_384)
}

fn key(to: Destination, port: u16) -> ConnectionKey {
    let (protocol, local, remote) = to;
    ConnectionKey {
        local_address: from_ip(local),
        remote_address: from_ip(remote.ip()),
        local_port: port,
        remote_port: remote.port(),
        protocol: if protocol == Protocol::Tcp as u8 {
            Protocol::Tcp
        } else {
            Protocol::Udp
        },
    }
}

fn tcp(remote: &str) -> Destination {
    let remote: SocketAddr = remote.parse().unwrap();
    let local = if remote.is_ipv4() {
        "10.0.0.2"
    } else {
        "2001:db8::2"
    };
    (Protocol::Tcp as u8, local.parse().unwrap(), remote)
}

/// As long as no test takes.
const LONG: u32 = 1_000_000;

fn request(algorithm: Algorithm, to: Destination) -> Request {
    Request {
        algorithm: algorithm as u32,
        lifetime: LONG,
        ..Request::of(key(to, 0))
    }
}

fn take(model: &Model, algorithm: Algorithm, to: Destination) -> Option<u16> {
    match allocator::allocate(model, &request(algorithm, to)) {
        Answer::Port(port) => Some(port),
        Answer::Exhausted => None,
        other => panic!("{other:?}"),
    }
}

/// As `demux release` does.
fn give_back(model: &Model, to: Destination, port: u16) -> bool {
    let is_released = allocator::release(model, &key(to, port));
    if is_released {
        allocator::forget(model, &Request::of(key(to, port)));
    }
    is_released
}

fn enter(model: &mut Model, to: Destination, port: u16) {
    let flags = Flags(Flags::OUT | Flags::CONFIRMED);
    let command = Command::enter(key(to, port), State::Established, flags);
    assert_eq!(model.enter(table::world::EPOCH, &command), Outcome::Done);
}

#[test]
fn the_first_choices_are_those_of_the_rfc() {
    for algorithm in Algorithm::ALL {
        for remote in ["10.9.0.1:443", "[2001:db8:9::1]:443"] {
            let (mut model, to) = (model(), tcp(remote));
            let mut rfc = Rfc6056::new(SECRET.ports, 32_768, 60_999);
            if algorithm == Algorithm::Sequential {
                (rfc.first, rfc.last) = (1025, u16::MAX);
            }
            set_counters(&model, &mut rfc);
            for port in [33_000, 40_000, 40_001, 50_000, 1030] {
                model.ports.bar(Barred::Reserved, Protocol::Tcp, port);
                model.ports.bar(Barred::Held, Protocol::Tcp, port + 2);
                model.ports.bar(Barred::Bound, Protocol::Tcp, port + 4);
                // Those of another protocol are nothing to this one.
                model.ports.bar(Barred::Bound, Protocol::Udp, port + 5);
                rfc.barred.extend([port, port + 2, port + 4]);
            }
            for port in [35_000, 35_001, 45_000, 1050] {
                enter(&mut model, to, port);
                rfc.used.insert((to, port));
            }
            let mut met = HashSet::new();
            for number in 0..10_000 {
                let expected = rfc.choose(algorithm.name(), to);
                let found = take(&model, algorithm, to);
                assert_eq!(found, expected, "{}, port {number}", algorithm.name());
                assert!(met.insert(found));
            }
            model.lines().assert_sound();
        }
    }
}

#[test]
fn the_choices_are_those_of_the_rfc_as_ports_come_back() {
    let mut random = Random::new();
    for algorithm in Algorithm::ALL {
        let (mut model, mut rfc) = (model(), Rfc6056::new(SECRET.ports, 2000, 2999));
        (
            model.ports.settings.first_port,
            model.ports.settings.last_port,
        ) = (2000, 2999);
        model.ports.settings.is_range_set = 1;
        set_counters(&model, &mut rfc);
        // One of each group that the allocator notes things about together, which may leave out a port
        // for what another destination has.
        let mut groups = HashSet::new();
        let destinations: Vec<Destination> = (1..=40)
            .map(|port| tcp(&format!("10.9.0.1:{port}")))
            .filter(|to| groups.insert(rfc.group(*to)))
            .take(8)
            .collect();
        let mut taken = Vec::new();
        for number in 0..cases(10_000) {
            if !taken.is_empty() && random.one_in(3) {
                let (to, port) = taken.swap_remove(random.below(taken.len()));
                assert!(rfc.used.remove(&(to, port)));
                assert!(give_back(&model, to, port));
                assert!(!give_back(&model, to, port));
            } else {
                let to = random.pick(&destinations);
                let expected = rfc.choose(algorithm.name(), to);
                let found = take(&model, algorithm, to);
                assert_eq!(found, expected, "{}, step {number}", algorithm.name());
                taken.extend(found.map(|port| (to, port)));
            }
        }
    }
}

/// Counters that stand anywhere.
fn set_counters(model: &Model, rfc: &mut Rfc6056) {
    model.ports.next.set(123_456);
    model.ports.position.set(54_321);
    (rfc.next, rfc.position) = (123_456, 54_321);
    let mut table = model.ports.perturbation.borrow_mut();
    for (index, (one, other)) in table.iter_mut().zip(&mut rfc.table).enumerate() {
        *one = index as u32 * 7919;
        *other = u64::from(*one);
    }
}

#[test]
fn the_historical_algorithm_takes_the_lowest_free_port() {
    let (mut model, to) = (model(), tcp("10.9.0.1:80"));
    let next = |model: &Model| take(model, Algorithm::Sequential, to).unwrap();
    assert_eq!(
        [next(&model), next(&model), next(&model)],
        [1025, 1026, 1027]
    );
    assert!(give_back(&model, to, 1025));
    assert_eq!(next(&model), 1025);
    assert_eq!(next(&model), 1028);
    // Also where a connection ends by its packets, and nobody releases anything.
    let packet = |from: &str, to: &str, flags| segment(from, to, flags, 1000, &[]).bytes;
    let leaving = table::check::Leaving {
        segments: 1,
        is_forwarded: false,
        is_reported: false,
        packets: 1,
        bytes: 0,
        binding: 0,
    };
    let (own, remote) = ("10.0.0.2:1026", "10.9.0.1:80");
    model.leave(&packet(own, remote, SYN), &leaving);
    assert_eq!(model.snapshot().rows[&key(to, 1026)].state, State::SynSent);
    assert!(!give_back(&model, to, 1026), "it is a connection");
    assert_eq!(next(&model), 1029);
    // Refused: RST with ACK of the SYN.
    let refusal = segment(remote, own, table::frames::RST | ACK, 0, &[]).acknowledging(1001);
    model.decide(&refusal.bytes);
    assert!(!model.snapshot().rows.contains_key(&key(to, 1026)));
    assert_eq!(next(&model), 1026);
    // To somebody else every port is free.
    let other = tcp("10.9.0.2:80");
    assert_eq!(take(&model, Algorithm::Sequential, other), Some(1025));
    // In a range that was set it begins there.
    model.ports.settings.is_range_set = 1;
    assert_eq!(next(&model), 32_768);
}

#[test]
fn a_range_is_handed_out_to_the_last_port_and_no_further() {
    for algorithm in Algorithm::ALL {
        for (first, last) in [
            (1, 1),
            (63, 64),
            (65_535, 65_535),
            (65_000, 65_535),
            (100, 1099),
        ] {
            let mut model = model();
            (
                model.ports.settings.first_port,
                model.ports.settings.last_port,
            ) = (first, last);
            model.ports.settings.is_range_set = 1;
            let (one, other) = (tcp("10.9.0.1:80"), tcp("10.9.0.2:80"));
            let all: HashSet<u16> = (first..=last).collect();
            for to in [one, other] {
                let taken: HashSet<u16> = all
                    .iter()
                    .map(|_| take(&model, algorithm, to).expect("a port is free"))
                    .collect();
                assert_eq!(taken, all, "{}", algorithm.name());
                assert_eq!(take(&model, algorithm, to), None, "{}", algorithm.name());
            }
            assert!(give_back(&model, one, last));
            assert_eq!(take(&model, algorithm, other), None);
            assert_eq!(take(&model, algorithm, one), Some(last));
            assert_eq!(take(&model, algorithm, one), None);
        }
    }
}

#[test]
fn hints_change_nothing_about_what_is_possible() {
    let mut random = Random::new();
    for _ in 0..cases(2_000) {
        let algorithm = random.pick(&Algorithm::ALL);
        let mut model = model_of(&mut random);
        let (first, last) = (
            model.ports.settings.first_port,
            model.ports.settings.last_port,
        );
        let to = tcp("10.9.0.1:80");
        let mut blocked = HashSet::new();
        // Mostly full, so that the last free port must be found.
        let density = random.pick(&[2, 10, 1000]);
        for port in first..=last {
            if random.one_in(density) {
                continue;
            }
            blocked.insert(port);
            match random.below(4) {
                0 => model.ports.bar(Barred::Reserved, Protocol::Tcp, port),
                1 => model.ports.bar(Barred::Bound, Protocol::Tcp, port),
                2 => model.ports.bar(Barred::Held, Protocol::Tcp, port),
                _ => enter(&mut model, to, port),
            }
        }
        {
            let mut hints = model.ports.hints.borrow_mut();
            let kind = random.below(3);
            // The stamps behind the sets say when they were verified; a wrong one only puts off that a
            // port is seen which packets set free.
            for word in &mut hints[..HINT_WORDS - allocator::HINT_SETS] {
                *word = match kind {
                    0 => 0,
                    1 => !0,
                    _ => random.next(),
                };
            }
        }
        let free = usize::from(last - first) + 1 - blocked.len();
        for _ in 0..free {
            let port = take(&model, algorithm, to).unwrap_or_else(|| {
                panic!("{}: a port of {first}-{last} is free", algorithm.name())
            });
            assert!((first..=last).contains(&port));
            assert!(blocked.insert(port), "{}: {port}", algorithm.name());
        }
        assert_eq!(take(&model, algorithm, to), None);
        model.lines().assert_sound();
    }
}

/// With a small range anywhere.
fn model_of(random: &mut Random) -> Model {
    let mut model = Model::new(&passing(), IFINDEX).with_connections(1024);
    let settings = &mut model.ports.settings;
    settings.first_port = 1 + random.below(65_535) as u16;
    settings.last_port = settings.first_port.saturating_add(random.below(300) as u16);
    settings.is_range_set = 1;
    model.ports.next.set(random.next() as u32);
    model.ports.position.set(random.next() as u32);
    model
}

#[test]
fn a_reservation_lasts_as_long_as_was_asked_for() {
    let (mut model, to) = (model(), tcp("10.9.0.1:80"));
    (
        model.ports.settings.first_port,
        model.ports.settings.last_port,
    ) = (2000, 2000);
    model.ports.settings.is_range_set = 1;
    for lifetime in [1, 100, 12_345] {
        for algorithm in Algorithm::ALL {
            let asked = Request {
                lifetime,
                ..request(algorithm, to)
            };
            assert_eq!(allocator::allocate(&model, &asked), Answer::Port(2000));
            model.advance_ns(u64::from(lifetime - 1) * STEADY.unit_ns());
            assert_eq!(allocator::allocate(&model, &asked), Answer::Exhausted);
            model.advance_ns(STEADY.unit_ns());
            assert_eq!(allocator::allocate(&model, &asked), Answer::Port(2000));
            model.advance_ns(u64::from(lifetime) * STEADY.unit_ns());
            assert!(!give_back(&model, to, 2000), "it has expired");
        }
    }
}

#[test]
fn the_only_port_that_will_do_is_taken_or_nothing() {
    let (model, to) = (model(), tcp("10.9.0.1:80"));
    let fixed = |to, port| {
        let request = Request {
            lifetime: LONG,
            ..Request::of(key(to, port))
        };
        allocator::allocate(&model, &request)
    };
    assert_eq!(fixed(to, 4000), Answer::Port(4000));
    assert_eq!(fixed(to, 4000), Answer::Taken);
    assert_eq!(fixed(to, 4001), Answer::Port(4001));
    assert_eq!(fixed(tcp("10.9.0.2:80"), 4000), Answer::Port(4000));
    assert!(give_back(&model, to, 4000));
    assert_eq!(fixed(to, 4000), Answer::Port(4000));
}

#[test]
fn nothing_is_handed_out_where_the_table_is_full() {
    let model = Model::new(&passing(), IFINDEX).with_connections(1);
    let mut answers = (0..1000).map(|_| {
        let request = request(Algorithm::Hash, tcp("10.9.0.1:80"));
        allocator::allocate(&model, &request)
    });
    let first = answers.find(|answer| !matches!(answer, Answer::Port(_)));
    assert_eq!(first, Some(Answer::Full));
}

#[test]
fn first_ports_are_spread_evenly_and_tell_nothing_of_each_other() {
    const RANGE: u64 = 60_000;
    const COUNT: u16 = 10_000;
    for algorithm in [Algorithm::Random, Algorithm::Hash, Algorithm::DoubleHash] {
        let mut model = Model::new(&passing(), IFINDEX).with_connections(65_536);
        (
            model.ports.settings.first_port,
            model.ports.settings.last_port,
        ) = (1024, 61_023);
        let offsets: Vec<u64> = (0..COUNT)
            .map(|number| {
                let to = (
                    Protocol::Tcp as u8,
                    IpAddr::from([10, 0, 0, 2]),
                    SocketAddr::from(([10, 9, 0, 1], 1 + number)),
                );
                u64::from(take(&model, algorithm, to).unwrap() - 1024)
            })
            .collect();
        let name = algorithm.name();
        assert_uniform(name, offsets.iter().copied(), RANGE);
        // Whoever sees the port to one remote and guesses the next one's from it is right by chance.
        let steps = offsets
            .windows(2)
            .map(|pair| (pair[1] + RANGE - pair[0]) % RANGE);
        assert_uniform(&format!("{name}, step to the next"), steps, RANGE);
    }
}
