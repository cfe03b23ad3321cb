//! A million connections, or some of them, whose packets come in a random order: of all of them,
//! nothing is in any cache.
//!
//! Once through all of demux, and once as lookups alone, beside a hash map of the kernel.

use demux_common::{
    protocol::Protocol,
    reason::{Reason, Verdict},
    tcp::Half,
};

use crate::{
    Setting,
    arena::Arena,
    common::pair::Family,
    frames::{Frames, Numbers},
    instance::Demux,
    measure::{self, Case, Check, PASS},
    reference::{Next, ROWS, Reference},
    report::Outcome,
    row, rows,
    targets::name,
    walk::{LOCAL_PORT, Walk, sequence},
};

/// Looks up in a table: the names of two cases and of the programs that are run for them.
struct Table {
    random: (&'static str, &'static str),
    dependent: (&'static str, &'static str),
    /// Puts in a row for each of [`ROWS`] indexes, which names the next index of the walk.
    fill: fn(&Reference, Walk),
}

/// The tables whose lookups are measured.
const TABLES: &[Table] = &[
    Table {
        random: (name::LOOKUP_RANDOM_HASH, "hash_random"),
        dependent: (name::LOOKUP_DEPENDENT_HASH, "hash_dependent"),
        fill: Reference::fill_hash,
    },
    Table {
        random: (name::LOOKUP_RANDOM, "rows_random"),
        dependent: (name::LOOKUP_DEPENDENT, "rows_dependent"),
        fill: rows::fill,
    },
];

const WHOLE: &[&str] = &[
    name::RANDOM_1K,
    name::RANDOM_1K_HASH,
    name::RANDOM_64K,
    name::RANDOM_64K_HASH,
    name::RANDOM,
    name::RANDOM_HASH,
    name::WAITING,
    name::WAITING_HASH,
];

/// How many segments of a connection have come before it is measured.
const SEGMENTS: u32 = 4;

const PROGRAMS: &[&str] = &[
    "noop",
    "mutate_noop",
    "mutate_demux",
    "mutate_hash",
    "wait_noop",
    "wait_demux",
    "wait_hash",
    "hash_packet",
];

pub(crate) fn measure(setting: &Setting) -> Outcome {
    let wants = |name: &str| setting.selection.wants(name);
    let names = TABLES
        .iter()
        .flat_map(|table| [table.random.0, table.dependent.0]);
    let wants_tables = names.into_iter().any(wants);
    let wants_whole = setting.selection.wants_any(WHOLE);
    let mut outcome = Outcome::default();
    if wants_tables || wants_whole {
        outcome.figures = Arena::run(|arena| measure_in(arena, setting, wants_whole));
    }
    outcome
}

fn measure_in(arena: &Arena<'_>, setting: &Setting, whole: bool) -> Vec<measure::Figures> {
    let lookups = TABLES
        .iter()
        .flat_map(|table| [table.random.1, table.dependent.1]);
    let programs: Vec<&str> = PROGRAMS.iter().copied().chain(lookups).collect();
    let reference = Reference::load(&setting.reference, arena, &programs);
    let walk = Walk::shuffled(ROWS);
    for table in TABLES {
        (table.fill)(&reference, walk);
    }
    let frames = Frames {
        stations: arena.stations(),
    };
    // The mutator fills in the rest.
    let ack = frames.ack(Family::V4, 0, LOCAL_PORT, numbers(0));
    let demux = whole.then(|| enter_rows(arena, &reference, &ack));

    let reference = &reference;
    let case = |count: u32, name, program, baseline, check| Case {
        name,
        program: reference.program(program),
        baseline: reference.program(baseline),
        frame: ack.clone(),
        ifindex: arena.ifindex(),
        action: PASS,
        prepare: Some(Box::new(move || {
            reference.change_walk(Walk::shuffled(count));
        })),
        check: Some(check),
    };
    let hits = || -> Check<'_> { Box::new(reference.expects_hits()) };
    let mut cases = Vec::new();
    if let Some(demux) = &demux {
        let known = || -> Check<'_> { Box::new(demux.expects(Verdict::Pass, Reason::Connection)) };
        for (count, ours, hash) in [
            (1 << 10, name::RANDOM_1K, name::RANDOM_1K_HASH),
            (1 << 16, name::RANDOM_64K, name::RANDOM_64K_HASH),
            (ROWS, name::RANDOM, name::RANDOM_HASH),
        ] {
            cases.extend([
                case(count, ours, "mutate_demux", "mutate_noop", known()),
                case(count, hash, "mutate_hash", "mutate_noop", hits()),
            ]);
        }
        cases.extend([
            case(ROWS, name::WAITING, "wait_demux", "wait_noop", known()),
            case(ROWS, name::WAITING_HASH, "wait_hash", "wait_noop", hits()),
        ]);
    }
    for Table {
        random, dependent, ..
    } in TABLES
    {
        for (name, program) in [random, dependent] {
            cases.push(case(ROWS, name, program, "noop", hits()));
        }
    }
    cases.retain(|case| setting.selection.wants(case.name));
    measure::measure("large", cases, setting.effort)
}

/// Loads demux, enters the connections, and sends some segments of each, so that each has done what
/// only the first segments have it do.
fn enter_rows(arena: &Arena<'_>, reference: &Reference, ack: &[u8]) -> Demux {
    let demux = Demux::load(Some(ROWS), &[(Protocol::Tcp, "*:80")]);
    demux.enter((0..ROWS).map(|index| {
        let Numbers {
            sequence,
            acknowledgement,
        } = numbers(index);
        let remote = Half {
            next: sequence,
            ack: acknowledgement,
        };
        let local = Half {
            next: acknowledgement,
            ack: sequence,
        };
        (row::key(index), [remote, local])
    }));
    reference.set_next(Next::Noop, reference.program("noop"));
    reference.set_next(Next::Demux, demux.program());
    reference.set_next(Next::Hash, reference.program("hash_packet"));
    reference.set_walk(Walk::in_order(ROWS));
    let program = reference.program("mutate_demux");
    for _ in 0..SEGMENTS {
        measure::run(program, ack, arena.ifindex(), ROWS);
    }
    demux
}

/// The numbers of the segments of an index.
fn numbers(index: u32) -> Numbers {
    Numbers {
        sequence: sequence(index),
        acknowledgement: 5000,
    }
}
