//! What a command may do, taken away from it before it starts.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use rustix::{
    process::{Gid, Uid},
    thread::{
        CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
        set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};
use tempfile::TempDir;

use super::demux::{BINARY, Demux};

/// A copy of the binary that every user may run, whoever may look into the directory of the build.
#[derive(Debug)]
pub struct PublicBinary {
    directory: TempDir,
}

impl PublicBinary {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), all.clone()).unwrap();
        let copy = directory.path().join("demux");
        fs::copy(BINARY, &copy).unwrap();
        fs::set_permissions(&copy, all).unwrap();
        Self { directory }
    }

    /// Makes of `command` the same command run by a user with these groups, besides one of its own with the
    /// same number, and with these capabilities alone. What `command` was to do before it starts is forgotten.
    pub fn run_as_member(
        &self,
        command: &mut Command,
        user: u32,
        groups: &[u32],
        capabilities: CapabilitySet,
    ) {
        let mut public = self.copy_of(command);
        if let [group, ..] = groups {
            with_group(&mut public, *group);
        }
        let groups: Vec<Gid> = groups.iter().map(|&group| Gid::from_raw(group)).collect();
        before_exec(&mut public, move || {
            set_thread_groups(&groups)?;
            let group = Gid::from_raw(user);
            set_thread_res_gid(group, group, group)?;
            set_keep_capabilities(true)?;
            let user = Uid::from_raw(user);
            set_thread_res_uid(user, user, user)?;
            let sets = CapabilitySets {
                effective: capabilities,
                permitted: capabilities,
                inheritable: capabilities,
            };
            set_capabilities(None, sets)?;
            for capability in capabilities.iter() {
                configure_capability_in_ambient_set(capability, true)?;
            }
            Ok(())
        });
        *command = public;
    }

    /// Makes of `command` the same command run by a user without any right, who is in the group with the
    /// same number.
    pub fn run_as(&self, command: &mut Command, id: u32) {
        let mut public = self.copy_of(command);
        // Without the groups of the caller: that is what `groups` and `uid` do for root.
        public.uid(id).gid(id);
        *command = public;
    }

    fn copy_of(&self, command: &Command) -> Command {
        let mut public = Command::new(self.directory.path().join("demux"));
        public.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => public.env(name, value),
                None => public.env_remove(name),
            };
        }
        public.current_dir("/").stdin(Stdio::null());
        public
    }
}

impl Default for PublicBinary {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes a capability from a command that root runs; the number is that of `linux/capability.h`.
pub fn without_capability(command: &mut Command, number: u32) {
    before_exec(command, move || {
        // SAFETY: the call takes no addresses.
        check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) })
    });
}

pub const CAP_NET_ADMIN: u32 = 12;
pub const CAP_NET_RAW: u32 = 13;
pub const CAP_NET_BIND_SERVICE: u32 = 10;
pub const CAP_SYS_PTRACE: u32 = 19;
pub const CAP_SYS_ADMIN: u32 = 21;

/// Hides the mounts of control groups from a command.
pub fn without_control_groups(command: &mut Command) {
    before_exec(command, || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let all = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, all, None::<&str>)?;
        umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH)?;
        Ok(())
    });
}

/// Gives a command an /etc/group of its own, in which the group demux has this number.
pub fn with_group(command: &mut Command, number: u32) {
    let mut groups = tempfile::NamedTempFile::new().unwrap();
    writeln!(groups, "root:x:0:\ndemux:x:{number}:").unwrap();
    let all = fs::Permissions::from_mode(0o644);
    fs::set_permissions(groups.path(), all).unwrap();
    before_exec(command, move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let all = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, all, None::<&str>)?;
        let bind = MsFlags::MS_BIND;
        mount(
            Some(groups.path()),
            "/etc/group",
            None::<&str>,
            bind,
            None::<&str>,
        )?;
        Ok(())
    });
}

/// Lets nobody write to a mounted file system any more, or again.
pub fn remount_read_only(path: &Path, read_only: bool) {
    let mut flags = MsFlags::MS_REMOUNT;
    flags.set(MsFlags::MS_RDONLY, read_only);
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).unwrap();
}

/// As [`remount_read_only`], of the mount alone and not of the file system.
pub fn remount_mount_read_only(path: &Path, read_only: bool) {
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    flags.set(MsFlags::MS_RDONLY, read_only);
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).unwrap();
}

/// Gives what members of the group demux may read, with the modes that demux chose, to another group.
pub fn share_with(demux: &Demux<'_>, group: u32) {
    let share = |path: &Path| {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        chown(path, None, Some(group)).unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode(), mode);
    };
    let directory = demux.directory();
    share(demux.bpffs());
    share(&demux.bpffs().join("demux"));
    share(&directory);
    for entry in fs::read_dir(&directory).unwrap() {
        share(&entry.unwrap().path());
    }
    share(&directory.join("progs/demux_explain"));
}

/// Lets the kernel call itself 2.6 to a command, as `setarch --uname-2.6` does.
pub fn with_an_old_kernel(command: &mut Command) {
    before_exec(command, || {
        // SAFETY: the call takes no addresses.
        check(unsafe { libc::personality(libc::UNAME26 as libc::c_ulong) })
    });
}

/// Gives a command the mounts that `ip netns exec` gives it: its own, and its own /sys.
pub fn as_ip_netns_exec_does(command: &mut Command) {
    before_exec(command, || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let all = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, all, None::<&str>)?;
        umount2("/sys", MntFlags::MNT_DETACH)?;
        mount(
            Some("sysfs"),
            "/sys",
            Some("sysfs"),
            MsFlags::empty(),
            None::<&str>,
        )?;
        Ok(())
    });
}

fn before_exec(
    command: &mut Command,
    work: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the closures above only make system calls.
    unsafe { command.pre_exec(work) };
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
