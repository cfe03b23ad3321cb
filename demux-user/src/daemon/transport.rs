//! Messages with descriptors over a Unix socket that keeps their boundaries (SOCK_SEQPACKET).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    cmsg_space,
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
        SocketType, connect, recvmsg, sendmsg, socket_with,
    },
};

/// Bytes of the longest message.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// How many descriptors a message may bring, which is less than the kernel's limit (SCM_MAX_FD, 253).
pub const MAX_FDS: usize = 128;

/// What was received.
#[derive(Debug)]
pub enum Received {
    /// A message, and the descriptors that came with it.
    Message(Vec<u8>, Vec<OwnedFd>),
    /// A message that is too long, or has too many descriptors. Nothing of it is kept.
    TooLarge,
    /// The other side has closed the connection.
    End,
}

/// A socket for messages that is connected to nothing yet.
///
/// # Errors
///
/// As socket(2).
pub fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Connects to the socket file at `path`.
///
/// # Errors
///
/// As connect(2).
pub fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket(SocketFlags::empty())?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Sends a message.
///
/// # Errors
///
/// As sendmsg(2): EPIPE where the other side has closed the connection, and EAGAIN where the socket does
/// not block and the other side reads nothing.
pub fn send(connection: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG.into());
    }
    loop {
        match sendmsg(
            connection,
            &[IoSlice::new(message)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Receives a message.
///
/// # Errors
///
/// As recvmsg(2): EAGAIN where there is none and the socket does not block.
pub fn receive(connection: BorrowedFd<'_>) -> io::Result<Received> {
    let mut message = vec![0; MAX_MESSAGE];
    // One more than is allowed, so that too many can be told.
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS + 1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(
            connection.as_fd(),
            &mut [IoSliceMut::new(&mut message)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(received) => break received,
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(Received::End),
            Err(errno) => return Err(errno.into()),
        }
    };
    // Those that are not returned are closed.
    let mut fds = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        || fds.len() > MAX_FDS
    {
        return Ok(Received::TooLarge);
    }
    // An empty message cannot be told from the end, and is no message of ours.
    if received.bytes == 0 {
        return Ok(Received::End);
    }
    message.truncate(received.bytes);
    Ok(Received::Message(message, fds))
}
