//! The directory of pins that is an instance: opening, creating, locking and removing it.
//!
//! `<bpffs>/demux/<id>/` holds a pin per map under the map's name, `progs/`, `links/` and `names/`.
//! The id is the cookie of the network namespace in decimal.
//! A command holds a lock (flock(2)) on that directory for as long as it uses it: shared to read,
//! exclusive to write.
//! What the maps mean, the META map included, is not known here.

mod access;
mod lock;
mod names;
mod new;
mod paths;

use std::{fs, io, os::fd::AsFd as _, path::Path, time::Duration};

use demux_common::layout::map;
use rustix::{
    fs::{Access, AtFlags, CWD, RenameFlags, accessat, renameat_with},
    io::Errno,
};

pub(crate) use self::access::mode_to_pass;

use self::lock::LockedDirectory;
pub use self::{
    access::reading_group,
    lock::Lock,
    names::{forget_name, keep_name, kept_names},
    new::{NewInstance, Opened, remove_leftovers},
    paths::Paths,
};
use crate::{Error, Result, attach::clsact, bpf, bpffs::BpfFs, netns};

/// How long a command waits for another one to end.
const WAIT: Duration = Duration::from_secs(5);

/// An instance, locked for as long as the value lives.
#[derive(Debug)]
pub struct Instance {
    id: u64,
    paths: Paths,
    lock: LockedDirectory,
}

impl Instance {
    /// Opens the instance of the network namespace with cookie `id`, waiting up to 5 s for its lock.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`] where there is none, [`Error::Locked`] where another command keeps it,
    /// [`Error::ReadOnlyBpfFs`] where it is opened to write and nothing can be written.
    pub fn open(bpffs: &BpfFs, id: u64, lock: Lock) -> Result<Self> {
        Self::open_within(bpffs, id, lock, WAIT)
    }

    /// As [`Instance::open`], waiting at most `wait`.
    ///
    /// # Errors
    ///
    /// As [`Instance::open`].
    pub fn open_within(bpffs: &BpfFs, id: u64, lock: Lock, wait: Duration) -> Result<Self> {
        let paths = Paths::of_instance(bpffs, id);
        let lock = LockedDirectory::open(paths.directory(), lock, wait)?.ok_or(Error::NotLoaded)?;
        if lock.mode() == Lock::Exclusive {
            bpffs.require_writable()?;
        }
        Ok(Self { id, paths, lock })
    }

    /// Opens the instance of the network namespace with cookie `id` to write, or begins a new one where
    /// there is none. Of several commands that do so at once, one creates and the others then open.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] where another command keeps it or takes long to create it.
    pub fn open_or_create(bpffs: &BpfFs, id: u64) -> Result<Opened> {
        new::open_or_create(bpffs, id, WAIT)
    }

    /// The cookie of its network namespace.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where its objects are pinned.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Whether it was opened to write.
    pub fn is_exclusive(&self) -> bool {
        self.lock.mode() == Lock::Exclusive
    }

    /// Lets members of the group demux read the object pinned at `path`, and its owner alone write it.
    ///
    /// # Errors
    ///
    /// Where the pin is absent or not ours.
    pub fn share(&self, path: &Path) -> Result<()> {
        access::share_file(path)
    }

