//! A root without a system in it, and what a process may see there.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{chdir, chroot},
};
use tempfile::TempDir;

use super::stdout;

/// A directory for a root, with a shell for the scripts of packages and nothing else.
pub(crate) struct Root(TempDir);

impl Root {
    pub(crate) fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        for directory in [
            "bin",
            "etc",
            "proc",
            "sys",
            "var/lib/dpkg/updates",
            "var/lib/dpkg/info",
        ] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
        fs::copy(busybox(), root.join("bin/busybox")).unwrap();
        for applet in ["sh", "kill"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        root
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn join(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    /// The option of many programs that work on another root.
    pub(crate) fn option(&self) -> OsString {
        let mut option = OsString::from("--root=");
        option.push(self.path());
        option
    }

    /// Runs dpkg on it; what the package depends on is not there.
    #[track_caller]
    pub(crate) fn dpkg(&self, verb: &str, package: impl AsRef<OsStr>) -> String {
        stdout(
            Command::new("dpkg")
                .arg(self.option())
                .args(["--force-depends", "--force-bad-path", verb])
                .arg(package)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    }

    /// Gives this thread mounts and a network of its own, with all of the system that demux may look at
    /// below the root.
    pub(crate) fn enter_sandbox(&self, bpffs: &BpfFs) {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
        let set = |source: Option<&Path>, target: &Path, flags: MsFlags| {
            mount(source, target, None::<&str>, flags, None::<&str>)
                .unwrap_or_else(|error| panic!("{}: {error}", target.display()));
        };
        let all = MsFlags::MS_REC;
        set(None, Path::new("/"), MsFlags::MS_SLAVE | all);
        for name in ["proc", "sys"] {
            let source = Path::new("/").join(name);
            set(Some(&source), &self.join(name), MsFlags::MS_BIND | all);
        }
        set(
            Some(bpffs.path()),
            &self.join("sys/fs/bpf"),
            MsFlags::MS_BIND,
        );
    }

    /// A command in it, without an environment.
    pub(crate) fn command(&self, program: &str, args: &str) -> Command {
        let mut command = Command::new(program);
        command.args(args.split(' ')).env_clear();
        let root = self.path().to_path_buf();
        let enter = move || {
            chroot(&root)?;
            chdir("/")?;
            Ok(())
        };
        // SAFETY: the closure only makes system calls.
        unsafe { command.pre_exec(enter) };
        command
    }
}

/// The busybox of the test tools, which is linked statically.
fn busybox() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let busybox = workspace.join("target/toolchain/tests/root/bin/busybox");
    assert!(
        busybox.exists(),
        "there is no {}: cargo xtask setup --tests",
        busybox.display()
    );
    busybox
}

/// A BPF file system that the first process sees too; demux refuses others.
pub(crate) struct BpfFs(TempDir);

impl BpfFs {
    pub(crate) fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kind = Some("bpf");
        let flags = MsFlags::empty();
        mount(kind, directory.path(), kind, flags, None::<&str>).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Whether demux has nothing there; the kernel may have put iterators of its own into it.
    pub(crate) fn has_no_pins(&self) -> bool {
        fs::read_dir(self.path().join("demux")).map_or(0, Iterator::count) == 0
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}
