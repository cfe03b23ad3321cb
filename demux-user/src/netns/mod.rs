//! Which network namespace is meant: choosing one, and telling it from all others that ever were.
//!
//! A namespace is identified by its cookie, a number that the kernel never uses twice until it reboots.
//! Its inode number, which `ip netns` and `/proc` show, is given to the next namespace as soon as it is free.

mod alive;

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::statfs::{FsType, fstatfs},
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

pub(crate) use self::alive::unescape;
pub use self::alive::{all_cookies, in_all};
use crate::{Error, Result, capability::Capability};

/// Where `ip netns` keeps the namespaces it has named.
const NAMED: &str = "/run/netns";

/// The namespace of the calling thread.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// The file system of namespaces (`NSFS_MAGIC` in the kernel's `magic.h`).
const NSFS: FsType = FsType(0x6e73_6673);

/// A network namespace, held open and hence alive.
#[derive(Debug)]
pub struct NetworkNamespace {
    file: File,
    cookie: u64,
    inode: u64,
}

impl NetworkNamespace {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Where `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        let failed = |source| Error::io(format!("read {CURRENT}"), source);
        let file = File::open(CURRENT).map_err(failed)?;
        let inode = file.metadata().map_err(failed)?.ino();
        let cookie = cookie_of_this_thread()
            .map_err(|source| Error::io("read the network namespace cookie", source))?;
        Ok(Self {
            file,
            cookie,
            inode,
        })
    }

    /// Moves the calling thread, and the threads and processes it starts from now on, into the namespace
    /// that `selector` names: a name that `ip netns` knows, or, with a slash, the path of a namespace.
    ///
    /// Only the network changes: `/sys` and every mount stay those of the caller.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownNamespace`] where there is none, [`Error::MissingCapability`] without CAP_SYS_ADMIN.
    pub fn enter(selector: &str) -> Result<Self> {
        let unknown = |reason: String| Error::UnknownNamespace {
            selector: selector.to_owned(),
            reason,
        };
        let path = path(selector).ok_or_else(|| unknown("not a name".into()))?;
        let file = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                unknown(format!("{} does not exist", path.display()))
            }
            _ => Error::io(format!("open {}", path.display()), source),
        })?;
        // A name whose mount is gone leaves an empty file behind.
        if !is_namespace(&file) {
            return Err(unknown(format!(
                "{} is not a network namespace",
                path.display()
            )));
        }
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
            Errno::EINVAL => unknown(format!("{} is a namespace of another kind", path.display())),
            errno => Error::privileged(
                format!("enter the network namespace {selector:?}"),
                errno,
                Capability::SysAdmin,
            ),
        })?;
        Self::current()
    }

    /// The number that identifies the namespace until the next boot.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// The inode number that `ip netns identify`, `lsns` and `/proc/PID/ns/net` go by.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The name `ip netns` knows it by, if it has one.
    pub fn name(&self) -> Option<String> {
        let this = self.file.metadata().ok()?;
        fs::read_dir(NAMED)
            .ok()?
            .filter_map(Result::ok)
            .find(|entry| {
                fs::metadata(entry.path())
                    .is_ok_and(|other| (other.dev(), other.ino()) == (this.dev(), this.ino()))
            })?
            .file_name()
            .into_string()
            .ok()
    }
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The identity of the running boot, the 16 bytes of `/proc/sys/kernel/random/boot_id` as written.
///
/// # Errors
///
/// Where it cannot be read.
pub fn boot_id() -> Result<[u8; 16]> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text =
        fs::read_to_string(PATH).map_err(|source| Error::io(format!("read {PATH}"), source))?;
    parse_uuid(text.trim()).ok_or_else(|| Error::Unexpected {
        operation: format!("read {PATH}"),
        reason: format!("{:?} is not a UUID", text.trim()),
    })
}

/// Whether a file is a namespace, of whatever kind.
fn is_namespace(file: &File) -> bool {
    fstatfs(file).is_ok_and(|status| status.filesystem_type() == NSFS)
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|&character| character != '-')
        .map(|character| character.to_digit(16))
        .collect::<Option<_>>()?;
    if digits.len() != 32 {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (pair[0] << 4 | pair[1]) as u8;
    }
    Some(bytes)
}

fn path(selector: &str) -> Option<PathBuf> {
    match selector {
        "" | "." | ".." => None,
        path if path.contains('/') => Some(path.into()),
        name => Some(Path::new(NAMED).join(name)),
    }
}

/// The cookie of the namespace a new socket of this thread belongs to.
fn cookie_of_this_thread() -> io::Result<u64> {
    // A UNIX socket belongs to a namespace too, and every kernel has them.
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut cookie = 0_u64;
    let mut size = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the value outlives the call and `size` is its size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_sixteen_bytes_in_the_order_written() {
        assert_eq!(
            parse_uuid("00010203-0405-0607-0809-0a0b0c0d0e0f"),
            Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
        );
        assert_eq!(parse_uuid("00010203"), None);
        assert_eq!(parse_uuid("xx010203-0405-0607-0809-0a0b0c0d0e0f"), None);
        assert_ne!(boot_id().unwrap(), [0; 16]);
    }

    #[test]
    fn a_slash_makes_a_path() {
        assert_eq!(path("blue"), Some("/run/netns/blue".into()));
        assert_eq!(path("./blue"), Some("./blue".into()));
        assert_eq!(path("/proc/1/ns/net"), Some("/proc/1/ns/net".into()));
        assert_eq!(path(""), None);
        assert_eq!(path(".."), None);
    }

    #[test]
    fn names_that_do_not_exist_are_unknown() {
        let error = NetworkNamespace::enter("no-such-namespace").unwrap_err();
        assert_eq!(
            (error.code(), error.exit_status()),
            ("unknown_namespace", 3)
        );
        let error = NetworkNamespace::enter("/proc/self/status").unwrap_err();
        assert_eq!(error.code(), "unknown_namespace");
        let error = NetworkNamespace::enter("/proc/self/ns/uts").unwrap_err();
        assert_eq!(error.code(), "unknown_namespace");
    }

    #[test]
    fn the_present_namespace_has_a_cookie_and_the_inode_of_proc() {
        let current = NetworkNamespace::current().unwrap();
        assert_ne!(current.cookie(), 0);
        assert_eq!(current.inode(), fs::metadata(CURRENT).unwrap().ino());
    }
}
