//! Who is at the other end of a connection, as the kernel says, and whether that process still lives.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::{Error, Result, accounts::User};

/// The process that has connected, at the moment when it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its number in the PID namespace of the daemon.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group, and its supplementary ones.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Whether it is root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Its user as messages have it: `alice (1000)`.
    #[must_use]
    pub fn user(&self) -> String {
        match User::local_name(self.uid) {
            Some(name) => format!("{name} ({})", self.uid),
            None => self.uid.to_string(),
        }
    }
}

/// A connected peer that can be watched.
#[derive(Debug)]
pub struct Watched {
    /// Who it is.
    pub peer: Peer,
    /// Readable once the process has ended.
    pub process: OwnedFd,
}

impl Watched {
    /// Asks the kernel who has connected.
    ///
    /// # Errors
    ///
    /// Where it does not tell, or where the process has ended already.
    pub fn of(connection: BorrowedFd<'_>) -> Result<Self> {
        let failed = |source| Error::io("find out who has connected", source);
        let credentials =
            getsockopt(&connection, PeerCredentials).map_err(|errno| failed(errno.into()))?;
        let mut groups = peer_groups(connection).map_err(failed)?;
        groups.push(credentials.gid());
        // A process of another PID namespace has the number 0.
        let pid = Pid::from_raw(credentials.pid()).ok_or_else(|| {
            Error::unexpected(
                "find out who has connected",
                "the process is in another PID namespace",
            )
        })?;
        let peer = Peer {
            pid: credentials.pid() as u32,
            uid: credentials.uid(),
            groups,
        };
        let process = match peer_pidfd(connection) {
            Ok(process) => process,
            // Before Linux 6.5.
            Err(source) if source.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                pidfd_by_number(connection, &peer, pid).map_err(failed)?
            }
            Err(source) => return Err(failed(source)),
        };
        if is_readable(process.as_fd(), PollFlags::IN) {
            return Err(failed(io::Error::from_raw_os_error(libc::ESRCH)));
        }
        Ok(Self { peer, process })
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// The descriptor of a process that is known by its number.
///
/// Between its connecting and now it may have ended and another have got its number. That one has not the
/// other end of the connection, or is of the same user and has been given it.
fn pidfd_by_number(connection: BorrowedFd<'_>, peer: &Peer, pid: Pid) -> io::Result<OwnedFd> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let uid = fs::metadata(format!("/proc/{}", peer.pid))?.uid();
    let is_gone = is_readable(connection, PollFlags::HUP | PollFlags::RDHUP);
    if uid != peer.uid || is_gone || is_readable(process.as_fd(), PollFlags::IN) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(process)
}

/// Whether one of these events has happened.
fn is_readable(fd: BorrowedFd<'_>, events: PollFlags) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    let now = Timespec::try_from(Duration::ZERO).ok();
    poll(&mut fds, now.as_ref()).is_ok_and(|_| fds[0].revents().intersects(events))
}

fn peer_pidfd(connection: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut len = size_of_val(&fd) as libc::socklen_t;
    // SAFETY: the kernel writes one integer to `fd`, whose size `len` says.
    let result = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor for this caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn peer_groups(connection: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = Vec::new();
    loop {
        let mut len = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to the memory of `groups`, which has as many, or
        // says in `len` how many it needs.
        let result = unsafe {
            libc::getsockopt(
                connection.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let count = len as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        match Errno::from_io_error(&io::Error::last_os_error()) {
            // The credentials of a connection never change, so the second attempt succeeds.
            Some(Errno::RANGE) if count > groups.len() => groups.resize(count, 0),
            _ => return Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_kernel_says_who_has_connected() {
        let (one, _other) = UnixStream::pair().unwrap();
        let watched = Watched::of(one.as_fd()).unwrap();
        assert_eq!(watched.peer.pid, std::process::id());
        assert_eq!(watched.peer.uid, nix::unistd::Uid::effective().as_raw());
        let gid = nix::unistd::Gid::effective().as_raw();
        assert!(watched.peer.groups.contains(&gid));
    }

    #[test]
    fn a_process_is_found_by_its_number_while_it_holds_the_connection() {
        let (one, other) = UnixStream::pair().unwrap();
        let peer = Watched::of(one.as_fd()).unwrap().peer;
        let pid = Pid::from_raw(peer.pid as i32).unwrap();
        assert!(pidfd_by_number(one.as_fd(), &peer, pid).is_ok());
        let stranger = Peer {
            uid: peer.uid + 1,
            ..peer.clone()
        };
        assert!(pidfd_by_number(one.as_fd(), &stranger, pid).is_err());
        drop(other);
        assert!(pidfd_by_number(one.as_fd(), &peer, pid).is_err());
    }
}
