//! The network interface of the stack: IP packets on one side, frames in AF_XDP sockets on the other.
//!
//! Each packet is copied once on the way in, so that its checksum can be completed, and once on the way out.

use std::{collections::VecDeque, os::fd::AsFd as _, time::Duration};

use demux_common::wire::ethernet;
use demux_user::{
    Error, Result, interface,
    xsk::{
        Queue, Sent, Set, checksum,
        link::{Link, Outcome},
    },
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use smoltcp::{
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
};

/// How many packets may be on their way out before the stack has to wait.
const LEAVING: usize = 256;

/// Ethernet header and two VLAN tags.
const HEADERS: usize = 22;

/// How soon to look again for room in the rings.
const SOON: Duration = Duration::from_millis(1);

/// See the module.
pub(super) struct Wire {
    set: Set,
    link: Link,
    mtu: usize,
    /// The packet that the stack is to take next.
    arrived: Option<Vec<u8>>,
    /// Packets that the stack has sent.
    leaving: VecDeque<Vec<u8>>,
    /// Whether there were too many of them to take one in.
    is_full: bool,
}

impl Wire {
    pub(super) fn new(set: Set, link: Link, interfaces: &[String]) -> Result<Self> {
        let mut mtu = set.longest_frame().saturating_sub(HEADERS);
        for name in interfaces {
            mtu = mtu.min(interface::by_name(name)?.mtu as usize);
        }
        Ok(Self {
            set,
            link,
            mtu,
            arrived: None,
            leaving: VecDeque::new(),
            is_full: false,
        })
    }

    /// What the frames go through, for people.
    pub(super) fn describe(&self) -> String {
        let describe = |queue: &Queue| {
            let copies = if queue.zero_copy { "zero copy" } else { "copy" };
            format!("{} queue {} ({copies})", queue.interface, queue.id.queue)
        };
        let queues: Vec<String> = self.set.queues().iter().map(describe).collect();
        queues.join(", ")
    }

    /// Gets the next packet ready for the stack; `false` where there is none, or where the stack must not
    /// answer before some of what it has sent is gone.
    pub(super) fn receive(&mut self) -> Result<bool> {
        self.is_full = self.leaving.len() >= LEAVING;
        if self.is_full {
            return Ok(false);
        }
        while let Some(received) = self.set.receive()? {
            let mut frame = received.frame().to_vec();
            // A local sender may have left the checksum to its device. A wrong one is the stack's to find.
            checksum::complete(&mut frame);
            if let Ok(header) = ethernet::read(&frame[..]) {
                frame.drain(..header.payload);
                self.arrived = Some(frame);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sends what the stack has sent, then sleeps until there is something to do, or for `timeout`.
    pub(super) fn flush_and_wait(&mut self, timeout: Option<Duration>) -> Result<()> {
        self.link.update()?;
        let is_all = self.send()?;
        self.set.flush()?;
        let timeout = if !is_all || self.set.unsent() > 0 {
            // The descriptors do not tell when there is room again.
            Some(SOON)
        } else if self.is_full {
            // Nobody has looked whether something has arrived.
            Some(Duration::ZERO)
        } else {
            [self.link.timeout(), timeout].into_iter().flatten().min()
        };
        if timeout == Some(Duration::ZERO) {
            return Ok(());
        }
        // Rounded up: waking too early would only mean to sleep again.
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            let milliseconds = timeout.as_micros().div_ceil(1000);
            PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
        });
        let (set, link) = (self.set.as_fd(), self.link.as_fd());
        let mut fds = [set, link].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::io("wait for frames", errno)),
        }
    }

    /// Puts packets into the rings; `false` where not all had room.
    fn send(&mut self) -> Result<bool> {
        while let Some(frame) = self.link.next_ready() {
            if !send_by(&mut self.set, frame.interface, frame.bytes)? {
                // It has waited for long; whoever misses it will ask again.
                break;
            }
        }
        while let Some(packet) = self.leaving.front() {
            let is_gone = match self.link.frame(packet) {
                Ok(Outcome::Frame(frame)) => send_by(&mut self.set, frame.interface, frame.bytes)?,
                Ok(Outcome::Waiting) => true,
                // Lost, as packets are that no network takes; TCP copes with that.
                Err(
                    Error::Unreachable { .. }
                    | Error::PacketTooLong { .. }
                    | Error::InvalidArgument { .. },
                ) => true,
                Err(error) => return Err(error),
            };
            if !is_gone {
                return Ok(false);
            }
            self.leaving.pop_front();
        }
        Ok(true)
    }
}

/// Puts a frame into the ring of a queue of this interface; `false` where it has no room.
fn send_by(set: &mut Set, interface: u32, frame: &[u8]) -> Result<bool> {
    let queue = set
        .queues()
        .iter()
        .find(|queue| queue.id.ifindex == interface);
    let Some(queue) = queue.map(|queue| queue.id) else {
        return Ok(true);
    };
    if set.send(queue, frame)? == Sent::Queued {
        return Ok(true);
    }
    // What the kernel has sent meanwhile makes room.
    set.flush()?;
    Ok(set.send(queue, frame)? == Sent::Queued)
}

/// A packet for the stack.
pub(super) struct Arrived(Vec<u8>);

/// Where the stack puts a packet that it sends.
pub(super) struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl Device for Wire {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let packet = self.arrived.take()?;
        Some((Arrived(packet), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Leaving<'_>> {
        (self.leaving.len() < LEAVING).then_some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let result = fill(&mut packet);
        self.0.push_back(packet);
        result
    }
}
