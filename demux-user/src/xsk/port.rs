//! A port: an area, the four rings, and a way to sleep and to wake the other side.
//!
//! It is what direct access (the other side is the kernel) and access by way of the daemon have in common.
//! Half of the chunks serve what arrives, half what is sent, so neither can starve the other.

use std::{
    io, mem,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::{Errno, read, write},
    net::{SendFlags, send},
};

use super::{
    area::Area,
    ring::{Consumer, Descriptor, Producer},
    socket::Socket,
};
use crate::{Error, Result};

/// The four rings, as user space uses them.
#[derive(Debug)]
pub struct Rings {
    /// Chunks for frames that arrive.
    pub fill: Producer<u64>,
    /// Frames that have arrived.
    pub rx: Consumer<Descriptor>,
    /// Frames to be sent.
    pub tx: Producer<Descriptor>,
    /// Addresses of frames that have been sent.
    pub completion: Consumer<u64>,
}

/// Who is on the other side.
#[derive(Debug)]
pub enum Peer {
    /// The kernel, by this socket.
    Kernel(Socket),
    /// A process that plays its part.
    Process {
        /// What it writes to when frames have arrived for a sleeper: an eventfd or a socket. Reading and
        /// writing must not block.
        arrived: OwnedFd,
        /// What is written to in order to wake it: an eventfd, or the same socket.
        kick: OwnedFd,
    },
}

/// How many descriptors one frame may take, on either way: what the kernel puts into one packet
/// (`MAX_SKB_FRAGS`, 17 by default) less one.
pub const MAX_PARTS: usize = 16;

/// Bytes that the kernel leaves free at the front of a chunk for a frame that arrives
/// (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: u32 = 256;

/// The longest frame, in bytes, that ports with chunks of this size can receive and send.
#[must_use]
pub fn longest_frame(chunk_size: u32, multi_buffer: bool) -> usize {
    let part = (chunk_size - HEADROOM) as usize;
    if multi_buffer { part * MAX_PARTS } else { part }
}

/// What is taken and given back is shown to the other side in such portions, or smaller ones in small rings.
const BATCH: u32 = 32;

/// A frame that has arrived, until the next one is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrived {
    /// It lies in one chunk.
    Whole { address: u64, len: u32 },
    /// It took several, and was joined.
    Joined,
}

/// A port. See the module.
#[derive(Debug)]
pub struct Port {
    rings: Rings,
    peer: Peer,
    area: Area,
    /// For each chunk, whether the other side has it.
    away: Vec<bool>,
    /// How many chunks, from the first, serve what arrives. The others serve what is sent.
    receiving: u32,
    /// Chunks for what arrives that are not in the fill ring yet.
    returned: Vec<u64>,
    /// Chunks that frames can be sent in.
    free: Vec<u64>,
    /// How large the portions are.
    batch: u32,
    /// How many descriptors were taken without telling the other side yet.
    unreleased: u32,
    arrived: Option<Arrived>,
    /// The parts of the frame that is being joined, or was joined last.
    joined: Vec<u8>,
    /// How many parts it has so far; 0 between frames.
    parts: usize,
    /// Whether it is to be dropped once it is at its end.
    is_spoilt: bool,
    multi_buffer: bool,
    malformed: u64,
}

impl Port {
    /// A port of a fresh area and fresh rings. The chunks for what arrives go into the fill ring at once.
    ///
    /// `multi_buffer` says whether frames longer than a chunk may be sent.
    ///
    /// # Errors
    ///
    /// Where the other side cannot be woken.
    pub fn new(area: Area, rings: Rings, peer: Peer, multi_buffer: bool) -> Result<Self> {
        let chunks = area.chunks();
        let receiving = (chunks / 2).min(rings.fill.size());
        let addresses = |chunks: Range<u32>| chunks.map(|chunk| area.address_of(chunk)).collect();
        let mut port = Self {
            away: vec![false; chunks as usize],
            receiving,
            returned: addresses(0..receiving),
            free: addresses(receiving..chunks),
            batch: BATCH.min(receiving / 4).max(1),
            unreleased: 0,
            arrived: None,
            joined: Vec::new(),
            parts: 0,
            is_spoilt: false,
            multi_buffer,
            malformed: 0,
            rings,
            peer,
            area,
        };
        port.refill()?;
        Ok(port)
    }

    /// The longest frame that can be received and sent.
    #[must_use]
    pub fn longest_frame(&self) -> usize {
        longest_frame(self.area.chunk_size(), self.multi_buffer)
    }

