//! Sockets that the service manager has opened: that for owners, and that for metrics, told by their kind.

use std::{
    net::TcpListener,
    os::fd::{AsFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    net::{
        AddressFamily, SocketAddrUnix, SocketType, getsockname,
        sockopt::{socket_acceptconn, socket_domain, socket_type},
    },
};

use super::{DEFAULT_SOCKET, http::Exporter, listener::Listener};
use crate::{Error, Result};

/// What was given.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) owners: Option<Listener>,
    pub(super) metrics: Option<Exporter>,
}

impl Given {
    /// Takes what the service manager has given to this process.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for what is neither, or given twice.
    pub(super) fn take() -> Result<Self> {
        // Not with their names: sd-notify refuses those of a parent, and they are not needed.
        let fds = sd_notify::listen_fds()
            .map_err(|source| Error::io("take the sockets of the service manager", source))?;
        let mut given = Self::default();
        for fd in fds {
            let name = format!("number {fd}");
            // SAFETY: the service manager has opened it for this process, and nobody else takes it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            given.add(fd, &name)?;
        }
        Ok(given)
    }

    fn add(&mut self, fd: OwnedFd, name: &str) -> Result<()> {
        let invalid = |reason: &str| Error::invalid("socket of the service manager", name, reason);
        let kind = socket_domain(&fd).and_then(|domain| Ok((domain, socket_type(&fd)?)));
        if !socket_acceptconn(&fd).unwrap_or(false) {
            return Err(invalid("it is not listened on"));
        }
        let is_second = match kind {
            Ok((AddressFamily::UNIX, SocketType::SEQPACKET)) => {
                let flags = fcntl_getfl(&fd).map_err(|errno| Error::io("open a socket", errno))?;
                fcntl_setfl(&fd, flags | OFlags::NONBLOCK)
                    .map_err(|errno| Error::io("open a socket", errno))?;
                let path = path_of(&fd);
                self.owners.replace(Listener::given(fd, path)).is_some()
            }
            Ok((AddressFamily::INET | AddressFamily::INET6, SocketType::STREAM)) => {
                let exporter = Exporter::given(TcpListener::from(fd))?;
                self.metrics.replace(exporter).is_some()
            }
            _ => {
                return Err(invalid(
                    "owners connect to ListenSequentialPacket=PATH, metrics are read at \
                     ListenStream=127.0.0.1:PORT",
                ));
            }
        };
        if is_second {
            return Err(invalid("there is another one of its kind"));
        }
        Ok(())
    }
}

fn path_of(fd: &OwnedFd) -> PathBuf {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    getsockname(fd.as_fd())
        .ok()
        .and_then(|address| SocketAddrUnix::try_from(address).ok())
        .and_then(|address| Some(OsStr::from_bytes(address.path_bytes()?).into()))
        .unwrap_or_else(|| DEFAULT_SOCKET.into())
}