    /// Makes an empty directory for programs that are to take the place of those that are pinned, without
    /// what a killed command has left there.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn create_next_programs(&self) -> Result<()> {
        self.remove_next_programs()?;
        access::create_directory(&self.paths.next_programs())
    }

    /// Exchanges the pinned programs, all of them, for those that are to take their place, in one step.
    ///
    /// # Errors
    ///
    /// Where the directories cannot be renamed; nothing is changed then.
    pub fn exchange_programs(&self) -> Result<()> {
        let (present, next) = (self.paths.programs(), self.paths.next_programs());
        renameat_with(CWD, &next, CWD, &present, RenameFlags::EXCHANGE)
            .map_err(|source| Error::io(format!("replace {}", present.display()), source))
    }

    /// Removes the programs that are not in use.
    ///
    /// # Errors
    ///
    /// Where a pin cannot be unlinked; that there are none is no error.
    pub fn remove_next_programs(&self) -> Result<()> {
        remove_directory(&self.paths.next_programs())
    }

    /// Notes that several things are about to change that belong together. Until
    /// [`Instance::end_change`] the note stays, also when the process is killed, so that the next one
    /// knows what to look after.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn begin_change(&self) -> Result<()> {
        let note = self.paths.unfinished();
        match fs::create_dir(&note) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                let operation = format!("create {}", note.display());
                Err(Error::unchangeable(operation, &note, source))
            }
            _ => Ok(()),
        }
    }

    /// Takes the note of [`Instance::begin_change`] away: everything is as it belongs.
    ///
    /// # Errors
    ///
    /// Where it cannot be removed.
    pub fn end_change(&self) -> Result<()> {
        remove_directory(&self.paths.unfinished())
    }

    /// Whether a command is changing the instance, or was killed while it did. Who has the lock knows
    /// that it is the latter.
    pub fn is_unfinished(&self) -> bool {
        self.paths.unfinished().exists()
    }

    /// Ends everything that is attached, and then removes every pin. Killed before the last of them is
    /// gone, it leaves an instance that is attached to nothing, or what [`remove_leftovers`] finds.
    ///
    /// # Errors
    ///
    /// Where a pin cannot be unlinked; a second attempt finds the rest.
    ///
    /// # Panics
    ///
    /// Where the instance was opened to read.
    pub fn remove(self) -> Result<()> {
        assert!(self.is_exclusive(), "a shared lock does not allow removal");
        require_removable(self.paths.directory())?;
        self.begin_change()?;
        detach_links(&self.paths.links());
        delete_filters(&self.paths)?;
        // An instance without some of its maps would be in the way of everybody.
        remove_tree(&new::retire(&self.paths, self.id)?)
    }
}

/// The ids of all instances, of whatever network namespace, in ascending order.
///
/// # Errors
///
/// EACCES without permission to read the directory.
pub fn list(bpffs: &BpfFs) -> Result<Vec<u64>> {
    let mut ids: Vec<u64> = entries(&Paths::root(bpffs))?
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// A number that tells the instance at `paths` from every other one since the machine started; `None`
/// where there is none. No lock is needed.
#[must_use]
pub fn identity(paths: &Paths) -> Option<u32> {
    let meta = bpf::object_get(&paths.map(map::META), true).ok()?;
    Some(bpf::map_info(meta.as_fd()).ok()?.id)
}

/// The names in a directory, none where it does not exist.
fn entries(directory: &Path) -> Result<Vec<String>> {
    let failed = |source| Error::io(format!("read {}", directory.display()), source);
    match fs::read_dir(directory) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()
            .map_err(failed),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(failed(source)),
    }
}

/// Removes all pins, those of links first, which is what ends them.
fn remove_tree(paths: &Paths) -> Result<()> {
    require_removable(paths.directory())?;
    detach_links(&paths.links());
    delete_filters(paths)?;
    for directory in [&paths.links(), &paths.programs(), paths.directory()] {
        remove_directory(directory)?;
    }
    Ok(())
}

/// Refuses to begin what would end half-done: the directory itself is removed last, from one that may be
/// another user's.
fn require_removable(directory: &Path) -> Result<()> {
    let Some(parent) = directory.parent() else {
        return Ok(());
    };
    match accessat(CWD, parent, Access::WRITE_OK, AtFlags::EACCESS) {
        Err(source @ (Errno::ACCESS | Errno::PERM | Errno::ROFS)) => {
            let operation = format!("remove {}", directory.display());
            Err(Error::unchangeable(operation, directory, source))
        }
        // Removing tells whatever else is wrong.
        _ => Ok(()),
    }
}

/// Removes a directory with all that is in it, if it is there.
fn remove_directory(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            let operation = format!("remove {}", directory.display());
            Err(Error::unchangeable(operation, directory, source))
        }
        _ => Ok(()),
    }
}

/// Detaches links at once: once their pins are gone, the kernel does it in its own time.
fn detach_links(directory: &Path) {
    for name in entries(directory).unwrap_or_default() {
        // What cannot be detached so is detached by the removal of its pin.
        let _ = bpf::object_get(&directory.join(name), false)
            .and_then(|link| bpf::link_detach(link.as_fd()));
    }
}

/// Deletes the packet filters that hold the egress program: no pin ends them.
fn delete_filters(paths: &Paths) -> Result<()> {
    for ifindex in paths.egress_filters()? {
        if !clsact::delete(paths, ifindex)? {
            // The instance may be that of another namespace, whose interfaces are not seen from here.
            // Who may not visit others has none there either.
            for deleted in netns::in_all(|| clsact::delete(paths, ifindex)).unwrap_or_default() {
                deleted?;
            }
        }
    }
    Ok(())
}
