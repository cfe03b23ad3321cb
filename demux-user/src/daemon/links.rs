//! Interfaces that go: the kernel unbinds their AF_XDP sockets without a word.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::unix::AsyncFd;

use super::watch::watch;
use crate::{Error, Result, interface};

/// `RTNLGRP_LINK`.
const LINKS: u32 = 1;

/// Tells when an interface of this network namespace is removed or moves to another one.
#[derive(Debug)]
pub(super) struct Links {
    socket: Socket,
    ready: AsyncFd<OwnedFd>,
}

impl Links {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// Where the socket cannot be opened.
    pub(super) fn open() -> Result<Self> {
        let open = || -> io::Result<Self> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(LINKS)?;
            socket.set_non_blocking(true)?;
            // SAFETY: the socket is open, and outlives the borrow.
            let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
            let ready = watch(fd.try_clone_to_owned()?)?;
            Ok(Self { socket, ready })
        };
        open().map_err(|source| Error::io("listen for changes of interfaces", source))
    }

    /// Waits for a change, and returns which of the interfaces with these indexes are gone.
    pub(super) async fn gone(&self, in_use: impl Fn() -> Vec<u32>) -> Vec<u32> {
        loop {
            match self.ready.readable().await {
                Ok(mut ready) => {
                    self.take();
                    ready.clear_ready();
                }
                // The reactor ends.
                Err(_) => std::future::pending().await,
            }
            let in_use = in_use();
            if in_use.is_empty() {
                continue;
            }
            // Where they cannot be listed, nothing is known to be gone.
            let Ok(present) = interface::all() else {
                continue;
            };
            let is_gone = |index: &u32| !present.iter().any(|other| other.index == *index);
            let gone: Vec<u32> = in_use.into_iter().filter(is_gone).collect();
            if !gone.is_empty() {
                return gone;
            }
        }
    }

    /// Takes what has come. What it says is looked up, so what was lost does not matter.
    fn take(&self) {
        let mut buffer = Vec::with_capacity(1 << 16);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => return,
                _ => {}
            }
        }
    }
}
