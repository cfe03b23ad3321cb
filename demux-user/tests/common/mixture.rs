//! Traffic of several kinds at once, as fast as it goes, each frame of it counted.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{netns::Netns, sockets::socket};

/// How many frames one call hands to the kernel.
const BATCH: usize = 64;

/// Frames of several kinds, sent in turn.
#[derive(Debug)]
pub struct Mixture {
    socket: OwnedFd,
    ifindex: i32,
    frames: Vec<(usize, Vec<u8>)>,
    kinds: usize,
}

/// What was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// How many frames of each kind have reached the other end of the cable.
    pub frames: Vec<u64>,
    /// How many found no room there.
    pub refused: u64,
    pub elapsed: Duration,
}

impl Sent {
    /// Frames a second.
    pub fn rate(&self) -> f64 {
        self.frames.iter().sum::<u64>() as f64 / self.elapsed.as_secs_f64()
    }
}

impl Mixture {
    /// Frames, each with the number of its kind, that leave by this interface.
    pub fn new(netns: &Netns, interface: &str, frames: Vec<(usize, Vec<u8>)>) -> Self {
        let ifindex = netns.index(interface) as i32;
        let socket = netns.enter(|| socket(libc::AF_PACKET, libc::SOCK_RAW, 0));
        let on = 1_i32;
        // SAFETY: the option's value is as long as told.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        let kinds = frames.iter().map(|(kind, _)| kind + 1).max().unwrap_or(0);
        Self {
            socket,
            ifindex,
            frames,
            kinds,
        }
    }

    /// Sends until it is over, and does something else after each round of frames.
    pub fn send_until(&self, is_over: &AtomicBool, mut between: impl FnMut()) -> Sent {
        // SAFETY: the structure holds only integers and arrays of them, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = self.ifindex;
        let mut parts: Vec<libc::iovec> = self
            .frames
            .iter()
            .map(|(_, frame)| libc::iovec {
                iov_base: frame.as_ptr().cast_mut().cast(),
                iov_len: frame.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: the structure holds only integers and pointers, for which zero is a value.
                let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
                message.msg_hdr.msg_name = (&raw mut address).cast();
                message.msg_hdr.msg_namelen = size_of_val(&address) as libc::socklen_t;
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let began = Instant::now();
        let mut frames = vec![0; self.kinds];
        let mut refused = 0;
        let mut next = 0;
        while !is_over.load(Ordering::Relaxed) {
            let batch = BATCH.min(messages.len() - next);
            // SAFETY: every message refers to a frame and an address that outlive the call.
            let sent = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    messages[next..].as_mut_ptr(),
                    batch as libc::c_uint,
                    0,
                )
            };
            let done = if sent < 0 {
                // A frame that found no room: it was dropped, and this is how that is told.
                let error = io::Error::last_os_error();
                assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
                refused += 1;
                1
            } else {
                for (kind, _) in &self.frames[next..next + sent as usize] {
                    frames[*kind] += 1;
                }
                sent as usize
            };
            next = (next + done) % messages.len();
            if next == 0 {
                between();
            }
        }
        Sent {
            frames,
            refused,
            elapsed: began.elapsed(),
        }
    }
}
