//! The daemon's socket file: made, locked against a second daemon, and removed.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{
            FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
        },
    },
    path::{Path, PathBuf},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::{
    io::Errno,
    net::{SocketAddrUnix, SocketFlags, accept_with, bind, listen},
};

use super::transport::{connect_to, socket};
use crate::{Error, Result, state};

/// Root and the group demux may connect. What they then may do, the configuration says.
const MODE: u32 = 0o660;

/// How many may wait to be accepted.
const BACKLOG: i32 = 64;

/// A socket that is listened on, for as long as the value lives.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// What is ours to remove; a socket that was given is its giver's.
    made: Option<Made>,
}

/// A socket file that was made here.
#[derive(Debug)]
struct Made {
    /// Device and inode.
    file: (u64, u64),
    /// Beside the socket: of two daemons that start at one moment, one replaces what is stale.
    _lock: LockFile,
}

impl Listener {
    /// Listens on a new socket file at `path`. What a daemon has left there that is dead is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::DaemonRunning`] where another one listens there; [`Error::Io`] where the file cannot be
    /// made, or where there is a file that is no socket.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |source: io::Error| Error::io(format!("listen on {}", path.display()), source);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .map_err(|source| Error::io(format!("create {}", directory.display()), source))?;
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let Some(lock) = LockFile::acquire(beside.into())? else {
            return Err(Error::DaemonRunning {
                path: path.into(),
                pid: connect_to(path).ok().as_ref().and_then(listener_of),
            });
        };
        remove_stale(path)?;
        let socket = socket(SocketFlags::NONBLOCK).map_err(failed)?;
        let address = SocketAddrUnix::new(path).map_err(|errno| failed(errno.into()))?;
        bind(&socket, &address).map_err(|errno| failed(errno.into()))?;
        // Nobody can connect before it is listened on.
        let file = share(path).map_err(failed)?;
        listen(&socket, BACKLOG).map_err(|errno| failed(errno.into()))?;
        Ok(Self {
            socket,
            path: path.into(),
            made: Some(Made { file, _lock: lock }),
        })
    }

    /// Takes a socket that somebody listens on for us.
    pub(super) fn given(socket: OwnedFd, path: PathBuf) -> Self {
        Self {
            socket,
            path,
            made: None,
        }
    }

    /// Where it listens.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection, which does not block; `None` where there is none.
    ///
    /// # Errors
    ///
    /// As accept(2).
    pub(super) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(connection) => Ok(Some(connection)),
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(made) = &self.made else { return };
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == made.file);
        if is_ours {
            // What stays is replaced by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Sets the group and the mode of the socket file, and says which file it is.
fn share(path: &Path) -> io::Result<(u64, u64)> {
    if let Some(group) = state::reading_group() {
        match chown(path, None, Some(group)) {
            // Without CAP_CHOWN it stays with the caller's own group.
            Err(source) if source.kind() != io::ErrorKind::PermissionDenied => return Err(source),
            _ => {}
        }
    }
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes a socket file that nobody listens on. The caller holds the lock.
fn remove_stale(path: &Path) -> Result<()> {
    let failed = |source: io::Error| Error::io(format!("replace {}", path.display()), source);
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(Error::invalid(
                "socket path",
                path.display().to_string(),
                "there is a file that is no socket",
            ));
        }
        Ok(_) => {}
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed(source)),
    }
    match connect_to(path) {
        Ok(connection) => Err(Error::DaemonRunning {
            path: path.into(),
            pid: listener_of(&connection),
        }),
        Err(source) if source.raw_os_error() == Some(libc::ECONNREFUSED) => {
            fs::remove_file(path).map_err(failed)
        }
        // Somebody listens who speaks otherwise.
        Err(source) => Err(failed(source)),
    }
}

/// The process that listens at the other end of a connection.
fn listener_of(connection: &OwnedFd) -> Option<u32> {
    let credentials = getsockopt(connection, PeerCredentials).ok()?;
    u32::try_from(credentials.pid())
        .ok()
        .filter(|pid| *pid != 0)
}

/// A file that its living holder has locked. It is removed with the value.
#[derive(Debug)]
pub(super) struct LockFile {
    pub(super) file: File,
    path: PathBuf,
}

impl LockFile {
    /// Makes and locks the file at `path`; `None` where somebody else has locked it.
    ///
    /// # Errors
    ///
    /// Where the file cannot be made.
    pub(super) fn acquire(path: PathBuf) -> Result<Option<Self>> {
        let failed = |source| Error::io(format!("lock {}", path.display()), source);
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            // Between opening and locking, the last holder may have removed it.
            let locked = file.metadata().map_err(failed)?;
            let is_there = fs::symlink_metadata(&path).is_ok_and(|present| {
                (present.dev(), present.ino()) == (locked.dev(), locked.ino())
            });
            if is_there {
                return Ok(Some(Self { file, path }));
            }
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // What stays is locked by the next one.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_listens_and_a_second_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/demux.sock");
        let listener = Listener::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        match Listener::open(&path) {
            Err(Error::DaemonRunning { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(listener);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_dead_one_has_left_is_replaced_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("demux.sock");
        let left = socket(SocketFlags::empty()).unwrap();
        bind(&left, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        drop(left);
        drop(Listener::open(&path).unwrap());

        fs::write(&path, "precious").unwrap();
        assert!(Listener::open(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn the_file_of_another_daemon_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("demux.sock");
        let listener = Listener::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(listener);
        assert!(path.exists());
    }
}
