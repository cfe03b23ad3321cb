//! The process that outlives the others: it holds the hooks of a command's control group and removes
//! the group when the last process in it has ended, whatever became of demux.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd, RawFd},
};

use aya::programs::links::FdLink;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{ForkResult, close, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setsid},
};

use super::group::{Events, Group};
use crate::{
    Error, Result,
    sources::{self, Changes},
    tables::Tables,
};

/// What belongs to the control group of a command.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) group: Group,
    pub(super) tables: Tables,
    pub(super) changes: Changes,
    /// The hooks are attached for as long as these are open.
    pub(super) links: Vec<FdLink>,
}

impl Guard {
    /// Removes the control group and what is known of it, if nothing is in it; tells whether it did.
    pub(super) fn remove(&self) -> bool {
        let is_gone = self.group.remove();
        if is_gone {
            // The instance may be gone too.
            let _ = self.tables.remove_exec_group(self.group.id());
        }
        is_gone
    }
}

/// The ends of two pipes, which the watcher sees closed.
#[derive(Debug)]
pub(super) struct Watched {
    /// Open until the command has been executed, or cannot be: then the watcher begins to look
    /// whether the group is empty.
    pub(super) begun: OwnedFd,
    /// Open as long as demux waits for the command: then the watcher looks again. The kernel tells of
    /// changes with a delay, and of none in a group that has been removed meanwhile.
    pub(super) waiting: OwnedFd,
}

/// Starts the watcher.
///
/// The process must have one thread only.
pub(super) fn start(guard: &Guard) -> Result<Watched> {
    let failed = |source: io::Error| Error::io("start the watcher", source);
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(failed)?
        .count();
    if threads != 1 {
        return Err(Error::unexpected(
            "start the watcher",
            format!("a process with {threads} threads cannot be copied"),
        ));
    }
    let events = guard.group.events()?;
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|source| failed(source.into()));
    let (is_begun, begun) = pipe()?;
    let (is_waiting, waiting) = pipe()?;
    // SAFETY: the process has no other threads, so that nothing is locked for ever in the copy.
    match unsafe { fork() }.map_err(|source| failed(source.into()))? {
        ForkResult::Parent { .. } => Ok(Watched { begun, waiting }),
        ForkResult::Child => {
            drop((begun, waiting));
            watch(guard, &events, File::from(is_begun), &is_waiting);
            // SAFETY: the call ends the process. Nothing of it is to be cleaned up or written: all
            // that is the original's.
            unsafe { libc::_exit(0) }
        }
    }
}

fn watch(guard: &Guard, events: &Events, mut is_begun: File, is_waiting: &OwnedFd) {
    detach();
    // A byte never comes, only the end.
    let _ = is_begun.read(&mut [0]);
    let mut awaited = 3;
    while events.is_populated() {
        let mut ready = [
            PollFd::new(events.as_fd(), PollFlags::POLLPRI),
            PollFd::new(guard.changes.as_fd(), PollFlags::POLLIN),
            PollFd::new(is_waiting.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready[..awaited], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break,
        }
        if awaited == 3 && ready[2].any() == Some(true) {
            // It stays ready from now on.
            awaited = 2;
        }
        if guard.changes.take() {
            // Where that fails, what was known before is known still.
            let _ = sources::refresh(&guard.tables);
        }
    }
    guard.remove();
}

/// Leaves the terminal, the directory and every file that demux was started with.
fn detach() {
    let _ = setsid();
    let _ = std::env::set_current_dir("/");
    // SAFETY: the disposition is a constant, and nothing of ours handles signals.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(&null);
        let _ = dup2_stdout(&null);
        let _ = dup2_stderr(&null);
    }
    for number in inherited() {
        let _ = close(number);
    }
}

/// The descriptors that were open when demux began: its own would be closed by execve(2).
fn inherited() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok())
        .filter(|number| *number > 2 && !is_own(*number))
        .collect()
}

fn is_own(number: RawFd) -> bool {
    // SAFETY: the call takes no addresses, and no descriptor is changed.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags < 0 || flags & libc::FD_CLOEXEC != 0
}
