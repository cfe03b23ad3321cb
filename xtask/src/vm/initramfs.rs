//! The file system of a machine: busybox, kernel modules, the test and the script that runs it.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use cpio::newc;

use super::{Guest, kernel::Kernel, modules};
use crate::{process, setup::Tools};

/// The first process of the machine.
const INIT: &str = include_str!("init.sh");

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Writes the file system for `guest` on `kernel` to the archive `path`.
pub(super) fn write(path: &Path, kernel: &Kernel, guest: &Guest, tools: &Tools) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let archive = Archive {
        file: BufWriter::new(file),
        directories: BTreeSet::new(),
    };
    archive
        .fill(kernel, guest, tools)
        .with_context(|| format!("cannot make {}", path.display()))
}

struct Archive {
    file: BufWriter<File>,
    directories: BTreeSet<PathBuf>,
}

impl Archive {
    fn fill(mut self, kernel: &Kernel, guest: &Guest, tools: &Tools) -> Result<()> {
        self.parents(Path::new("dev/console"))?;
        // The script talks before it mounts the file system of devices.
        let console = newc::Builder::new("dev/console").mode(CHARACTER_DEVICE);
        self.entry(console.rdev_major(5).rdev_minor(1), &[])?;
        self.file("/init", INIT.as_bytes())?;
        self.copy("/bin/busybox", &tools.busybox)?;
        for (index, module) in modules::in_load_order(&kernel.modules, tools)?
            .iter()
            .enumerate()
        {
            // Numbered, because the shell sorts names and the order matters.
            let name = format!("/modules/{index:02}-{}", module.name);
            self.file(&name, &module.content)?;
        }
        self.copy("/test", &guest.test)?;
        for program in &guest.programs {
            self.copy(&program.to_string_lossy(), program)?;
        }
        let args = guest
            .args
            .iter()
            .map(|arg| process::quoted(OsStr::new(arg)));
        let args: Vec<String> = args.collect();
        let script = format!(
            "exec /test --test-threads=1 --nocapture {}\n",
            args.join(" ")
        );
        self.file("/run-test", script.as_bytes())?;
        newc::trailer(&mut self.file)?;
        self.file.flush()?;
        Ok(())
    }

    fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, &content)
    }

    /// Adds an executable file, after the directories that lead to it.
    fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        self.parents(Path::new(path))?;
        self.entry(newc::Builder::new(path).mode(EXECUTABLE), content)
    }

    fn parents(&mut self, path: &Path) -> Result<()> {
        let mut missing: Vec<&Path> = path
            .ancestors()
            .skip(1)
            .filter(|parent| parent.file_name().is_some())
            .collect();
        missing.reverse();
        for parent in missing {
            if self.directories.insert(parent.to_path_buf()) {
                let entry = newc::Builder::new(&parent.to_string_lossy()).mode(DIRECTORY);
                self.entry(entry.nlink(2), &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: newc::Builder, content: &[u8]) -> Result<()> {
        let length = u32::try_from(content.len()).context("a file has more than 4 GB")?;
        let mut writer = entry.write(&mut self.file, length);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }
}
