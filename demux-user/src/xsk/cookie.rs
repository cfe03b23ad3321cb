//! The number by which the kernel knows a socket (SO_COOKIE), never used twice while it runs.

use std::os::fd::BorrowedFd;

use crate::{Error, Result};

/// The cookie of a socket.
///
/// # Errors
///
/// Where the descriptor is no socket.
pub(crate) fn cookie(socket: BorrowedFd<'_>) -> Result<u64> {
    rustix::net::sockopt::socket_cookie(socket)
        .map_err(|errno| Error::io("read the cookie of a socket".to_owned(), errno))
}
