//! One owner on one queue: the daemon's side of the region, where it stands in for the kernel.
//!
//! What the owner writes there may be anything and may change at any time. Indices are bounded by the
//! rings; addresses and lengths are read once and checked; frames are copied and then judged in the copy.
//! Whatever is wrong harms nobody but the owner.

use std::{os::fd::OwnedFd, sync::Arc};

use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::queue::{ARRIVING, Queue};
use crate::{
    Result,
    daemon::{counters::Counters, gate::Gate},
    xsk::{
        area::Area,
        port::{HEADROOM, MAX_PARTS},
        queue::Place,
        region::{KernelSide, Region},
        ring::{Consumer, Descriptor},
        socket::Socket,
    },
};

/// Frames of one owner that are handled before it is another one's turn.
const BUDGET: u32 = 64;

/// Descriptors that are looked at in one turn, of which all may be garbage.
const LOOKS: u32 = 4 * BUDGET;

/// What an owner brings to a hub.
#[derive(Debug)]
pub(in crate::daemon) struct Port {
    /// Shares the memory of the queue; what the datapath redirects to the set arrives here.
    pub(super) socket: Socket,
    rx: Consumer<Descriptor>,
    area: Area,
    rings: KernelSide,
    /// Each side wakes the other by a byte. A socket and no eventfd: one side cannot make the other's calls
    /// block, and learns when the other is gone.
    pub(super) wake: OwnedFd,
    takes_long_frames: bool,
    gate: Gate,
    counters: Arc<Counters>,
    /// The parts of the frame that is arriving.
    arriving: Vec<Descriptor>,
    /// Chunks of the region that were taken from the fill ring and not used yet.
    spare: Vec<u64>,
    /// The parts of the frame that is leaving.
    leaving: Vec<Descriptor>,
    /// Whether the frame that is leaving is none, so that it ends with its last part.
    is_spoilt: bool,
    /// The frame whose parts were all read, and which has not left yet.
    frame: Vec<u8>,
}

/// What an owner's part in a queue is made of.
#[derive(Debug)]
pub(in crate::daemon) struct OwnerSide {
    /// The memory that is shared with the owner, fresh.
    pub(in crate::daemon) region: Region,
    /// One end of a pair of sockets, of which the owner has the other.
    pub(in crate::daemon) wake: OwnedFd,
    /// Whether the owner takes frames in several chunks.
    pub(in crate::daemon) takes_long_frames: bool,
    /// What the owner may send.
    pub(in crate::daemon) gate: Gate,
    /// What is counted for the owner.
    pub(in crate::daemon) counters: Arc<Counters>,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There was nothing more.
    Idle,
    /// There may be more.
    Busy,
    /// There is more, and the way out is full.
    Blocked,
    /// There is more, and the owner has to take back what has left, and say so.
    Stalled,
}

impl Port {
    /// Opens an owner's socket on the queue of `first`.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses it.
    pub(super) fn open(place: &Place, first: &Socket, owner: OwnerSide) -> Result<Self> {
        let socket = Socket::new()?;
        let rx = socket.rx(ARRIVING)?;
        socket.bind_sharing(place, first)?;
        Ok(Self {
            socket,
            rx,
            area: owner.region.area(),
            rings: owner.region.kernel_side(),
            wake: owner.wake,
            takes_long_frames: owner.takes_long_frames,
            gate: owner.gate,
            counters: owner.counters,
            arriving: Vec::with_capacity(MAX_PARTS),
            spare: Vec::with_capacity(MAX_PARTS),
            leaving: Vec::with_capacity(MAX_PARTS),
            is_spoilt: false,
            frame: Vec::new(),
        })
    }

