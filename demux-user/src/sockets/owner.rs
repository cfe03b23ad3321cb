//! Which process holds a socket: what `/proc` shows of everybody's descriptors.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// A process that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its number in the PID namespace of the caller.
    pub pid: u32,
    /// Its name in `/proc/PID/comm`, of at most 15 bytes. A process chooses its name: it may hold anything.
    pub process: String,
}

/// The owners of all sockets, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    by_inode: HashMap<u64, Owner>,
}

impl Owners {
    /// Looks through the descriptors of all processes.
    ///
    /// Sockets are missing whose processes the caller may not see: without CAP_SYS_PTRACE those of other
    /// users, and always those in PID namespaces that are not below the caller's.
    ///
    /// # Errors
    ///
    /// Where `/proc` cannot be read.
    pub fn read() -> Result<Self> {
        const PROC: &str = "/proc";
        let mut owners = Self::default();
        let mut processes = processes(Path::new(PROC))
            .map_err(|source| Error::io(format!("read {PROC}"), source))?;
        processes.sort_unstable();
        for (pid, directory) in processes {
            owners.add(pid, &directory);
        }
        Ok(owners)
    }

    /// Who holds the socket with this inode; where several do, the one with the lowest number, which is
    /// mostly the parent of the others.
    #[must_use]
    pub fn of(&self, inode: u64) -> Option<&Owner> {
        self.by_inode.get(&inode)
    }

    /// Adds the sockets of a process, as far as it lasts and lets us look.
    fn add(&mut self, pid: u32, directory: &Path) {
        let Ok(descriptors) = fs::read_dir(directory.join("fd")) else {
            return;
        };
        let mut owner = None;
        for descriptor in descriptors.filter_map(Result::ok) {
            let Ok(target) = fs::read_link(descriptor.path()) else {
                continue;
            };
            let Some(inode) = socket_inode(&target) else {
                continue;
            };
            let Some(owner) = owner.get_or_insert_with(|| named(pid, directory)) else {
                return;
            };
            self.by_inode.entry(inode).or_insert_with(|| owner.clone());
        }
    }
}

/// The process with its name; `None` once it has vanished.
fn named(pid: u32, directory: &Path) -> Option<Owner> {
    let name = fs::read(directory.join("comm")).ok()?;
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    Some(Owner {
        pid,
        process: String::from_utf8_lossy(name).into_owned(),
    })
}

/// The processes with their directories.
fn processes(proc: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = fs::read_dir(proc)?.filter_map(Result::ok);
    Ok(entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect())
}

/// The number in `socket:[123]`.
fn socket_inode(target: &Path) -> Option<u64> {
    let target = target.to_str()?;
    target
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::{
        net::UdpSocket,
        os::fd::AsFd as _,
        process::{self, Command, Stdio},
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use rustix::fs::fstat;

    use super::*;

    fn inode(socket: &UdpSocket) -> u64 {
        fstat(socket).unwrap().st_ino
    }

    /// Looks until it is as it should be: the children of other tests hold copies of every descriptor
    /// for a moment.
    #[track_caller]
    fn until(condition: impl Fn(&Owners) -> bool) {
        let is_so = (0..1000).any(|_| condition(&Owners::read().unwrap()));
        assert!(is_so);
    }

    #[test]
    fn only_sockets_have_the_inode_of_a_socket() {
        let inode = |target: &str| socket_inode(Path::new(target));
        assert_eq!(inode("socket:[4026]"), Some(4026));
        for other in ["pipe:[4026]", "socket:[]", "socket:[4", "/tmp/socket:[1]"] {
            assert_eq!(inode(other), None, "{other}");
        }
    }

    #[test]
    fn a_socket_belongs_to_this_process_by_its_name() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let owners = Owners::read().unwrap();
        let owner = owners.of(inode(&socket)).unwrap();
        assert_eq!(owner.pid, process::id());
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(owner.process, name.trim_end());

        let gone = inode(&socket);
        drop(socket);
        until(|owners| owners.of(gone).is_none());
    }

    #[test]
    fn a_socket_that_was_handed_on_belongs_to_its_holder() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = inode(&socket);
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::from(socket.as_fd().try_clone_to_owned().unwrap()))
            .spawn()
            .unwrap();
        let lowest = process::id().min(child.id());
        until(|owners| owners.of(inode).unwrap().pid == lowest);
        drop(socket);
        let expected = Owner {
            pid: child.id(),
            process: "sleep".into(),
        };
        until(|owners| owners.of(inode) == Some(&expected));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn processes_may_vanish_while_they_are_looked_at() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
            for _ in 0..20 {
                let owners = Owners::read().unwrap();
                assert!(owners.of(inode(&socket)).is_some());
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_process_that_is_gone_has_no_sockets() {
        let mut owners = Owners::default();
        owners.add(1, Path::new("/proc/0"));
        assert!(owners.by_inode.is_empty());
        assert_eq!(named(1, Path::new("/proc/0")), None);
    }
}
