//! Segments of which each comes from somebody else, who is never heard of again.

use demux_common::{
    protocol::Protocol,
    reason::{Reason, Verdict},
};
use demux_user::object::Capacities;

use crate::{
    Setting,
    arena::Arena,
    common::{pair::Family, sockets},
    frames::{Frames, Numbers},
    instance::Demux,
    measure::{self, Case, DROP, PASS},
    reference::{Next, Reference},
    report::Outcome,
    targets::name,
    walk::{LOCAL_PORT, Walk},
};

const NAMES: &[&str] = &[
    name::FLOOD,
    name::FLOOD_ACK,
    name::FLOOD_LISTENER,
    name::FLOOD_CLOSED,
];

/// Of a connection that nobody knows.
const STRAY: Numbers = Numbers {
    sequence: 1000,
    acknowledgement: 5000,
};

/// A port with a listener, and one without; neither is bound.
const LISTENER: u16 = 81;
const CLOSED: u16 = 82;

pub(crate) fn measure(setting: &Setting) -> Outcome {
    if !setting.selection.wants_any(NAMES) {
        return Outcome::default();
    }
    Arena::run(|arena| measure_in(arena, setting))
}

fn measure_in(arena: &Arena<'_>, setting: &Setting) -> Outcome {
    let reference = Reference::load(
        &setting.reference,
        arena,
        &["noop", "mutate_noop", "mutate_demux"],
    );
    let demux = Demux::load(None, &[(Protocol::Tcp, "*:80")]);
    reference.set_next(Next::Noop, reference.program("noop"));
    reference.set_next(Next::Demux, demux.program());
    reference.set_walk(Walk::shuffled(0));
    let _listener = sockets::listen(arena.host(), Family::V4.at_host(LISTENER));

    let frames = Frames {
        stations: arena.stations(),
    };
    let flood = reference.program("mutate_demux");
    let ifindex = arena.ifindex();
    let case = |name, frame: Vec<u8>, verdict, reason| Case {
        name,
        program: flood,
        baseline: reference.program("mutate_noop"),
        frame,
        ifindex,
        action: if verdict == Verdict::Drop { DROP } else { PASS },
        prepare: None,
        check: Some(Box::new(demux.expects(verdict, reason))),
    };
    let (v4, any) = (Family::V4, 0);
    let (syn, ack) = (
        frames.syn(v4, any, LOCAL_PORT),
        frames.ack(v4, any, LOCAL_PORT, STRAY),
    );
    // A flood that goes on for long meets a table that is full.
    let full = 4 * Capacities::default().connections;
    measure::run(flood, &syn, ifindex, full);
    let mut cases = vec![
        case(name::FLOOD, syn, Verdict::Pass, Reason::Bound),
        case(name::FLOOD_ACK, ack, Verdict::Pass, Reason::Bound),
        case(
            name::FLOOD_LISTENER,
            frames.syn(v4, any, LISTENER),
            Verdict::Pass,
            Reason::KernelSocket,
        ),
        case(
            name::FLOOD_CLOSED,
            frames.syn(v4, any, CLOSED),
            Verdict::Drop,
            Reason::NoSocket,
        ),
    ];
    cases.retain(|case| setting.selection.wants(case.name));
    Outcome {
        figures: measure::measure("flood", cases, setting.effort),
        missing: Vec::new(),
    }
}
