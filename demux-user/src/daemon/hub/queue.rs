//! A receive queue as the daemon has it: the memory of its frames, and the socket that brought it.
//!
//! That memory is seen by the daemon and the kernel alone. Frames are copied between it and the regions
//! that are shared with owners.

use std::{io, sync::Arc};

use crate::{
    Error, Result,
    xsk::{
        area::Area,
        port::{HEADROOM, MAX_PARTS, transmit},
        queue::Place,
        ring::{Consumer, Descriptor, Producer},
        socket::{Binding, CopyMode, Socket},
    },
};

/// Bytes of a chunk.
const CHUNK: u32 = 4096;

/// Chunks for frames that arrive, for all owners together. Each owner's socket has room for all of them, so
/// that its ring is never full.
pub(super) const ARRIVING: u32 = 2048;

/// Chunks for frames that leave.
const LEAVING: u32 = 1024;

/// The longest frame that a queue hands on, in bytes.
pub(super) const LONGEST: usize = (CHUNK - HEADROOM) as usize * MAX_PARTS;

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    socket: Arc<Socket>,
    area: Area,
    fill: Producer<u64>,
    tx: Producer<Descriptor>,
    completion: Consumer<u64>,
    /// Chunks for what arrives that the fill ring had no room for yet.
    returned: Vec<u64>,
    /// Chunks that frames can be sent in.
    free: Vec<u64>,
    takes_long_frames: bool,
}

impl Queue {
    /// Gives the queue its memory.
    ///
    /// # Errors
    ///
    /// [`Error::QueueBusy`] where it has that of somebody else, or still has that which it had a moment ago.
    pub(super) fn open(place: &Place) -> Result<Self> {
        match Self::open_for(place, true) {
            // Before Linux 6.6.
            Err(Error::Unsupported { .. }) => Self::open_for(place, false),
            result => result,
        }
    }

    fn open_for(place: &Place, multi_buffer: bool) -> Result<Self> {
        let area = Area::new(CHUNK, ARRIVING + LEAVING)
            .map_err(|source| Error::io("get the memory of a queue", source))?;
        let socket = Socket::new()?;
        socket.register(&area)?;
        // Twice as many slots as chunks: the kernel takes a chunk before it says so.
        let fill = socket.fill(2 * ARRIVING)?;
        let completion = socket.completion(LEAVING)?;
        let tx = socket.tx(LEAVING)?;
        let how = Binding {
            copy: CopyMode::Auto,
            multi_buffer,
        };
        socket.bind(place, how)?;
        let addresses = |chunks: std::ops::Range<u32>| chunks.map(|chunk| area.address_of(chunk));
        let mut queue = Self {
            returned: addresses(0..ARRIVING).collect(),
            free: addresses(ARRIVING..ARRIVING + LEAVING).collect(),
            socket: Arc::new(socket),
            fill,
            tx,
            completion,
            takes_long_frames: multi_buffer,
            area,
        };
        queue
            .refill()
            .map_err(|source| Error::io(format!("use {place}"), source))?;
        Ok(queue)
    }

    /// The socket whose memory others may share.
    pub(super) fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// The longest frame that can arrive and leave.
    pub(super) fn longest(&self) -> usize {
        if self.takes_long_frames {
            LONGEST
        } else {
            (CHUNK - HEADROOM) as usize
        }
    }

    /// What has arrived in a chunk, or in a part of one.
    pub(super) fn arrived(&self, descriptor: &Descriptor) -> &[u8] {
        // SAFETY: the kernel has given the chunk away, and only this thread gives it back. Nothing in this
        // process writes chunks for frames that arrive.
        unsafe { self.area.get(descriptor.address, descriptor.len) }.unwrap_or_default()
    }

    /// Takes back a chunk in which something has arrived. The kernel has it after [`Queue::refill`].
    pub(super) fn give_back(&mut self, address: u64) {
        self.returned.push(address - address % u64::from(CHUNK));
    }

    /// Gives the kernel the chunks that were taken back.
    ///
    /// # Errors
    ///
    /// As [`Queue::flush`].
    pub(super) fn refill(&mut self) -> io::Result<()> {
        let before = self.returned.len();
        while let Some(&address) = self.returned.last()
            && self.fill.push(address)
        {
            self.returned.pop();
        }
        if self.returned.len() == before {
            return Ok(());
        }
        self.fill.submit();
        if self.fill.needs_wakeup() {
            self.socket.kick_rx()?;
        }
        Ok(())
    }

    /// Puts a frame into the tx ring; `false` where there is no room. It leaves with [`Queue::flush`].
    pub(super) fn send(&mut self, frame: &[u8]) -> bool {
        let parts = frame.len().div_ceil(CHUNK as usize);
        if self.free.len() < parts {
            self.reap();
        }
        if self.free.len() < parts || (self.tx.free() as usize) < parts {
            return false;
        }
        let mut rest = frame.chunks(CHUNK as usize).peekable();
        for address in self.free.split_off(self.free.len() - parts) {
            let Some(part) = rest.next() else { break };
            let was_written = self.area.copy_in(address, part);
            let was_pushed = self.tx.push(Descriptor {
                address,
                len: part.len() as u32,
                options: match rest.peek() {
                    Some(_) => Descriptor::CONTINUES,
                    None => 0,
                },
            });
            debug_assert!(was_written && was_pushed, "there was room");
        }
        true
    }

    /// Has the kernel send what is in the tx ring, as much as it takes now.
    ///
    /// # Errors
    ///
    /// ENETDOWN where the interface is down, ENXIO where it is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.tx.submit();
        let sent = transmit(&self.socket, &mut self.tx);
        self.reap();
        sent
    }

    /// Whether the kernel has left frames in the tx ring.
    pub(super) fn is_waiting(&mut self) -> bool {
        self.tx.outstanding() > 0
    }

    fn reap(&mut self) {
        let count = self.completion.available_now();
        for _ in 0..count {
            let Some(address) = self.completion.pop() else {
                break;
            };
            self.free.push(address - address % u64::from(CHUNK));
        }
        if count > 0 {
            self.completion.release();
        }
    }
}
