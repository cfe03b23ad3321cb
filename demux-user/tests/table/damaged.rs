//! Frames of the table, cut and mutated, in one world that changes nothing.

use demux_common::{decide::Decision, protocol::Protocol};

use super::{
    answer, cases as table,
    check::Way,
    frames::Frame,
    random::{Random, cases, damage},
    world::{Bound, World, dropping, rejecting},
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
    let Ok(parsed) = demux_common::parse::parse(&bytes[..]) else {
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
