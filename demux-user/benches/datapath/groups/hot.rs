//! One packet again and again: everything that it needs is in the nearest cache.

use std::os::fd::AsFd as _;

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
    measure::{self, Case, DROP, PASS},
    reference::Reference,
    report::{Missing, Outcome},
    targets::name,
    xdp_filter,
};

const NAMES: &[&str] = &[
    name::PARSE,
    name::SKC_V4,
    name::SKC_V6,
    name::XDP_FILTER,
    name::XDP_FILTER_TCP,
    name::TCP4,
    name::TCP6,
    name::UDP4,
    name::NOT_IP,
    name::DROP,
];

/// A port with a listener and a binding, and one with neither.
const PORT: u16 = 80;
const CLOSED: u16 = 81;

/// A port of the peer.
const REMOTE: u16 = 40_000;

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
        &["noop", "parse_only", "skc_lookup"],
    );
    let mut missing = Vec::new();
    let mut filter = |name, features| {
        if !setting.selection.wants(name) {
            return None;
        }
        let program = setting.xdp_filter.clone().and_then(|program| {
            xdp_filter::load(&program, &arena.idle_interface(), features, PORT)
        });
        program
            .map_err(|reason| missing.push(Missing { name, reason }))
            .ok()
    };
    let filters = [
        (name::XDP_FILTER, filter(name::XDP_FILTER, "all")),
        (name::XDP_FILTER_TCP, filter(name::XDP_FILTER_TCP, "tcp")),
    ];
    let demux = Demux::load(None, &[(Protocol::Tcp, "*:80"), (Protocol::Udp, "*:80")]);
    let connections = [Family::V4, Family::V6].map(|family| arena.connect(family, PORT));
    let _conversation = arena.converse(Family::V4, REMOTE, PORT);

    let frames = Frames {
        stations: arena.stations(),
    };
    let [v4, v6] = &connections;
    let ack4 = frames.ack(Family::V4, v4.remote_port(), PORT, v4.numbers());
    let ack6 = frames.ack(Family::V6, v6.remote_port(), PORT, v6.numbers());
    let case = |name, program, frame: &Vec<u8>| Case {
        name,
        program,
        baseline: reference.program("noop"),
        frame: frame.clone(),
        ifindex: arena.ifindex(),
        action: PASS,
        prepare: None,
        check: None,
    };
    let of_demux = |name, frame: &Vec<u8>, verdict, reason| Case {
        action: match verdict {
            Verdict::Drop => DROP,
            _ => PASS,
        },
        check: Some(Box::new(demux.expects(verdict, reason))),
        ..case(name, demux.program(), frame)
    };
    let pass = Verdict::Pass;
    let mut cases = vec![
        case(name::PARSE, reference.program("parse_only"), &ack4),
        case(name::SKC_V4, reference.program("skc_lookup"), &ack4),
        case(name::SKC_V6, reference.program("skc_lookup"), &ack6),
        of_demux(name::TCP4, &ack4, pass, Reason::Connection),
        of_demux(name::TCP6, &ack6, pass, Reason::Connection),
        of_demux(
            name::UDP4,
            &frames.datagram(Family::V4, REMOTE, PORT),
            pass,
            Reason::Connection,
        ),
        of_demux(name::NOT_IP, &frames.arp(), pass, Reason::NotIp),
        of_demux(
            name::DROP,
            &frames.syn(Family::V4, REMOTE, CLOSED),
            Verdict::Drop,
            Reason::NoSocket,
        ),
    ];
    for (name, program) in &filters {
        if let Some(program) = program {
            cases.push(case(name, program.as_fd(), &ack4));
        }
    }
    cases.retain(|case| setting.selection.wants(case.name));
    Outcome {
        figures: measure::measure("hot", cases, setting.effort),
        missing,
    }
}
