//! Control groups: finding the root of their hierarchy, and attaching programs to one of them.
//!
//! A program that is attached to a group runs for the sockets of every process in it and below it,
//! in whatever network namespace they are.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSockAddr, CgroupSockAddrAttachType, Program, ProgramError,
        links::{FdLink, LinkError},
    },
};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use super::pin_link;
use crate::{
    Error, bpf,
    netns::unescape,
    object::{chain, load_unpinned},
};

/// Whose mounts are looked through: those of this process, and those that a private mount namespace
/// may hide.
const PROCESSES: [&str; 2] = ["/proc/self", "/proc/1"];

/// The group above all others that this process may see, opened.
///
/// The hierarchy is there whether it is mounted or not; where it is not, a mount is made that nothing
/// but the descriptor refers to, which takes CAP_SYS_ADMIN. Only there, because every mount sets the
/// options of the whole hierarchy.
///
/// # Errors
///
/// Why it cannot be had, in the words of the system.
pub fn root() -> io::Result<OwnedFd> {
    for process in PROCESSES.map(Path::new) {
        let Ok(mounts) = fs::read_to_string(process.join("mountinfo")) else {
            continue;
        };
        for target in mounted_roots(&mounts) {
            // What has been mounted over it since is another file system.
            if let Ok(group) = open(&process.join("root").join(target.trim_start_matches('/')))
                && is_group(&group)
            {
                return Ok(group);
            }
        }
    }
    unmounted_root()
}

/// The same without looking for a mount.
fn unmounted_root() -> io::Result<OwnedFd> {
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?)
}

/// Opens the control group with this directory.
///
/// # Errors
///
/// Those of openat(2).
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

fn is_group(directory: &OwnedFd) -> bool {
    fstatfs(directory).is_ok_and(|status| status.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Where a mountinfo file says that the whole hierarchy is mounted, and not a part of it.
fn mounted_roots(mounts: &str) -> Vec<String> {
    mounts
        .lines()
        .filter_map(|line| {
            // Optional fields end with a dash; the kind of the file system follows.
            let (fields, kind) = line.split_once(" - ")?;
            let mut fields = fields.split(' ').skip(3);
            let (root, target) = (fields.next()?, fields.next()?);
            (root == "/" && kind.starts_with("cgroup2 ")).then(|| unescape(target))
        })
        .collect()
}

/// Why a program is not attached to a group.
#[derive(Debug)]
pub enum Refusal {
    /// The kernel said no: it lacks what the program needs, or the caller the right to attach it.
    Kernel(String),
    /// Something else went wrong.
    Other(Error),
}

/// Loads a program of the object and attaches it to a group by a link, which is pinned at `pin`.
/// Other programs that are attached there run before and after it.
///
/// # Errors
///
/// [`Refusal`]; nothing is attached then.
pub fn attach(
    ebpf: &mut Ebpf,
    name: &str,
    group: BorrowedFd<'_>,
    pin: &Path,
) -> Result<(), Refusal> {
    let program = load_unpinned(ebpf, name).map_err(|error| Refusal::Kernel(error.to_string()))?;
    let link = link(program, group)?;
    pin_link(link, pin)
        .map_err(|reason| Refusal::Other(Error::unexpected(format!("attach {name}"), reason)))
}

/// Attaches the pinned program for connect(2), over IPv6 or IPv4, to a group for as long as the link is
/// held.
///
/// # Errors
///
/// [`Refusal`]; nothing is attached then.
pub fn attach_connect(pin: &Path, is_v6: bool, group: BorrowedFd<'_>) -> Result<FdLink, Refusal> {
    let kind = if is_v6 {
        CgroupSockAddrAttachType::Connect6
    } else {
        CgroupSockAddrAttachType::Connect4
    };
    let program = CgroupSockAddr::from_pin(pin, kind).map_err(|error| other_refusal(&error))?;
    link(&mut Program::CgroupSockAddr(program), group)
}

/// Whether a link is pinned that is attached to no group any more.
///
/// # Errors
///
/// Where the pin cannot be opened.
pub(crate) fn is_detached(pin: &Path) -> crate::Result<bool> {
    let info = bpf::object_get(pin, false).and_then(|link| bpf::link_info(link.as_fd()));
    match info {
        Ok(info) => Ok(info.cgroup.is_some_and(|group| group.id == 0)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::io(format!("open {}", pin.display()), source)),
    }
}

fn link(program: &mut Program, group: BorrowedFd<'_>) -> Result<FdLink, Refusal> {
    // A link always leaves others in place. The flag that says so is for attachments without one,
    // and the kernel refuses it here.
    let mode = CgroupAttachMode::Single;
    let refused = |error: ProgramError| match error {
        ProgramError::SyscallError(error) => {
            Refusal::Kernel(format!("attach to a control group: {}", error.io_error))
        }
        other => other_refusal(&other),
    };
    match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(group, mode).map_err(refused)?;
            program.take_link(id).map_err(refused)?.try_into()
        }
        Program::CgroupSock(program) => {
            let id = program.attach(group, mode).map_err(refused)?;
            program.take_link(id).map_err(refused)?.try_into()
        }
        other => {
            return Err(Refusal::Other(Error::unexpected(
                "attach to a control group",
                format!("no program of the type {:?} can be", other.prog_type()),
            )));
        }
    }
    .map_err(|error: LinkError| other_refusal(&error))
}

fn other_refusal(error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal::Other(Error::unexpected("attach to a control group", chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mount_of_the_whole_hierarchy_counts() {
        let mounts = "\
35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - tmpfs tmpfs rw
36 35 0:31 / /sys/fs/cgroup/cpu rw shared:10 - cgroup cgroup rw,cpu
37 35 0:32 /a.slice /a rw shared:11 - cgroup2 cgroup2 rw
38 35 0:32 / /sys/fs/my\\040group rw - cgroup2 cgroup2 rw
";
        assert_eq!(mounted_roots(mounts), ["/sys/fs/my group"]);
    }

    #[test]
    fn the_root_can_be_had_with_or_without_a_mount() {
        assert!(is_group(&root().expect("control groups (needs root)")));
        assert!(is_group(&unmounted_root().expect("a mount (needs root)")));
    }
}
