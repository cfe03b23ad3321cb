//! A million connections whose packets come in a random order: nothing is in any cache.
//!
//! Once through all of demux, and once as lookups alone, beside a hash map of the kernel.

use demux_common::{
    protocol::Protocol,
    reason::{Reason, Verdict},
};

use crate::{
    Setting,
    arena::Arena,
    common::pair::Family,
    frames::Frames,
    instance::Demux,
    measure::{self, Case, Check, PASS},
    reference::{Next, ROWS, Reference},
    report::{Missing, Outcome},
    targets::name,
    walk::{LOCAL_PORT, Walk},
};

/// Looks up in a table: the names of two cases and of the programs that are run for them.
struct Table {
    random: (&'static str, &'static str),
    dependent: (&'static str, &'static str),
    /// Puts in a row for each of [`ROWS`] indexes, which names the next index of the walk.
    fill: fn(&Reference, Walk),
}

/// The tables whose lookups are measured.
const TABLES: &[Table] = &[Table {
    random: (name::LOOKUP_RANDOM_HASH, "hash_random"),
    dependent: (name::LOOKUP_DEPENDENT_HASH, "hash_dependent"),
    fill: Reference::fill_hash,
}];

/// Cases that are still to be written.
const TO_COME: &[&str] = &[name::LOOKUP_RANDOM, name::LOOKUP_DEPENDENT];

const WHOLE: &[&str] = &[
    name::RANDOM,
    name::RANDOM_HASH,
    name::WAITING,
    name::WAITING_HASH,
];

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
    let to_come = TO_COME.iter().filter(|name| wants(name));
    outcome.missing.extend(to_come.map(|&name| Missing {
        name,
        reason: "there is no such program yet".to_owned(),
    }));
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
    let ack = frames.ack(Family::V4, 0, LOCAL_PORT);
    let demux = whole.then(|| enter_rows(arena, &reference, &ack));
    reference.set_walk(walk);

    let case = |name, program, baseline, check| Case {
        name,
        program: reference.program(program),
        baseline: reference.program(baseline),
        frame: ack.clone(),
        ifindex: arena.ifindex(),
        action: PASS,
        check: Some(check),
    };
    let hits = || -> Check<'_> { Box::new(reference.expects_hits()) };
    let mut cases = Vec::new();
    if let Some(demux) = &demux {
        let known = || -> Check<'_> { Box::new(demux.expects(Verdict::Pass, Reason::Connection)) };
        cases.extend([
            case(name::RANDOM, "mutate_demux", "mutate_noop", known()),
            case(name::RANDOM_HASH, "mutate_hash", "mutate_noop", hits()),
            case(name::WAITING, "wait_demux", "wait_noop", known()),
            case(name::WAITING_HASH, "wait_hash", "wait_noop", hits()),
        ]);
    }
    for Table {
        random, dependent, ..
    } in TABLES
    {
        for (name, program) in [random, dependent] {
            cases.push(case(name, program, "noop", hits()));
        }
    }
    cases.retain(|case| setting.selection.wants(case.name));
    measure::measure("large", cases, setting.effort)
}

/// Loads demux, and sends a segment of every connection, so that each has its row.
fn enter_rows(arena: &Arena<'_>, reference: &Reference, ack: &[u8]) -> Demux {
    // A table that is as full as may be drops rows before it is.
    let demux = Demux::load(Some(ROWS / 4 * 5), &[(Protocol::Tcp, "*:80")]);
    reference.set_next(Next::Noop, reference.program("noop"));
    reference.set_next(Next::Demux, demux.program());
    reference.set_next(Next::Hash, reference.program("hash_packet"));
    reference.set_walk(Walk::in_order(ROWS));
    let program = reference.program("mutate_demux");
    measure::run(program, ack, arena.ifindex(), ROWS);
    demux
}
