//! What every command works with: its writers, the format, and the way to the instance.

use std::{
    io::{self, IsTerminal as _, Write},
    path::Path,
};

use clap::ColorChoice;

use super::Global;
use crate::{
    Error, Result,
    bpffs::BpfFs,
    netns::NetworkNamespace,
    render::{Format, List, Row, printable},
    state::{Instance, Lock, Paths},
    tables::{Access, Tables},
};

/// Where colours are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Styles {
    pub(super) out: bool,
    pub(super) err: bool,
}

impl Styles {
    pub(super) fn choose(choice: ColorChoice) -> Self {
        let is_wanted = |is_terminal: bool| match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
                is_terminal
                    && !is_set("NO_COLOR")
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        };
        Self {
            out: is_wanted(io::stdout().is_terminal()),
            err: is_wanted(io::stderr().is_terminal()),
        }
    }
}

/// What a command reads from.
pub(super) struct Opened {
    pub(super) tables: Tables,
    pub(super) paths: Paths,
}

pub(super) struct Context<'a> {
    global: &'a Global,
    format: Format,
    styles: Styles,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        global: &'a Global,
        format: Format,
        styles: Styles,
        out: &'a mut dyn Write,
        err: &'a mut dyn Write,
    ) -> Self {
        Self {
            global,
            format,
            styles,
            out,
            err,
        }
    }

    /// Moves the process, which has one thread at this time, to the namespace that was asked for.
    pub(super) fn enter_namespace(&self) -> Result<()> {
        let Some(selector) = &self.global.netns else {
            return Ok(());
        };
        match NetworkNamespace::enter(selector) {
            Ok(_) => Ok(()),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::MissingCapability {
                    operation: format!("enter the network namespace {selector:?}"),
                    missing: vec!["CAP_SYS_ADMIN"],
                })
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn bpffs_path(&self) -> Option<&Path> {
        self.global.bpffs.as_deref()
    }

    /// The BPF file system, which must be there.
    pub(super) fn bpffs(&self) -> Result<BpfFs> {
        BpfFs::find(self.bpffs_path())
    }

    /// The BPF file system, mounted where it is not yet.
    pub(super) fn bpffs_or_mount(&self) -> Result<BpfFs> {
        BpfFs::find_or_mount(self.bpffs_path())
    }

    /// Opens the instance of the present namespace to read.
    ///
    /// The lock is held only while the maps are opened: output may wait for a reader for ever.
    pub(super) fn open(&self) -> Result<Opened> {
        open_tables(self.bpffs_path())
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Whether colours are wanted in results.
    pub(super) fn is_styled(&self) -> bool {
        self.styles.out
    }

    pub(super) fn is_json(&self) -> bool {
        self.format.is_json()
    }

    pub(super) fn is_verbose(&self) -> bool {
        self.global.verbose
    }

    /// Where results go.
    pub(super) fn out(&mut self) -> &mut dyn Write {
        self.out
    }

    /// Starts a list of results.
    pub(super) fn list<R: Row>(&mut self) -> List<'_> {
        List::of::<R>(self.out, self.format)
    }

    /// Tells something that is not a result.
    pub(super) fn note(&mut self, text: impl AsRef<str>) {
        if !self.global.quiet {
            // There is nobody else to tell it to.
            let _ = writeln!(self.err, "{}", printable(text.as_ref()));
        }
    }

    /// Tells something that only those want to know who ask for more.
    pub(super) fn detail(&mut self, text: impl AsRef<str>) {
        if self.global.verbose {
            self.note(text);
        }
    }

    /// Tells something that the user should not overlook.
    pub(super) fn warn(&mut self, text: impl AsRef<str>) {
        if self.styles.err {
            self.note_raw(&format!(
                "\x1b[1;33mwarning:\x1b[0m {}",
                printable(text.as_ref())
            ));
        } else {
            self.note_raw(&format!("warning: {}", printable(text.as_ref())));
        }
    }

    fn note_raw(&mut self, text: &str) {
        if !self.global.quiet {
            let _ = writeln!(self.err, "{text}");
        }
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(cannot_write)
    }
}

/// As [`Context::open`], below the BPF file system at `bpffs`.
pub(super) fn open_tables(bpffs: Option<&Path>) -> Result<Opened> {
    let bpffs = BpfFs::find(bpffs)?;
    let cookie = NetworkNamespace::current()?.cookie();
    let mut instance = Instance::open(&bpffs, cookie, Lock::Shared)?;
    if instance.is_unfinished() {
        drop(instance);
        // Who may write puts it right before it is read; others read what there is, and `status`
        // says so.
        let _ = Instance::open(&bpffs, cookie, Lock::Exclusive)
            .and_then(|instance| Tables::open(&instance, Access::ReadWrite));
        instance = Instance::open(&bpffs, cookie, Lock::Shared)?;
    }
    Ok(Opened {
        tables: Tables::open(&instance, Access::ReadOnly)?,
        paths: instance.paths().clone(),
    })
}

/// What commands that wait run on: this thread, which may have changed its network namespace.
pub(super) fn reactor() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::io("start the reactor", source))
}

/// The output went nowhere.
pub(super) fn cannot_write(source: io::Error) -> Error {
    Error::io("write the output", source)
}
