//! Running an unmodified program whose outgoing connections take their source ports from demux.
//!
//! The command runs in a control group of its own, to which two programs are attached that run in
//! every connect(2) of a socket made there (`demux-ebpf/src/connect.rs`). A second process, the
//! watcher, holds their links and waits for the end of everything in the group; so the hooks live as
//! long as the last process in the group, and the group goes with it, even if demux is killed.

mod group;
mod process;
mod user;
mod watch;

use std::{ffi::OsString, io, os::fd::AsFd as _};

use demux_common::{layout::program, ports::Algorithm};

pub use self::process::Ended;
use self::{group::Group, process::Started, user::Identity, watch::Guard};
use crate::{
    Error, Result,
    attach::cgroup::{Refusal, attach_connect},
    bpffs::BpfFs,
    capability::{Capability, require},
    netns::NetworkNamespace,
    object, ports,
    sources::{self, Changes},
    state::{Instance, Lock, Paths},
    tables::{Access, Tables},
};

/// The programs that run in connect(2).
const PROGRAMS: [&str; 2] = [program::CONNECT_V4, program::CONNECT_V6];

/// What is to be run, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// The program, looked for as by execvp(3), and its arguments.
    pub command: Vec<OsString>,
    /// How ports are chosen; as the settings say, where there is none.
    pub algorithm: Option<Algorithm>,
    /// The name or number of the user as whom it runs; who called sudo, or demux, where there is none.
    pub user: Option<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Execution {
    /// How the command ended.
    pub ended: Ended,
    /// Why it did not begin.
    pub reason: Option<io::Error>,
}

/// Runs a command to its end, with its outgoing connections hooked. What it has started and left
/// behind goes on, hooked too.
///
/// The calling process must have one thread only, since it is copied. Signals are blocked while the
/// command runs, and passed on.
///
/// # Errors
///
/// [`Error::NotLoaded`]; [`Error::InvalidArgument`] for a user who does not exist; where the programs
/// cannot be loaded, or the control group cannot be made. The command was not begun then.
pub fn run(bpffs: &BpfFs, request: &ExecRequest) -> Result<Execution> {
    let identity = Identity::choose(request.user.as_deref())?;
    let guard = hook(bpffs, request)?;
    let mut waiting = None;
    let began = watch::start(&guard)
        .and_then(|watched| {
            waiting = Some(watched.waiting);
            Ok((guard.group.processes()?, watched.begun))
        })
        .and_then(|(processes, begun)| {
            process::start(&request.command, identity.as_ref(), processes, begun)
        });
    let execution = match began {
        Ok(Started::Running(running)) => running.wait().map(|ended| Execution {
            ended,
            reason: None,
        }),
        Ok(Started::Not(ended, reason)) => Ok(Execution {
            ended,
            reason: Some(reason),
        }),
        Err(error) => Err(error),
    };
    // Where something is left in it, the watcher will.
    guard.remove();
    drop(waiting);
    execution
}

/// Makes the control group, with the hooks attached.
fn hook(bpffs: &BpfFs, request: &ExecRequest) -> Result<Guard> {
    // Without CAP_PERFMON the verifier follows so many more paths that it gives up on the allocator.
    require(
        "choose source ports for a program",
        &[Capability::Bpf, Capability::NetAdmin, Capability::Perfmon],
    )?;
    let namespace = NetworkNamespace::current()?;
    let instance = Instance::open(bpffs, namespace.cookie(), Lock::Exclusive)?;
    let tables = Tables::open(&instance, Access::ReadWrite)?;
    // Before the routes are read, so that no change is missed.
    let changes = Changes::open()?;
    sources::refresh(&tables)?;
    let settings = ports::refresh(&tables)?;
    load(&instance, &tables)?;
    let mut guard = Guard {
        group: Group::create()?,
        tables,
        changes,
        links: Vec::new(),
    };
    let attached = attach(&mut guard, instance.paths()).and_then(|()| {
        let algorithm = request.algorithm.unwrap_or(settings.algorithm);
        guard.tables.set_exec_group(guard.group.id(), algorithm)
    });
    if let Err(error) = attached {
        guard.remove();
        return Err(error);
    }
    Ok(guard)
}

/// Loads the programs and pins them beside those that every instance has, where this is the first
/// command: the verifier takes its time.
fn load(instance: &Instance, tables: &Tables) -> Result<()> {
    let absent: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|name| !instance.paths().program(name).exists())
        .collect();
    if absent.is_empty() {
        return Ok(());
    }
    let mut ebpf = object::open(instance.paths(), tables)?;
    for name in absent {
        object::load_program(&mut ebpf, name, &instance.paths().program(name))?;
    }
    Ok(())
}

fn attach(guard: &mut Guard, paths: &Paths) -> Result<()> {
    for name in PROGRAMS {
        let is_v6 = name == program::CONNECT_V6;
        let pin = paths.program(name);
        let link =
            attach_connect(&pin, is_v6, guard.group.as_fd()).map_err(|refusal| match refusal {
                Refusal::Kernel(reason) => Error::Unsupported {
                    operation: format!("run {name} for a control group"),
                    reason,
                },
                Refusal::Other(error) => error,
            })?;
        guard.links.push(link);
    }
    Ok(())
}
