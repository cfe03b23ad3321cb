//! Running the command: starting it in its control group, passing signals on, and its end.

use std::{
    ffi::OsString,
    io::{self, ErrorKind, Read as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, kill, raise},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, pipe2, write},
};

use super::user::Identity;
use crate::{Error, Result};

/// Signals that somebody may send to demux and means the command.
const PASSED_ON: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// In `si_code`: from the kernel. The terminal sends so, to every process in its foreground.
const FROM_THE_KERNEL: i32 = 0x80;

/// How a command ended, or did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a status.
    Exited(u8),
    /// By a signal.
    Killed(i32),
    /// There is no such command.
    NotFound,
    /// It cannot be executed.
    NotExecutable,
}

impl Ended {
    /// The status that stands for it, as shells and env(1) have it.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => 128 + signal as u8,
            Self::NotFound => 127,
            Self::NotExecutable => 126,
        }
    }
}

/// A command that has been started.
#[derive(Debug)]
pub(super) struct Running {
    process: Pid,
    signals: SignalFd,
    mask: SigSet,
}

/// What came of starting a command.
pub(super) enum Started {
    Running(Running),
    Not(Ended, io::Error),
}

/// Starts a command in the group whose `cgroup.procs` is given. `begun` stays open until the command
/// has been executed.
pub(super) fn start(
    command: &[OsString],
    identity: Option<&Identity>,
    processes: OwnedFd,
    begun: OwnedFd,
) -> Result<Started> {
    let failed = |source: Errno| Error::io("prepare the command", source);
    let mut awaited: SigSet = PASSED_ON.into_iter().collect();
    awaited.add(Signal::SIGCHLD);
    let mask = awaited
        .thread_swap_mask(SigmaskHow::SIG_BLOCK)
        .map_err(failed)?;
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed. Who started demux may have had its children reaped unseen.
    unsafe { nix::sys::signal::sigaction(Signal::SIGCHLD, &default) }.map_err(failed)?;
    let signals = SignalFd::with_flags(&awaited, SfdFlags::SFD_CLOEXEC).map_err(failed)?;

    let Some((program, arguments)) = command.split_first() else {
        return Err(Error::invalid("command", "", "there is none"));
    };
    let (reader, writer) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(failed)?;
    let mut child = Command::new(program);
    child.args(arguments);
    if let Some(identity) = identity {
        child.envs(identity.environment());
    }
    let identity = identity.cloned();
    let prepare = {
        let begun = begun
            .try_clone()
            .map_err(|source| Error::io("prepare the command", source))?;
        move || -> io::Result<()> {
            // The descriptor was opened by who may use it.
            write(&processes, b"0")?;
            if let Some(identity) = &identity {
                identity.assume()?;
            }
            mask.thread_set_mask()?;
            // Held until here, and by the kernel until the command is executed.
            let _ = begun.as_raw_fd();
            write(&writer, b"!")?;
            Ok(())
        }
    };
    // SAFETY: the closure makes system calls only, and the process has no other threads.
    unsafe { child.pre_exec(prepare) };
    let result = child.spawn();
    drop(child);
    drop(begun);
    let process = match result {
        Ok(child) => Pid::from_raw(child.id() as i32),
        Err(source) => {
            let _ = mask.thread_set_mask();
            let mut byte = [0];
            let is_ready = std::fs::File::from(reader)
                .read(&mut byte)
                .is_ok_and(|count| count == 1);
            if !is_ready {
                return Err(Error::io("prepare the command", source));
            }
            let ended = match source.kind() {
                ErrorKind::NotFound => Ended::NotFound,
                _ => Ended::NotExecutable,
            };
            return Ok(Started::Not(ended, source));
        }
    };
    Ok(Started::Running(Running {
        process,
        signals,
        mask,
    }))
}

impl Running {
    /// Waits for the end of the command, and passes signals on until then.
    pub(super) fn wait(self) -> Result<Ended> {
        let ended = loop {
            match self.look()? {
                Some(ended) => break ended,
                None => self.pass_on()?,
            }
        };
        let _ = self.mask.thread_set_mask();
        Ok(ended)
    }

    /// How the command has ended; `None` while it runs. Where the terminal has stopped it, demux stops
    /// too, so that whoever started it sees that.
    fn look(&self) -> Result<Option<Ended>> {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED;
        match waitpid(self.process, Some(flags)) {
            Ok(WaitStatus::Exited(_, status)) => Ok(Some(Ended::Exited(status as u8))),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(Ended::Killed(signal as i32))),
            Ok(WaitStatus::Stopped(_, signal)) => {
                if matches!(signal, Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU) {
                    raise(Signal::SIGSTOP).map_err(cannot_wait)?;
                }
                Ok(None)
            }
            Ok(_) | Err(Errno::EINTR) => Ok(None),
            Err(source) => Err(cannot_wait(source)),
        }
    }

    fn pass_on(&self) -> Result<()> {
        let information = match self.signals.read_signal() {
            Ok(Some(information)) => information,
            Ok(None) | Err(Errno::EINTR) => return Ok(()),
            Err(source) => return Err(cannot_wait(source)),
        };
        let Ok(signal) = Signal::try_from(information.ssi_signo as i32) else {
            return Ok(());
        };
        let is_known = information.ssi_code == FROM_THE_KERNEL
            || information.ssi_pid == self.process.as_raw() as u32;
        if signal != Signal::SIGCHLD && !is_known {
            // Where it has ended, its end will be seen.
            let _ = kill(self.process, signal);
        }
        Ok(())
    }
}

fn cannot_wait(source: Errno) -> Error {
    Error::io("wait for the command", source)
}
