//! Frames of the table, cut and mutated, in one world that changes nothing.

use std::collections::BTreeMap;

use demux_common::{
    connection::State,
    decide::Decision,
    parse::parse,
    protocol::Protocol,
    reason::{Reason, Verdict},
};

use super::{
    answer, cases as table,
    check::Way,
    frames::Frame,
    random::{Random, cases, damage},
    steering::Kept,
    world::{Bound, CPU, NO_CPU, Row, SET, SET_OF_NOBODY, World, dropping, rejecting},
};

/// Longer frames are cut at every length up to this one, and then only here and there: the rest of
/// them is data.
const EVERY_LENGTH: usize = 4400;

/// A world in which packets go every way and leave nothing but counts behind.
pub fn world() -> World {
    dropping().tracking_bound().with([
        Bound::tcp("*:80").drop(),
        Bound::udp("*:80").untracked(),
        Bound::tcp("10.0.0.0/8:1-1023").untracked(),
        Bound::udp("[2001:db8::/32]:*").drop(),
        Bound::tcp("*:*").here().drop(),
    ])
}

/// A world in which packets are handed on every way and leave nothing but counts behind; what is
/// remembered of fragments, and the rows that errors are about, are those of a [`Scene`].
pub fn steering() -> World {
    super::world::steering().tracking_bound().with([
        Bound::tcp("*:80").to_set(SET).untracked(),
        Bound::udp("*:80").to_cpus(&[CPU]).untracked().or_stack(),
        Bound::tcp("10.0.0.0/8:1-1023")
            .to_set(SET_OF_NOBODY)
            .untracked(),
        Bound::udp("[2001:db8::/32]:*").drop(),
        Bound::tcp("*:*")
            .here()
            .to_cpus(&[NO_CPU])
            .untracked()
            .or_stack(),
    ])
}

/// What has to be there for a frame to go another way than others of its kind: the first fragment of its
/// packet, or the connection that it is about. Only as long as the frame is looked at.
#[derive(Debug, Default)]
pub struct Scene {
    seen: BTreeMap<(&'static str, &'static str), usize>,
    is_set: bool,
}

/// Where a scene is set.
pub trait Stage {
    /// Remembers these packets in fragments, and no others.
    fn keep(&mut self, kept: &[Kept]);
    /// Enters rows.
    fn enter(&mut self, rows: &[Row]);
    /// Ends them.
    fn remove(&mut self, rows: &[Row]);
}

impl Scene {
    pub fn set(&mut self, frame: &[u8], stage: &mut impl Stage) {
        self.is_set = true;
        match parse(frame) {
            Err(Reason::Fragment) => stage.keep(&kept()),
            Err(Reason::OtherProtocol) => stage.enter(&rows()),
            _ => self.is_set = false,
        }
    }

    pub fn clear(&self, stage: &mut impl Stage) {
        if self.is_set {
            stage.keep(&[]);
            stage.remove(&rows());
        }
    }

    pub fn count(&mut self, decision: Decision) {
        let Decision {
            verdict, reason, ..
        } = decision;
        let what = (verdict.name(), reason.name());
        *self.seen.entry(what).or_default() += 1;
    }

    /// Of everything that can happen to frames of these kinds, some has.
    pub fn assert_everything_was_met(&self) {
        for (verdict, reasons) in [
            (
                Verdict::Redirect,
                &[Reason::Bound, Reason::Fragment, Reason::IcmpError][..],
            ),
            (Verdict::Drop, &[Reason::NoTarget, Reason::Fragment]),
            (
                Verdict::Pass,
                &[Reason::NoTarget, Reason::Fragment, Reason::OtherProtocol],
            ),
        ] {
            for reason in reasons {
                let what = (verdict.name(), reason.name());
                assert!(self.seen.contains_key(&what), "{what:?} of {self:?}");
            }
        }
    }
}

fn kept() -> Vec<Kept> {
    let of = |protocol, family: usize, binding| {
        Kept::new(
            protocol,
            table::REMOTE[family],
            &table::local(family, 80),
            binding,
        )
    };
    // Over IPv6 both protocols are one packet.
    vec![
        of(Protocol::Tcp, 0, 1),
        of(Protocol::Udp, 0, 2),
        of(Protocol::Tcp, 1, 1),
    ]
}

fn rows() -> Vec<Row> {
    let each = (0..table::FAMILIES.len()).flat_map(|family| {
        let (remote, own) = (table::REMOTE[family], table::local(family, 80));
        [
            Row::tcp(remote, &own, State::Established, 1000).of_binding(1),
            Row::udp(remote, &own, State::Assured).of_binding(2),
        ]
    });
    each.collect()
}

