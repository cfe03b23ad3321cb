//! Locks on directories, which hold as long as their holder lives and vanish with it.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::sys::stat::{major, minor};

use crate::{Error, Result};

/// How often a lock that somebody else holds is tried again.
const INTERVAL: Duration = Duration::from_millis(20);

/// What an instance is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// To read, together with others that read.
    Shared,
    /// To write, alone.
    Exclusive,
}

/// A directory that is locked until the value is dropped.
#[derive(Debug)]
pub(super) struct LockedDirectory {
    _file: File,
    mode: Lock,
}

/// What came of one attempt to lock a directory.
pub(super) enum Attempt {
    Locked(LockedDirectory),
    Absent,
    Busy,
}

impl LockedDirectory {
    /// Locks the directory at `path`, waiting at most `wait`; `None` where there is none.
    pub(super) fn open(path: &Path, mode: Lock, wait: Duration) -> Result<Option<Self>> {
        let deadline = Instant::now() + wait;
        loop {
            match Self::attempt(path, mode)? {
                Attempt::Locked(directory) => return Ok(Some(directory)),
                Attempt::Absent => return Ok(None),
                Attempt::Busy => pause(path, deadline)?,
            }
        }
    }

    /// Locks the directory at `path` if that needs no waiting.
    pub(super) fn attempt(path: &Path, mode: Lock) -> Result<Attempt> {
        let failed = |source| Error::io(format!("lock {}", path.display()), source);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Attempt::Absent),
            Err(source) => return Err(Error::io(format!("open {}", path.display()), source)),
        };
        let result = match mode {
            Lock::Shared => file.try_lock_shared(),
            Lock::Exclusive => file.try_lock(),
        };
        match result {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Attempt::Busy),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Between opening and locking, the directory may have been removed or replaced by another.
        let locked = file.metadata().map_err(failed)?;
        match fs::metadata(path) {
            Ok(present) if (present.dev(), present.ino()) == (locked.dev(), locked.ino()) => {
                Ok(Attempt::Locked(Self { _file: file, mode }))
            }
            Ok(_) => Ok(Attempt::Busy),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Attempt::Absent),
            Err(source) => Err(failed(source)),
        }
    }

    pub(super) fn mode(&self) -> Lock {
        self.mode
    }
}

/// Waits a little, or reports who holds the lock on `path` once `deadline` is past.
pub(super) fn pause(path: &Path, deadline: Instant) -> Result<()> {
    if Instant::now() >= deadline {
        return Err(Error::Locked {
            path: path.into(),
            pids: holders(path),
        });
    }
    thread::sleep(INTERVAL);
    Ok(())
}

/// The processes that hold a lock on `path`, as far as this PID namespace shows them.
fn holders(path: &Path) -> Vec<u32> {
    let (Ok(metadata), Ok(locks)) = (fs::metadata(path), fs::read_to_string("/proc/locks")) else {
        return Vec::new();
    };
    parse_holders(&locks, metadata.dev(), metadata.ino())
}

fn parse_holders(locks: &str, device: u64, inode: u64) -> Vec<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let mut pids: Vec<u32> = locks
        .lines()
        .filter_map(|line| {
            // "1: FLOCK  ADVISORY  WRITE 1234 00:2b:77 0 EOF"; those that wait have "->" after the number.
            let fields: Vec<_> = line.split_whitespace().collect();
            (fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&file.as_str()))
                .then(|| fields[4].parse().ok())?
        })
        .filter(|&pid| pid != 0)
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_those_that_have_the_lock_on_that_file() {
        let locks = "1: FLOCK  ADVISORY  WRITE 100 00:2b:77 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 101 00:2b:77 0 EOF\n\
                     2: FLOCK  ADVISORY  READ 102 00:2b:78 0 EOF\n\
                     3: POSIX  ADVISORY  WRITE 103 00:2b:77 0 EOF\n\
                     4: FLOCK  ADVISORY  READ 0 00:2b:77 0 EOF\n";
        let device = nix::sys::stat::makedev(0, 0x2b);
        assert_eq!(parse_holders(locks, device, 77), [100]);
        assert_eq!(parse_holders(locks, device, 78), [102]);
        assert_eq!(parse_holders(locks, device, 79), [0_u32; 0]);
    }

    #[test]
    fn a_writer_excludes_and_is_named_and_readers_share() {
        let directory = tempfile::tempdir().unwrap();
        let open = |mode| LockedDirectory::open(directory.path(), mode, Duration::ZERO);
        let writer = open(Lock::Exclusive).unwrap().unwrap();
        let error = open(Lock::Shared).unwrap_err();
        assert_eq!((error.code(), error.exit_status()), ("locked", 5));
        assert!(
            matches!(&error, Error::Locked { pids, .. } if pids == &[std::process::id()]),
            "{error}"
        );
        drop(writer);
        let _reader = open(Lock::Shared).unwrap().unwrap();
        let _another = open(Lock::Shared).unwrap().unwrap();
        assert!(open(Lock::Exclusive).is_err());
    }

    #[test]
    fn a_directory_replaced_while_waiting_is_opened_anew() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("instance");
        fs::create_dir(&path).unwrap();
        let writer = LockedDirectory::open(&path, Lock::Exclusive, Duration::ZERO)
            .unwrap()
            .unwrap();
        let waiting = thread::spawn({
            let path = path.clone();
            move || LockedDirectory::open(&path, Lock::Exclusive, Duration::from_secs(5))
        });
        thread::sleep(INTERVAL * 3);
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::rename(&other, &path).unwrap();
        drop(writer);
        let locked = waiting.join().unwrap().unwrap().unwrap();
        assert_eq!(
            locked._file.metadata().unwrap().ino(),
            fs::metadata(&path).unwrap().ino()
        );
    }

    #[test]
    fn a_directory_removed_while_waiting_is_absent() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("instance");
        fs::create_dir(&path).unwrap();
        let writer = LockedDirectory::open(&path, Lock::Exclusive, Duration::ZERO)
            .unwrap()
            .unwrap();
        let waiting = thread::spawn({
            let path = path.clone();
            move || LockedDirectory::open(&path, Lock::Shared, Duration::from_secs(5))
        });
        thread::sleep(INTERVAL * 3);
        fs::remove_dir(&path).unwrap();
        drop(writer);
        assert!(waiting.join().unwrap().unwrap().is_none());
    }
}
