//! A port, with a test on its other side.

use std::time::Duration;

use demux_user::xsk::{
    port::Port,
    region::{KernelSide, Shape},
    ring::Descriptor,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    chance::{Random, cases},
    threads::{Far, port},
};

const SHAPE: Shape = Shape {
    chunk_size: 2048,
    chunks: 8,
    ring_size: 4,
};

fn descriptor(address: u64, len: u32, continues: bool) -> Descriptor {
    Descriptor {
        address,
        len,
        options: u32::from(continues),
    }
}

/// Writes parts into chunks of the fill ring and hands them over.
fn arrive(far: &Far, rings: &mut KernelSide, parts: &[&[u8]]) {
    let mut area = far.region.area();
    for (index, part) in parts.iter().enumerate() {
        let address = rings.fill.pop().expect("a chunk") + 256;
        assert!(area.copy_in(address, part));
        let continues = index + 1 < parts.len();
        assert!(
            rings
                .rx
                .push(descriptor(address, part.len() as u32, continues))
        );
    }
    rings.fill.release();
    rings.rx.submit();
}

fn is_readable(port: &Port) -> bool {
    let now = Timespec::try_from(Duration::ZERO).unwrap();
    poll(&mut [PollFd::new(port, PollFlags::IN)], Some(&now)).unwrap() > 0
}

#[test]
fn parts_are_joined() {
    let (mut port, far) = port(SHAPE, true);
    let mut rings = far.region.kernel_side();
    assert_eq!(rings.fill.available(), 4, "half of the chunks");
    assert!(!port.receive().unwrap());

    arrive(&far, &mut rings, &[b"whole"]);
    arrive(&far, &mut rings, &[b"in ", b"three ", b"parts"]);
    assert!(port.receive().unwrap());
    assert_eq!(port.frame(), b"whole");
    assert!(port.receive().unwrap());
    assert_eq!(port.frame(), b"in three parts");
    assert!(!port.receive().unwrap());
    assert_eq!(port.frame(), b"");
    assert_eq!(rings.fill.available_now(), 4, "all chunks came back");
    assert_eq!(port.malformed(), 0);
}

#[test]
fn a_frame_may_arrive_part_by_part() {
    let (mut port, far) = port(SHAPE, true);
    let mut rings = far.region.kernel_side();
    let mut area = far.region.area();
    for (part, continues) in [(b"one".as_slice(), true), (b"two", true), (b"three", false)] {
        assert!(!port.receive().unwrap());
        let address = rings.fill.pop().unwrap();
        assert!(area.copy_in(address, part));
        assert!(
            rings
                .rx
                .push(descriptor(address, part.len() as u32, continues))
        );
        rings.rx.submit();
    }
    assert!(port.receive().unwrap());
    assert_eq!(port.frame(), b"onetwothree");
}

#[test]
fn a_long_frame_leaves_in_parts() {
    let (mut port, far) = port(SHAPE, true);
    let mut rings = far.region.kernel_side();
    let frame: Vec<u8> = (0..5000_u32).map(|number| number as u8).collect();
    assert!(port.send(&frame).unwrap());
    assert!(
        !port.send(&frame).unwrap(),
        "there is no room for three more"
    );
    assert!(port.send(&frame[..60]).unwrap(), "but for one");
    assert_eq!(
        rings.tx.available_now(),
        0,
        "nothing is shown before the flush"
    );
    port.flush().unwrap();
    assert_eq!(port.unsent(), 4);

    let area = far.region.area();
    let mut bytes = Vec::new();
    for (len, continues) in [(2048, true), (2048, true), (904, false), (60, false)] {
        let part = rings.tx.pop().unwrap();
        assert_eq!((part.len, part.continues()), (len, continues));
        assert!(area.copy_out(part.address, part.len, &mut bytes));
        assert!(rings.completion.push(part.address));
    }
    assert_eq!(bytes[..5000], frame);
    assert!(
        !port.send(&frame).unwrap(),
        "the chunks have not come back yet"
    );
    rings.tx.release();
    rings.completion.submit();
    assert_eq!(port.unsent(), 0);
    assert!(port.send(&frame).unwrap());
}

#[test]
fn lengths_that_cannot_be_sent_are_refused() {
    for (multi_buffer, longest) in [(false, 1792), (true, 16 * 1792)] {
        let shape = Shape {
            chunks: 64,
            ring_size: 32,
            ..SHAPE
        };
        let (mut port, _far) = port(shape, multi_buffer);
        assert_eq!(port.longest_frame(), longest);
        for len in [0, 13, longest + 1] {
            let error = port.send(&vec![0; len]).unwrap_err();
            assert_eq!(error.code(), "invalid_argument");
        }
        for len in [14, longest] {
            assert!(port.send(&vec![0; len]).unwrap());
        }
    }
}

