//! Looking at the sockets of other processes, as `demux xsks` does.
//!
//! The kernel tells nobody about AF_XDP sockets but by themselves, so they are borrowed for a moment
//! from the process that holds them (pidfd_getfd(2), which takes the right to trace it).

use std::os::fd::{AsFd as _, OwnedFd};

use demux_common::steering::XskSocket;
use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    net::{sockopt::xdp_mmap_offsets, xdp::XDP_UMEM_PGOFF_FILL_RING},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

use super::{
    cookie::cookie,
    socket::{Socket, Statistics},
};
use crate::process::Process;

/// What a socket says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What the kernel has counted for it.
    pub statistics: Statistics,
    /// How many chunks wait in the fill ring of its queue for frames to come.
    pub fill: Option<u32>,
}

/// Looks at a socket; `None` where it is closed, or the caller may not look into the process.
#[must_use]
pub fn inspect(holder: Process, kept: &XskSocket) -> Option<Inspection> {
    let pid = Pid::from_raw(i32::try_from(holder.pid).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // The number may have been somebody else's before; from here on it is not.
    if !holder.is_alive() {
        return None;
    }
    let number = i32::try_from(kept.fd).ok()?;
    let fd: OwnedFd = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
    if cookie(fd.as_fd()).ok()? != kept.cookie {
        return None;
    }
    let socket = Socket::from_fd(fd).ok()?;
    Some(Inspection {
        statistics: socket.statistics().ok()?,
        fill: waiting(&socket),
    })
}

/// How many chunks wait in the fill ring.
fn waiting(socket: &Socket) -> Option<u32> {
    const PAGE: usize = 4096;
    let ring = xdp_mmap_offsets(socket).ok()?.fr;
    let (producer, consumer) = (ring.producer as usize, ring.consumer as usize);
    if producer.max(consumer) + size_of::<u32>() > PAGE || (producer | consumer) % 4 != 0 {
        return None;
    }
    // SAFETY: a new mapping, which nothing in this process refers to.
    let start = unsafe {
        mmap(
            std::ptr::null_mut(),
            PAGE,
            ProtFlags::READ,
            MapFlags::SHARED,
            socket,
            XDP_UMEM_PGOFF_FILL_RING,
        )
    }
    .ok()?;
    // SAFETY: both lie within the page and are aligned; others write them, hence volatile.
    let [produced, consumed] = [producer, consumer]
        .map(|offset| unsafe { start.byte_add(offset).cast::<u32>().read_volatile() });
    // SAFETY: it was mapped above, and nothing refers to it any more.
    let _ = unsafe { munmap(start, PAGE) };
    Some(produced.wrapping_sub(consumed))
}