/// A world in which all that can be is refused.
pub fn refusing() -> World {
    rejecting()
        .tracking_bound()
        .with([Bound::tcp("*:*").reject(), Bound::udp("*:1-999").reject()])
}

/// Calls `visit` with `count` frames of the table, each damaged by chance, most of them with
/// checksums that are right nevertheless.
pub fn refusals(random: &mut Random, count: usize, mut visit: impl FnMut(&[u8])) {
    let frames: Vec<Vec<u8>> = table::all()
        .into_iter()
        .chain(table::reject::answers())
        .filter(|case| matches!(case.way, Way::In(_)) && case.frame.len() < 1500)
        .map(|case| case.frame)
        .collect();
    for _ in 0..count {
        let mut frame = frames[random.below(frames.len())].clone();
        damage(random, &mut frame);
        if !random.one_in(4) {
            resum(&mut frame);
        }
        visit(&frame);
    }
}

/// Makes the checksums of a frame right, if it is one that the parser takes.
fn resum(bytes: &mut Vec<u8>) {
    let Ok(parsed) = parse(&bytes[..]) else {
        return;
    };
    let header_len = match parsed.key.protocol {
        Protocol::Tcp => parsed.segment.header_len,
        Protocol::Udp => 8,
    };
    let mut frame = Frame {
        network: answer::network(bytes),
        transport: (parsed.headers_len - header_len) as usize,
        protocol: Some(parsed.key.protocol),
        bytes: std::mem::take(bytes),
    };
    if frame.is_v4() {
        frame.sum_header();
    }
    *bytes = frame.summed().bytes;
}

/// Calls `visit` with every frame of the table, each cut at every length from 14 bytes on, or with
/// as many of those as the environment allows; returns how many.
pub fn cut(mut visit: impl FnMut(&[u8])) -> usize {
    let frames = frames();
    let cuts: Vec<&[u8]> = frames
        .iter()
        .flat_map(|frame| {
            (14..=frame.len())
                .filter(|&length| {
                    length <= EVERY_LENGTH || length % 997 == 0 || length == frame.len()
                })
                .map(|length| &frame[..length])
        })
        .collect();
    let chosen = cuts.iter().step_by(cuts.len().div_ceil(cases(cuts.len())));
    chosen.clone().for_each(|frame| visit(frame));
    chosen.len()
}

/// Calls `visit` with the frames of the table that are handed on or might be, cut at every length and
/// damaged by chance, `count` of each at most; returns how many.
pub fn steered(random: &mut Random, count: usize, mut visit: impl FnMut(&[u8])) -> usize {
    const LONGEST: usize = 200;
    let mut frames: Vec<Vec<u8>> = table::steered()
        .into_iter()
        .filter(|case| matches!(case.way, Way::In(_)) && case.frame.len() <= LONGEST)
        .map(|case| case.frame)
        .collect();
    frames.sort_unstable();
    frames.dedup();
    let cuts = || {
        let of = |frame: &'_ Vec<u8>| 14..=frame.len();
        frames
            .iter()
            .flat_map(move |frame| of(frame).map(move |length| &frame[..length]))
    };
    let all = cuts().count();
    let chosen = cuts().step_by(all.div_ceil(cases(all.min(count))));
    let mut visited = 0;
    for frame in chosen {
        visit(frame);
        visited += 1;
    }
    for _ in 0..count {
        let mut frame = frames[random.below(frames.len())].clone();
        damage(random, &mut frame);
        visit(&frame);
    }
    visited + count
}

/// Calls `visit` with `count` frames of the table, each damaged by chance.
pub fn mutated(random: &mut Random, count: usize, mut visit: impl FnMut(&[u8])) {
    // Large frames are slow, and their headers are those of small ones.
    let frames: Vec<Vec<u8>> = frames()
        .into_iter()
        .filter(|frame| frame.len() < 1500)
        .collect();
    for _ in 0..count {
        let mut frame = frames[random.below(frames.len())].clone();
        damage(random, &mut frame);
        visit(&frame);
    }
}

/// Every frame of the table, once.
fn frames() -> Vec<Vec<u8>> {
    // Test runs take no longer ones: 17 pages.
    const LONGEST: usize = 69_000;
    let mut frames: Vec<Vec<u8>> = table::all()
        .into_iter()
        .map(|case| case.frame)
        .filter(|frame| frame.len() <= LONGEST)
        .collect();
    frames.sort_unstable();
    frames.dedup();
    frames
}

/// What two decisions about a frame differ in.
pub fn compare(frame: &[u8], expected: Decision, found: Decision) {
    assert!(
        expected == found,
        "expected {expected:?}, found {found:?} for {frame:02x?}"
    );
}
