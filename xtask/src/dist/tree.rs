//! Files on their way into a package: sorted, with modes that no umask changes.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The mode of directories.
const DIRECTORY: u32 = 0o755;

/// The mode of files that are read.
pub(super) const DATA: u32 = 0o644;

/// The mode of programs.
pub(super) const PROGRAM: u32 = 0o755;

/// Files by their paths below the root, and directories that may be empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    files: BTreeMap<PathBuf, File>,
    directories: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
struct File {
    content: Vec<u8>,
    mode: u32,
}

impl Tree {
    /// Adds a file, `path` without a slash in front.
    pub(super) fn add(&mut self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>, mode: u32) {
        let content = content.into();
        self.files.insert(path.into(), File { content, mode });
    }

    /// Adds a directory that may stay empty.
    pub(super) fn add_directory(&mut self, path: impl Into<PathBuf>) {
        self.directories.push(path.into());
    }

    /// Adds everything of `other`.
    pub(super) fn merge(&mut self, other: &Self) {
        self.files.extend(other.files.clone());
        self.directories.extend(other.directories.iter().cloned());
    }

    /// Every file with its content.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.files
            .iter()
            .map(|(path, file)| (path.as_path(), file.content.as_slice()))
    }

    /// What the files take when they are installed, in KiB; each at least one.
    pub(super) fn installed_kib(&self) -> u64 {
        let sizes = self.files.values().map(|file| file.content.len() as u64);
        sizes.map(|size| size.div_ceil(1024).max(1)).sum()
    }

    /// Writes everything below `root`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let failed = |path: &Path| format!("cannot write {}", path.display());
        make_directory(root).with_context(|| failed(root))?;
        let parents = self.files.keys().filter_map(|path| path.parent());
        for directory in parents.chain(self.directories.iter().map(PathBuf::as_path)) {
            // From the top, so that each gets its mode.
            let mut above: Vec<&Path> = directory.ancestors().collect();
            above.reverse();
            for directory in above {
                let path = root.join(directory);
                make_directory(&path).with_context(|| failed(&path))?;
            }
        }
        for (path, file) in &self.files {
            let path = root.join(path);
            fs::write(&path, &file.content)
                .and_then(|()| set_mode(&path, file.mode))
                .with_context(|| failed(&path))?;
        }
        Ok(())
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        fs::create_dir(path)?;
    }
    set_mode(path, DIRECTORY)
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Removes a directory that need not be there.
///
/// # Errors
/// When it is there and cannot be removed.
pub(super) fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