#[test]
fn a_sleeper_is_told_of_what_arrives() {
    let (mut port, far) = port(SHAPE, false);
    let mut rings = far.region.kernel_side();
    arrive(&far, &mut rings, &[b"early"]);
    assert!(!port.may_sleep(), "something is there");
    assert!(port.receive().unwrap() && !port.receive().unwrap());

    assert!(port.may_sleep());
    assert!(!is_readable(&port));
    for _ in 0..3 {
        arrive(&far, &mut rings, &[b"later"]);
        assert!(rings.rx.take_wakeup());
        rustix::io::write(&far.arrived, &1_u64.to_ne_bytes()).unwrap();
        arrive(&far, &mut rings, &[b"at once"]);
        assert!(!rings.rx.take_wakeup(), "once is enough");
        assert!(is_readable(&port));
        assert!(port.receive().unwrap() && port.receive().unwrap() && !port.receive().unwrap());
        assert!(port.may_sleep());
        assert!(!is_readable(&port), "what was told is known");
    }
}

#[test]
fn what_cannot_be_is_dropped() {
    let (mut port, far) = port(SHAPE, true);
    let mut rings = far.region.kernel_side();
    let chunks: Vec<u64> = std::iter::from_fn(|| rings.fill.pop()).collect();
    let mut show = |port: &mut Port, descriptors: &[Descriptor]| {
        for &descriptor in descriptors {
            assert!(rings.rx.push(descriptor));
        }
        rings.rx.submit();
        port.receive().unwrap()
    };
    // Nowhere; across the end of its chunk; in a chunk for sending.
    assert!(!show(&mut port, &[descriptor(u64::MAX, 1, false)]));
    assert!(!show(
        &mut port,
        &[descriptor(chunks[0] + 2000, 100, false)]
    ));
    assert!(!show(&mut port, &[descriptor(4 * 2048, 100, false)]));
    // A chunk that it has given away already.
    assert!(show(&mut port, &[descriptor(chunks[1], 100, false)]));
    assert!(!show(&mut port, &[descriptor(chunks[1], 100, false)]));
    assert_eq!(port.malformed(), 4);
    // A frame of which one part cannot be is dropped as a whole.
    let parts = [
        descriptor(chunks[2], 100, true),
        descriptor(u64::MAX, 100, true),
        descriptor(chunks[3], 100, false),
    ];
    assert!(!show(&mut port, &parts));
    assert_eq!(port.malformed(), 5);
    // What was never sent has not left.
    assert!(rings.completion.push(5 * 2048) && rings.completion.push(u64::MAX));
    rings.completion.submit();
    port.flush().unwrap();
    assert_eq!(port.malformed(), 7);
}

#[test]
fn a_frame_without_an_end_is_dropped() {
    let (mut port, far) = port(SHAPE, true);
    let mut rings = far.region.kernel_side();
    let part = [7; 1700];
    for index in 0..40 {
        let address = rings.fill.pop().unwrap();
        assert!(far.region.area().copy_in(address, &part));
        assert!(rings.rx.push(descriptor(address, 1700, index < 39)));
        rings.rx.submit();
        rings.fill.release();
        assert!(!port.receive().unwrap());
    }
    assert_eq!(port.malformed(), 1);
    arrive(&far, &mut rings, &[b"the next one"]);
    assert!(port.receive().unwrap());
    assert_eq!(port.frame(), b"the next one");
}

#[test]
fn no_chunk_is_lost_or_doubled_whatever_is_said() {
    let mut random = Random::new();
    for _ in 0..cases(200) {
        let (mut port, far) = port(SHAPE, true);
        let mut rings = far.region.kernel_side();
        let mut owned: Vec<u64> = std::iter::from_fn(|| rings.fill.pop()).collect();
        for _ in 0..100 {
            let address = random.next() % (9 * 2048);
            let options = random.below(2) as u32;
            let len = random.below(3000) as u32;
            match random.below(5) {
                0 => {
                    let descriptor = Descriptor {
                        address,
                        len,
                        options,
                    };
                    if rings.rx.push(descriptor) {
                        owned.retain(|chunk| chunk / 2048 != address / 2048);
                    }
                }
                1 => {
                    rings.completion.push(address);
                }
                2 if rings.rx.free() > 0 => {
                    if let Some(address) = owned.pop() {
                        let len = len % 2048;
                        assert!(rings.rx.push(Descriptor {
                            address,
                            len,
                            options
                        }));
                    }
                }
                3 => {
                    if let Some(part) = rings.tx.pop() {
                        rings.completion.push(part.address);
                    }
                }
                _ => {
                    let _ = port.send(&vec![1; 14 + random.below(4000)]).unwrap();
                }
            }
            rings.rx.submit();
            rings.completion.submit();
            rings.fill.release();
            rings.tx.release();
            while port.receive().unwrap() {
                assert!(port.frame().len() <= port.longest_frame() + 2048);
            }
            port.flush().unwrap();
            // It never offers a chunk twice, nor one that frames are sent in.
            let mut offered: Vec<u64> = std::iter::from_fn(|| rings.fill.pop()).collect();
            owned.append(&mut offered);
            rings.fill.release();
            let mut chunks: Vec<u64> = owned.iter().map(|address| address / 2048).collect();
            chunks.sort_unstable();
            chunks.dedup();
            assert!(chunks.iter().all(|&chunk| chunk < 4));
            assert_eq!(chunks.len(), owned.len());
        }
    }
}
