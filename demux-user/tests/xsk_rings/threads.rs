//! Two threads, each with a mapping of its own, over one region.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use demux_user::xsk::{
    port::{Peer, Port},
    region::{Region, Shape},
    ring::Descriptor,
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::{read, write},
};

const SHAPE: Shape = Shape {
    chunk_size: 2048,
    chunks: 32,
    ring_size: 16,
};

const FRAMES: u64 = 100_000;

/// A port, and what its other side has of it.
pub(crate) fn port(shape: Shape, multi_buffer: bool) -> (Port, Far) {
    let near = Region::create(shape).unwrap();
    let fd = near.as_fd().try_clone_to_owned().unwrap();
    let far = Region::open(fd, shape).unwrap();
    let arrived = event();
    let kick = event();
    let far = Far {
        arrived: arrived.try_clone().unwrap(),
        kick: kick.try_clone().unwrap(),
        region: far,
    };
    let peer = Peer::Process { arrived, kick };
    let port = Port::new(near.area(), near.owner_side(), peer, multi_buffer).unwrap();
    (port, far)
}

/// The other side.
pub(crate) struct Far {
    pub(crate) arrived: OwnedFd,
    pub(crate) kick: OwnedFd,
    pub(crate) region: Region,
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}

fn wait(event: &OwnedFd) {
    poll(&mut [PollFd::new(event, PollFlags::IN)], None).unwrap();
    let _ = read(event, &mut [0; 8]);
}

/// A frame that says which it is, of some length that follows from it.
fn frame(number: u64) -> Vec<u8> {
    let mut frame = number.to_ne_bytes().to_vec();
    frame.resize(14 + (number % 1500) as usize, number as u8);
    frame
}

#[test]
fn every_frame_comes_back_in_order() {
    let (mut port, far) = port(SHAPE, false);
    thread::scope(|scope| {
        scope.spawn(move || echo(&far));
        let (mut sent, mut received) = (0, 0);
        while received < FRAMES {
            while sent < FRAMES && port.send(&frame(sent)).unwrap() {
                sent += 1;
            }
            port.flush().unwrap();
            while port.receive().unwrap() {
                assert_eq!(port.frame(), frame(received));
                received += 1;
            }
            // With nothing on its way nothing would come.
            if received < sent && port.may_sleep() {
                poll(&mut [PollFd::new(&port, PollFlags::IN)], None).unwrap();
            }
        }
        assert_eq!(port.malformed(), 0);
    });
}

/// Plays the kernel: gives back every frame that is sent, and sleeps whenever there is nothing to do.
fn echo(far: &Far) {
    let mut area = far.region.area();
    let mut rings = far.region.kernel_side();
    let mut bytes = Vec::new();
    let mut left = FRAMES;
    while left > 0 {
        let mut moved = 0;
        while rings.tx.available() > 0
            && rings.fill.available() > 0
            && rings.completion.free() > 0
            && rings.rx.free() > 0
        {
            let from = rings.tx.pop().unwrap();
            let to = rings.fill.pop().unwrap();
            bytes.clear();
            assert!(area.copy_out(from.address, from.len, &mut bytes));
            assert!(area.copy_in(to, &bytes));
            assert!(rings.completion.push(from.address));
            assert!(rings.rx.push(Descriptor {
                address: to,
                ..from
            }));
            moved += 1;
        }
        if moved > 0 {
            left -= moved;
            rings.tx.release();
            rings.fill.release();
            rings.completion.submit();
            rings.rx.submit();
            if rings.rx.take_wakeup() {
                write(&far.arrived, &1_u64.to_ne_bytes()).unwrap();
            }
            continue;
        }
        rings.tx.set_needs_wakeup(true);
        rings.fill.set_needs_wakeup(true);
        let is_idle = rings.tx.available_now() == 0 || rings.fill.available_now() == 0;
        if is_idle {
            wait(&far.kick);
        }
    }
}