    /// Who is on the other side.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// How much of what the other side has said could not be, and was ignored: frames that lie nowhere, or
    /// have more than [`MAX_PARTS`] parts, and chunks that it did not have.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Takes the next frame that has arrived; [`Port::frame`] shows it until this is called again. `false`
    /// where there is none. At most as many descriptors are looked at as the ring holds.
    ///
    /// # Errors
    ///
    /// Where the other side cannot be woken.
    pub fn receive(&mut self) -> Result<bool> {
        if let Some(Arrived::Whole { address, .. }) = self.arrived.take() {
            self.give_back(address);
        }
        for _ in 0..self.rings.rx.size() {
            let Some(descriptor) = self.rings.rx.pop() else {
                break;
            };
            self.unreleased += 1;
            self.arrived = self.take(descriptor);
            if self.unreleased >= self.batch {
                self.release();
                self.refill()?;
            }
            if self.arrived.is_some() {
                return Ok(true);
            }
        }
        self.release();
        self.refill()?;
        Ok(false)
    }

    /// The frame that [`Port::receive`] has taken last; empty where there was none.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        match self.arrived {
            Some(Arrived::Whole { address, len }) => {
                // SAFETY: the other side, which is more trusted than this process, has given the chunk away,
                // and gets it back only when the next frame is taken. Nothing here writes chunks of this half.
                unsafe { self.area.get(address, len) }.unwrap_or_default()
            }
            Some(Arrived::Joined) => &self.joined,
            None => &[],
        }
    }

    /// Puts a frame into the tx ring, all of it or nothing; `false` where there is no room. It leaves with
    /// the next [`Port::flush`].
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where it is longer than [`Port::longest_frame`], or shorter than an
    /// Ethernet header.
    pub fn send(&mut self, frame: &[u8]) -> Result<bool> {
        if !(ETHERNET_HEADER..=self.longest_frame()).contains(&frame.len()) {
            return Err(Error::invalid(
                "frame",
                format!("{} bytes", frame.len()),
                format!(
                    "a frame has from {ETHERNET_HEADER} to {} bytes here",
                    self.longest_frame()
                ),
            ));
        }
        let chunk_size = self.area.chunk_size() as usize;
        let parts = frame.len().div_ceil(chunk_size);
        if self.free.len() < parts {
            self.reap();
        }
        if self.free.len() < parts || (self.rings.tx.free() as usize) < parts {
            return Ok(false);
        }
        let mut rest = frame;
        for address in self.free.drain(self.free.len() - parts..) {
            let (part, next) = rest.split_at(rest.len().min(chunk_size));
            rest = next;
            let was_written = self.area.copy_in(address, part);
            let was_pushed = self.rings.tx.push(Descriptor {
                address,
                len: part.len() as u32,
                options: if rest.is_empty() {
                    0
                } else {
                    Descriptor::CONTINUES
                },
            });
            debug_assert!(was_written && was_pushed, "there was room");
            self.away[(address / chunk_size as u64) as usize] = true;
        }
        Ok(true)
    }

    /// Shows the other side what was sent and given back, wakes it where it sleeps, and takes back what has
    /// left. The kernel may leave some of it for the next call: see [`Port::unsent`].
    ///
    /// # Errors
    ///
    /// Where the other side cannot be woken: the interface is down or gone.
    pub fn flush(&mut self) -> Result<()> {
        self.release();
        self.rings.tx.submit();
        self.refill()?;
        self.wake_for_tx()?;
        self.reap();
        Ok(())
    }

    /// How many descriptors in the tx ring the other side has not looked at yet.
    pub fn unsent(&mut self) -> u32 {
        self.rings.tx.outstanding()
    }

    /// Whether the other side has all chunks for what arrives. The kernel takes chunks before it says so; until
    /// the next [`Port::flush`] it may be without any.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.returned.is_empty()
    }

    /// Makes ready for sleep: from now on the descriptor of the port tells when a frame has arrived. `false`
    /// where one is there already.
    pub fn may_sleep(&mut self) -> bool {
        let rx = &mut self.rings.rx;
        if rx.available_now() > 0 {
            return false;
        }
        if matches!(self.peer, Peer::Process { .. }) && !rx.awaits_wakeup() {
            self.hear();
            let rx = &mut self.rings.rx;
            rx.set_needs_wakeup(true);
            return rx.available_now() == 0;
        }
        true
    }

    /// Takes note of what a process on the other side has told: the descriptor is not readable until it tells
    /// more. It may tell a little late, when what it has to say is known.
    pub fn hear(&self) {
        if let Peer::Process { arrived, .. } = &self.peer {
            for _ in 0..MESSAGES {
                if !read(arrived, &mut [0; 8]).is_ok_and(|count| count > 0) {
                    break;
                }
            }
        }
    }

    /// What one descriptor makes: a frame, or nothing where it is a part or cannot be.
    fn take(&mut self, descriptor: Descriptor) -> Option<Arrived> {
        let Descriptor { address, len, .. } = descriptor;
        let chunk = self.area.chunk_of(address);
        let was_away = chunk
            .filter(|&chunk| chunk < self.receiving)
            .is_some_and(|chunk| mem::take(&mut self.away[chunk as usize]));

        if self.parts == 0 && !descriptor.continues() {
            // SAFETY: see `frame`; the bytes are not looked at here.
            let is_sound = was_away && unsafe { self.area.get(address, len) }.is_some();
            if is_sound {
                return Some(Arrived::Whole { address, len });
            }
            self.malformed += 1;
            if was_away {
                self.give_back(address);
            }
            return None;
        }

        if self.parts == 0 {
            self.joined.clear();
            self.is_spoilt = false;
        }
        self.parts += 1;
        if self.parts > MAX_PARTS {
            self.is_spoilt = true;
            self.parts = MAX_PARTS;
        }
        let is_sound =
            was_away && (self.is_spoilt || self.area.copy_out(address, len, &mut self.joined));
        self.is_spoilt |= !is_sound;
        if was_away {
            self.give_back(address);
        }
        if descriptor.continues() {
            return None;
        }
        self.parts = 0;
        if self.is_spoilt {
            self.malformed += 1;
            return None;
        }
        Some(Arrived::Joined)
    }

    fn give_back(&mut self, address: u64) {
        let chunk_size = u64::from(self.area.chunk_size());
        self.returned.push(address - address % chunk_size);
    }

    /// Tells the other side how much was taken.
    fn release(&mut self) {
        if self.unreleased > 0 {
            self.unreleased = 0;
            self.rings.rx.release();
        }
    }

    /// Puts into the fill ring what was given back. The kernel takes from that ring before it says so, so it
    /// may look full for a moment; the rest goes in next time.
    fn refill(&mut self) -> Result<()> {
        let before = self.returned.len();
        while let Some(&address) = self.returned.last() {
            if !self.rings.fill.push(address) {
                break;
            }
            self.returned.pop();
            if let Some(chunk) = self.area.chunk_of(address) {
                self.away[chunk as usize] = true;
            }
        }
        if self.returned.len() == before {
            return Ok(());
        }
        self.rings.fill.submit();
        match &self.peer {
            Peer::Kernel(socket) if self.rings.fill.needs_wakeup() => socket.kick_rx(),
            Peer::Process { kick, .. } if self.rings.fill.take_wakeup() => signal(kick.as_fd()),
            _ => Ok(()),
        }
        .map_err(|source| Error::io("offer memory for frames that arrive", source))
    }

    fn wake_for_tx(&mut self) -> Result<()> {
        let sent = match &self.peer {
            Peer::Kernel(socket) => transmit(socket, &mut self.rings.tx),
            Peer::Process { kick, .. } if self.rings.tx.take_wakeup() => signal(kick.as_fd()),
            Peer::Process { .. } => Ok(()),
        };
        sent.map_err(|source| Error::io("send frames", source))
    }

    /// Takes back the chunks of what has left, at most as many as the ring holds.
    fn reap(&mut self) {
        let count = self.rings.completion.available_now();
        for address in (0..count).map_while(|_| self.rings.completion.pop()) {
            let was_away = self
                .area
                .chunk_of(address)
                .filter(|&chunk| chunk >= self.receiving)
                .is_some_and(|chunk| mem::take(&mut self.away[chunk as usize]));
            if was_away {
                let chunk_size = u64::from(self.area.chunk_size());
                self.free.push(address - address % chunk_size);
            } else {
                self.malformed += 1;
            }
        }
        if count > 0 {
            self.rings.completion.release();
        }
    }
}

