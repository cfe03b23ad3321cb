//! One daemon for each network namespace: a lock that ends with its holder.

use std::{
    fs::{self, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::listener::LockFile;
use crate::{Error, Result};

/// Where the locks are, each called by the cookie of its namespace.
const DIRECTORY: &str = "/run/demux";

/// The right to serve a network namespace, for as long as the value lives.
#[derive(Debug)]
pub(super) struct Single {
    _lock: LockFile,
}

impl Single {
    /// Takes the right to serve the network namespace with this cookie.
    ///
    /// # Errors
    ///
    /// [`Error::NamespaceServed`] where another daemon has it; [`Error::Io`] where the file cannot be made.
    pub(super) fn acquire(cookie: u64) -> Result<Self> {
        Self::acquire_in(Path::new(DIRECTORY), cookie)
    }

    fn acquire_in(directory: &Path, cookie: u64) -> Result<Self> {
        let path = directory.join(format!("daemon-{cookie}.lock"));
        fs::create_dir_all(directory)
            .map_err(|source| Error::io(format!("create {}", directory.display()), source))?;
        let Some(mut lock) = LockFile::acquire(path.clone())? else {
            return Err(Error::NamespaceServed { pid: holder(&path) });
        };
        // Whoever is refused reads it.
        let pid = std::process::id().to_string();
        lock.file
            .rewind()
            .and_then(|()| lock.file.set_len(0))
            .and_then(|()| lock.file.write_all(pid.as_bytes()))
            .map_err(|source| Error::io(format!("write {}", path.display()), source))?;
        Ok(Self { _lock: lock })
    }
}

/// Who has the lock, as its file says.
fn holder(path: &PathBuf) -> Option<u32> {
    let mut text = String::new();
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .and_then(|file| file.take(32).read_to_string(&mut text))
        .ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_serves_a_namespace_and_a_second_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let single = Single::acquire_in(directory.path(), 7).unwrap();
        match Single::acquire_in(directory.path(), 7) {
            Err(Error::NamespaceServed { pid }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        let _other = Single::acquire_in(directory.path(), 8).unwrap();
        drop(single);
        drop(Single::acquire_in(directory.path(), 7).unwrap());
    }
}
