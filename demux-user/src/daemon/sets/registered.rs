//! Sockets that an owner has opened itself and brings to be published: what they must be.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, bind,
        sockopt::socket_domain,
        xdp::{SocketAddrXdp, SocketAddrXdpFlags},
    },
};

use crate::{
    Error, Result,
    netns::NetworkNamespace,
    xsk::{queue::Place, socket::Socket},
};

/// `SO_NETNS_COOKIE`.
const NETNS_COOKIE: libc::c_int = 71;

/// Makes sure that a descriptor is an AF_XDP socket of this network namespace that is bound to a queue.
///
/// To which, the kernel does not tell everywhere. It is the owner who would lose packets if that were
/// another than it says: the kernel drops them.
///
/// # Errors
///
/// [`Error::InvalidArgument`] says what it is instead.
pub(super) fn check(fd: OwnedFd, place: &Place) -> Result<Socket> {
    let refused = |reason: &str| Error::invalid("socket", place.to_string(), reason);
    match socket_domain(&fd) {
        Ok(AddressFamily::XDP) => {}
        Ok(_) => return Err(refused("it is of another family than AF_XDP")),
        Err(_) => return Err(refused("it is no socket")),
    }
    let here = NetworkNamespace::current()?.cookie();
    let there = netns_cookie(&fd)
        .map_err(|source| Error::io("find out the network namespace of a socket", source))?;
    if there != here {
        return Err(refused("it is of another network namespace"));
    }
    // A socket that is bound says so before it looks for the interface, and there is none with the index 0.
    match bind(&fd, &SocketAddrXdp::new(SocketAddrXdpFlags::empty(), 0, 0)) {
        Err(Errno::BUSY) => Socket::from_fd(fd),
        _ => Err(refused("it is not bound to a queue")),
    }
}

fn netns_cookie(fd: &OwnedFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut len = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes one word to `cookie`, whose size `len` says.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}