/// The descriptor that is readable when frames have arrived.
impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.peer {
            Peer::Kernel(socket) => socket.as_fd(),
            Peer::Process { arrived, .. } => arrived.as_fd(),
        }
    }
}

/// Has the kernel send what it would not without being asked. Where it copies, it takes a few frames with
/// every call (`max_tx_budget` in `net/xdp/xsk.c`), as long as the socket's buffer has room.
pub(crate) fn transmit(socket: &Socket, tx: &mut Producer<Descriptor>) -> io::Result<()> {
    let mut left = tx.outstanding();
    while left > 0 && tx.needs_wakeup() {
        socket.kick_tx()?;
        let now = tx.outstanding();
        if now >= left {
            break;
        }
        left = now;
    }
    Ok(())
}

/// Writes what every eventfd takes; if there is no room, the reader has been told already.
fn signal(to: BorrowedFd<'_>) -> io::Result<()> {
    let message = 1_u64.to_ne_bytes();
    // A process that has ended must not end this one, too.
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let result = match send(to, &message, flags) {
        Err(Errno::NOTSOCK) => write(to, &message),
        result => result,
    };
    match result {
        Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// How many messages of the other side are read at once; it has no reason to leave more.
const MESSAGES: usize = 8;

const ETHERNET_HEADER: usize = 14;
