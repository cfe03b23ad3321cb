//! A throw-away BPF file system, mounted where nobody else looks.

use std::path::Path;

use demux_user::bpffs::BpfFs;
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

/// A BPF file system of its own for one test, unmounted with the value.
#[derive(Debug)]
pub struct TemporaryBpfFs {
    directory: TempDir,
    bpffs: BpfFs,
}

impl TemporaryBpfFs {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let bpffs = BpfFs::find_or_mount(Some(directory.path())).expect("a mount (needs root)");
        Self { directory, bpffs }
    }

    pub fn bpffs(&self) -> &BpfFs {
        &self.bpffs
    }

    /// What `--bpffs` takes.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Default for TemporaryBpfFs {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TemporaryBpfFs {
    fn drop(&mut self) {
        let _ = umount2(self.directory.path(), MntFlags::MNT_DETACH);
    }
}