    /// Hands frames that have arrived on to the owner, or drops those that it has no room for.
    pub(super) fn arrive(&mut self, queue: &mut Queue) -> Turn {
        let mut turn = Turn::Busy;
        let mut given = 0;
        for _ in 0..BUDGET {
            let Some(descriptor) = self.rx.pop() else {
                turn = Turn::Idle;
                break;
            };
            self.arriving.push(descriptor);
            if descriptor.continues() {
                continue;
            }
            given += u32::from(self.give(queue));
            for part in self.arriving.drain(..) {
                queue.give_back(part.address);
            }
        }
        self.rx.release();
        self.rings.fill.release();
        if given > 0 {
            self.rings.rx.submit();
            if self.rings.rx.take_wakeup() {
                // If it cannot be told it is gone, or was told before and does not listen.
                let _ = send(&self.wake, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            }
        }
        turn
    }

    /// Copies the frame whose parts have arrived into the region; `false` where it is dropped.
    fn give(&mut self, queue: &Queue) -> bool {
        let room = (self.area.chunk_size() - HEADROOM) as usize;
        let len: usize = self.arriving.iter().map(|part| part.len as usize).sum();
        let chunks = len.div_ceil(room).max(1);
        if chunks > MAX_PARTS || chunks > 1 && !self.takes_long_frames {
            self.counters.rx_dropped.add(1);
            return false;
        }
        if (self.rings.rx.free() as usize) < chunks {
            self.counters.rx_ring_full.add(1);
            return false;
        }
        if !self.take_chunks(chunks) {
            self.counters.fill_ring_empty.add(1);
            return false;
        }
        let mut parts = self.arriving.iter().map(|part| queue.arrived(part));
        let mut part: &[u8] = parts.next().unwrap_or_default();
        let mut left = len;
        for chunk in self.spare.split_off(self.spare.len() - chunks) {
            let start = chunk + u64::from(HEADROOM);
            let target = room.min(left);
            let mut filled = 0;
            while filled < target {
                if part.is_empty() {
                    let Some(next) = parts.next() else { break };
                    part = next;
                    continue;
                }
                let (now, later) = part.split_at(part.len().min(target - filled));
                let was_written = self.area.copy_in(start + filled as u64, now);
                debug_assert!(was_written, "the address was checked");
                filled += now.len();
                part = later;
            }
            left -= filled;
            self.rings.rx.push(Descriptor {
                address: start,
                len: filled as u32,
                options: if left > 0 { Descriptor::CONTINUES } else { 0 },
            });
        }
        self.counters.rx_packets.add(1);
        self.counters.rx_bytes.add(len as u64);
        true
    }

    /// Takes chunks from the fill ring until `count` are spare. Addresses that are none are skipped, of
    /// which there may be as many as the ring holds.
    fn take_chunks(&mut self, count: usize) -> bool {
        let mut invalid = 0;
        while self.spare.len() < count && invalid < self.rings.fill.size() {
            let Some(address) = self.rings.fill.pop() else {
                return false;
            };
            match self.area.chunk_of(address) {
                // As the kernel does, wherever in the chunk it points.
                Some(chunk) => self.spare.push(self.area.address_of(chunk)),
                None => {
                    self.counters.rx_invalid.add(1);
                    invalid += 1;
                }
            }
        }
        self.spare.len() >= count
    }

    /// Sends frames of the owner, and refuses those that are not its own.
    pub(super) fn depart(&mut self, queue: &mut Queue) -> Turn {
        if self.frame.is_empty() && self.rings.tx.available() == 0 {
            return Turn::Idle;
        }
        self.gate.begin();
        let mut turn = Turn::Busy;
        let mut sent = 0;
        for _ in 0..LOOKS {
            if sent == BUDGET {
                break;
            }
            if self.frame.is_empty() {
                match self.rings.tx.pop() {
                    Some(descriptor) => self.read_part(descriptor),
                    None => {
                        turn = Turn::Idle;
                        break;
                    }
                }
                if self.frame.is_empty() {
                    continue;
                }
            }
            if (self.rings.completion.free() as usize) < self.leaving.len() {
                turn = Turn::Stalled;
                break;
            }
            if !self.send(queue) {
                turn = Turn::Blocked;
                break;
            }
            sent += 1;
        }
        // Before it leaves, so that what the remote answers finds the row.
        self.gate.report();
        self.rings.tx.release();
        self.rings.completion.submit();
        turn
    }

    /// Notes a part of the frame that is leaving; with the last one, `frame` is the whole.
    fn read_part(&mut self, descriptor: Descriptor) {
        self.leaving.push(descriptor);
        let is_part = descriptor.len > 0 && descriptor.options & !Descriptor::CONTINUES == 0;
        self.is_spoilt |= !is_part || self.leaving.len() > MAX_PARTS;
        if self.is_spoilt {
            // Whatever its length, it takes no memory.
            self.leaving.truncate(1);
        }
        if descriptor.continues() {
            return;
        }
        let is_whole = !self.is_spoilt
            && self
                .leaving
                .iter()
                .all(|part| self.area.copy_out(part.address, part.len, &mut self.frame));
        if !is_whole {
            // As in the kernel, the chunks of what is no frame do not come back.
            self.counters.tx_invalid.add(1);
            self.frame.clear();
            self.leaving.clear();
            self.is_spoilt = false;
        }
    }

    /// Sends the copied frame if it may be sent; `false` where it has to wait.
    fn send(&mut self, queue: &mut Queue) -> bool {
        let is_short = self.frame.len() <= queue.longest();
        match self.gate.judge(&self.frame).filter(|_| is_short) {
            Some(report) => {
                if !queue.send(&self.frame) {
                    return false;
                }
                self.gate.note(report);
                self.counters.tx_packets.add(1);
                self.counters.tx_bytes.add(self.frame.len() as u64);
            }
            None => self.counters.tx_refused.add(1),
        }
        for part in self.leaving.drain(..) {
            self.rings.completion.push(part.address);
        }
        self.frame.clear();
        true
    }

    /// Makes ready for sleep: from now on the owner tells when it has submitted frames. `false` where some
    /// are there already, which is of no interest while the owner is to act first.
    pub(super) fn may_sleep(&mut self, turn: Turn) -> bool {
        self.rings.tx.set_needs_wakeup(true);
        turn == Turn::Stalled || self.rings.tx.available_now() == 0
    }

    /// Ends that.
    pub(super) fn awake(&self) {
        self.rings.tx.set_needs_wakeup(false);
    }

    /// Takes note that the owner wants to be looked at; `false` where its end of the socket is closed.
    pub(super) fn hear(&self) -> bool {
        let mut bytes = [0; 256];
        !matches!(
            recv(&self.wake, &mut bytes, RecvFlags::DONTWAIT),
            Ok((_, 0))
        )
    }
}
