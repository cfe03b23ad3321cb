//! Packets that are rejected, beside such that are dropped.
//!
//! An answer is written over the packet, so that nothing can be repeated within one test run: each
//! packet is one run, timed by the kernel. Between two runs lie a system call and its copies, so the
//! figures are higher than those of other groups; the ones here can be compared with each other.

use std::os::fd::BorrowedFd;

use demux_common::config::Policy;
use demux_user::{attach::ModeChoice, bpf, load::LoadOptions};
use zerocopy::IntoBytes as _;

use crate::{
    Setting,
    arena::Arena,
    common::pair::Family,
    frames::Frames,
    instance::Demux,
    measure::{Figures, Spread},
    reference::Reference,
    report::Outcome,
    targets::name,
};

const NAMES: &[&str] = &[
    name::DROPPED,
    name::REJECTED_TCP4,
    name::REJECTED_TCP6,
    name::REJECTED_UDP4,
    name::REJECTED_UDP4_LONG,
    name::REJECTED_UDP4_LONG_PARTIAL,
    name::REJECTED_LIMITED,
];

/// A port with nobody, and one of the peer.
const CLOSED: u16 = 81;
const REMOTE: u16 = 40_000;

/// Data that fills a frame.
const LONG: usize = 1472;

/// How many runs make a figure, and how many of them the budget lasts for.
const RUNS: usize = 20_000;
const RUNS_OF_A_BUDGET: usize = 500;

const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;

pub(crate) fn measure(setting: &Setting) -> Outcome {
    if !setting.selection.wants_any(NAMES) {
        return Outcome::default();
    }
    let mut figures = Arena::run(|arena| measure_under(arena, setting, Policy::Reject));
    figures.extend(Arena::run(|arena| {
        measure_under(arena, setting, Policy::Drop)
    }));
    figures.retain(|figure| setting.selection.wants(figure.name));
    Outcome {
        figures,
        missing: Vec::new(),
    }
}

fn measure_under(arena: &Arena<'_>, setting: &Setting, default: Policy) -> Vec<Figures> {
    let reference = Reference::load(&setting.reference, arena, &["noop"]);
    let demux = Demux::load_with(&LoadOptions {
        // XDP_TX is what the driver of a card would be asked for.
        mode: Some(ModeChoice::Generic),
        default: Some(default),
        ..LoadOptions::default()
    });
    let frames = Frames {
        stations: arena.stations(),
    };
    let syn = |family| frames.syn(family, REMOTE, CLOSED);
    let datagram = |length| frames.datagram_of(Family::V4, REMOTE, CLOSED, &vec![7; length]);
    let cases = match default {
        Policy::Reject => vec![
            (name::REJECTED_TCP4, syn(Family::V4), TX),
            (name::REJECTED_TCP6, syn(Family::V6), TX),
            (name::REJECTED_UDP4, datagram(5), TX),
            (name::REJECTED_UDP4_LONG, datagram(LONG), TX),
            (
                name::REJECTED_UDP4_LONG_PARTIAL,
                partial(datagram(LONG)),
                TX,
            ),
            (name::REJECTED_LIMITED, syn(Family::V4), DROP),
        ],
        _ => vec![(name::DROPPED, syn(Family::V4), DROP)],
    };
    let mut figures = Vec::new();
    for (name, frame, action) in cases {
        let (mut runs, mut idle) = (Vec::with_capacity(RUNS), Vec::with_capacity(RUNS));
        for run in 0..RUNS {
            // A limit is met once the budget is spent.
            if action == TX && run % RUNS_OF_A_BUDGET == 0 {
                demux.refill();
            } else if name == name::REJECTED_LIMITED {
                demux.spend();
            }
            let baseline = once(reference.program("noop"), &frame, arena.ifindex());
            let run = once(demux.program(), &frame, arena.ifindex());
            assert_eq!(baseline.1, PASS);
            if run.1 == action {
                runs.push(run.0);
                idle.push(baseline.0);
            } else {
                // A tick has given something back meanwhile.
                assert_eq!(name, name::REJECTED_LIMITED);
            }
        }
        figures.push(Figures {
            name,
            net: Spread::middle(runs.iter().zip(&idle).map(|(run, idle)| run - idle)),
            total: Spread::middle(runs.into_iter()),
            baseline: Spread::middle(idle.into_iter()),
            complaint: None,
        });
    }
    figures
}

/// The nanoseconds that a run takes by the kernel's clock, and what the program returned.
fn once(program: BorrowedFd<'_>, frame: &[u8], ifindex: u32) -> (f64, u32) {
    let context = [0, frame.len() as u32, 0, ifindex, 0, 0_u32];
    let run = bpf::test_run(program, frame, 0, Some(context.as_bytes()), 1)
        .unwrap_or_else(|error| panic!("a test run: {error}"));
    (f64::from(run.duration_ns), run.retval)
}

/// A datagram over IPv4 as a local sender leaves it, its checksum the sum of the pseudo header.
fn partial(mut frame: Vec<u8>) -> Vec<u8> {
    const ADDRESSES: std::ops::Range<usize> = 26..34;
    const LENGTH: usize = 38;
    const CHECKSUM: usize = 40;
    const UDP: u32 = 17;
    let word = |at: usize| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let addresses: u32 = ADDRESSES.step_by(2).map(word).sum();
    let sum = addresses + UDP + word(LENGTH);
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(folded as u16).to_be_bytes());
    frame
}
