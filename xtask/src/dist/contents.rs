//! What is installed where.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

use super::{
    on_file, third_party,
    tree::{DATA, PROGRAM, Tree},
};
use crate::{process, workspace};

/// The command.
const BINARY: &str = "usr/sbin/demux";

/// The configuration, which an administrator changes.
pub(super) const CONFIGURATION: &str = "etc/demux/demux.toml";

/// Where documents go.
pub(super) const DOCUMENTS: &str = "usr/share/doc/demux";

/// Files of the directory `packaging` and where they go.
const PACKAGING: [(&str, &str); 6] = [
    ("demux.toml", CONFIGURATION),
    (
        "systemd/demux.service",
        "usr/lib/systemd/system/demux.service",
    ),
    (
        "systemd/demux-apply.service",
        "usr/lib/systemd/system/demux-apply.service",
    ),
    (
        "systemd/demux@.service",
        "usr/lib/systemd/system/demux@.service",
    ),
    ("sysusers.d/demux.conf", "usr/lib/sysusers.d/demux.conf"),
    ("tmpfiles.d/demux.conf", "usr/lib/tmpfiles.d/demux.conf"),
];

/// Where a shell looks for what it completes.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/demux"),
    ("zsh", "usr/share/zsh/vendor-completions/_demux"),
    ("fish", "usr/share/fish/vendor_completions.d/demux.fish"),
];

/// Everything that both packages hold; `work` is a directory for what comes and goes.
///
/// # Errors
/// When `demux` is not linked statically or does not run, and when a file is missing.
pub(super) fn collect(demux: &Path, work: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.add(BINARY, stripped(demux, work)?, PROGRAM);
    for (from, to) in PACKAGING {
        tree.add(to, packaging(from)?, DATA);
    }
    tree.add_directory("etc/demux/demux.d");
    for (shell, to) in COMPLETIONS {
        let script = process::output(Command::new(demux).args(["completions", shell]))?;
        tree.add(to, script, DATA);
    }
    add_manual_pages(&mut tree, demux, work)?;
    for (from, to) in [
        ("README.md", "README.md.gz"),
        ("CHANGELOG.md", "changelog.gz"),
    ] {
        let text = read(&workspace::root().join(from))?;
        tree.add(format!("{DOCUMENTS}/{to}"), gzip(&text)?, DATA);
    }
    let notices = third_party::notices()?;
    tree.add(
        format!("{DOCUMENTS}/third-party.gz"),
        gzip(notices.as_bytes())?,
        DATA,
    );
    Ok(tree)
}

/// A file of the directory `packaging`.
///
/// # Errors
/// When it cannot be read.
pub(super) fn packaging(name: &str) -> Result<Vec<u8>> {
    read(&workspace::root().join("packaging").join(name))
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The binary without debug information.
fn stripped(demux: &Path, work: &Path) -> Result<Vec<u8>> {
    let copy = work.join("demux");
    fs::copy(demux, &copy).with_context(|| format!("cannot copy {}", demux.display()))?;
    // Symbols stay, so that a backtrace still names functions.
    on_file("strip", &["--strip-debug"], &copy)?;
    let content = read(&copy)?;
    if is_dynamic(&content).with_context(|| format!("{} is no program", demux.display()))? {
        bail!(
            "{} needs shared libraries; `cargo xtask build` makes one that does not",
            demux.display()
        );
    }
    Ok(content)
}

/// Whether a program wants a loader (the program header PT_INTERP), which is what shared libraries need;
/// `None` where it is no 64-bit ELF file.
fn is_dynamic(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    if elf.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let number = |at: usize| -> Option<usize> {
        Some(u64::from_le_bytes(elf.get(at..at + 8)?.try_into().ok()?) as usize)
    };
    let short = |at: usize| -> Option<usize> {
        Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?).into())
    };
    let (start, size, count) = (number(32)?, short(54)?, short(56)?);
    for index in 0..count {
        let at = start + index * size;
        let kind = elf.get(at..at + 4)?;
        if kind == PT_INTERP.to_le_bytes() {
            return Some(true);
        }
    }
    Some(false)
}

fn add_manual_pages(tree: &mut Tree, demux: &Path, work: &Path) -> Result<()> {
    let directory = work.join("man");
    fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    process::output(Command::new(demux).arg("man").arg(&directory))?;
    for entry in fs::read_dir(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let page = gzip(&read(&entry.path())?)?;
        tree.add(format!("usr/share/man/man1/{name}.gz"), page, DATA);
    }
    Ok(())
}

/// `content` compressed, without a name or a time in it.
fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("gzip")
        .args(["-9", "--no-name", "--stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start gzip")?;
    let mut stdin = child.stdin.take().context("gzip has no input")?;
    let output = thread::scope(|scope| {
        // Beside reading, or both would wait for each other.
        scope.spawn(move || std::io::Write::write_all(&mut stdin, content));
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("gzip failed ({})", output.status);
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::{gzip, is_dynamic};

    #[test]
    fn a_program_that_wants_a_loader_is_told_from_others() {
        let shell = std::fs::read("/bin/sh").unwrap();
        assert_eq!(is_dynamic(&shell), Some(true));
        assert_eq!(is_dynamic(b"#!/bin/sh"), None);
        assert_eq!(is_dynamic(b"\x7fELF\x02"), None);
    }

    #[test]
    fn what_is_compressed_twice_is_the_same() {
        let text = vec![b'x'; 300_000];
        let once = gzip(&text).unwrap();
        assert!(once.len() < 3_000);
        assert_eq!(once, gzip(&text).unwrap());
    }
}
