//! Building an instance where nobody sees it, and publishing it whole.
//!
//! A new instance is built in `<bpffs>/demux/new-<id>`, locked by its builder.
//! One that is not locked is what a builder left that died.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use demux_common::layout::map;

use super::{
    Instance, WAIT, access, entries,
    lock::{Attempt, Lock, LockedDirectory, pause},
    paths::{NEW, Paths},
    remove_tree,
};
use crate::{Error, Result, bpffs::BpfFs};

/// What [`Instance::open_or_create`] came upon.
#[derive(Debug)]
pub enum Opened {
    /// An instance that was there, locked to write.
    Existing(Instance),
    /// A new one, to be filled and published.
    New(NewInstance),
}

/// An instance in the making. Dropped without [`NewInstance::publish`], it is removed.
#[derive(Debug)]
pub struct NewInstance {
    bpffs: BpfFs,
    id: u64,
    paths: Paths,
    /// `None` once it is published.
    lock: Option<LockedDirectory>,
}

impl NewInstance {
    /// The cookie of its network namespace.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where its objects are to be pinned. They move when it is published.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// As [`Instance::share`]. Maps need not be shared: publishing does it.
    ///
    /// # Errors
    ///
    /// As [`Instance::share`].
    pub fn share(&self, path: &Path) -> Result<()> {
        access::share_file(path)
    }

    /// Lets the group read the maps, and moves the instance to its place in one step, still locked to write.
    ///
    /// # Errors
    ///
    /// Where the modes cannot be set or the directory cannot be renamed; the instance is then removed.
    pub fn publish(mut self) -> Result<Instance> {
        for name in self.paths.map_names()? {
            if map::PRIVATE.contains(&name.as_str()) {
                continue;
            }
            access::share_file(&self.paths.map(&name))?;
        }
        let published = Paths::of_instance(&self.bpffs, self.id);
        let _root = lock_root(&Paths::root(&self.bpffs), Instant::now() + WAIT)?;
        fs::rename(self.paths.directory(), published.directory()).map_err(|source| {
            let directory = published.directory();
            Error::unchangeable(
                format!("publish {}", directory.display()),
                directory,
                source,
            )
        })?;
        access::let_through(self.bpffs.path());
        let lock = self.lock.take().expect("only publishing takes the lock");
        Ok(Instance {
            id: self.id,
            paths: published,
            lock,
        })
    }
}

impl Drop for NewInstance {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // What cannot be removed is found as a leftover by the next one.
            let _ = remove_tree(&self.paths);
        }
    }
}

pub(super) fn open_or_create(bpffs: &BpfFs, id: u64, wait: Duration) -> Result<Opened> {
    bpffs.require_writable()?;
    let deadline = Instant::now() + wait;
    let paths = Paths::of_instance(bpffs, id);
    loop {
        match LockedDirectory::attempt(paths.directory(), Lock::Exclusive)? {
            Attempt::Locked(lock) => {
                access::let_through(bpffs.path());
                return Ok(Opened::Existing(Instance { id, paths, lock }));
            }
            Attempt::Busy => pause(paths.directory(), deadline)?,
            Attempt::Absent => match create(bpffs, id, deadline)? {
                Some(new) => return Ok(Opened::New(new)),
                None => pause(Paths::of_new_instance(bpffs, id).directory(), deadline)?,
            },
        }
    }
}

/// Begins a new instance; `None` where somebody else has begun or published one meanwhile.
fn create(bpffs: &BpfFs, id: u64, deadline: Instant) -> Result<Option<NewInstance>> {
    let _root = lock_root(&Paths::root(bpffs), deadline)?;
    if Paths::of_instance(bpffs, id).directory().exists() {
        return Ok(None);
    }
    let paths = Paths::of_new_instance(bpffs, id);
    if !remove_leftover(&paths)? {
        return Ok(None);
    }
    access::create_directory(paths.directory())?;
    let Attempt::Locked(lock) = LockedDirectory::attempt(paths.directory(), Lock::Exclusive)?
    else {
        return Ok(None);
    };
    // From here on, dropping it removes it.
    let new = NewInstance {
        bpffs: bpffs.clone(),
        id,
        paths,
        lock: Some(lock),
    };
    access::create_directory(&new.paths.programs())?;
    access::create_directory(&new.paths.links())?;
    Ok(Some(new))
}

/// Removes what builders left that died, and returns the directories removed.
///
/// # Errors
///
/// Where a directory cannot be removed.
pub fn remove_leftovers(bpffs: &BpfFs) -> Result<Vec<PathBuf>> {
    let names = entries(&Paths::root(bpffs))?;
    let mut removed = Vec::new();
    for name in names.iter().filter(|name| name.starts_with(NEW)) {
        let _root = lock_root(&Paths::root(bpffs), Instant::now() + WAIT)?;
        let paths = Paths::of_leftover(bpffs, name);
        if paths.directory().exists() && remove_leftover(&paths)? {
            removed.push(paths.directory().to_owned());
        }
    }
    Ok(removed)
}

/// Makes sure that there is no instance in the making at `paths`, unless its builder is alive: then `false`.
/// The lock on the root must be held, lest a builder has just created it and not locked it yet.
fn remove_leftover(paths: &Paths) -> Result<bool> {
    match LockedDirectory::attempt(paths.directory(), Lock::Exclusive)? {
        Attempt::Absent => Ok(true),
        Attempt::Busy => Ok(false),
        Attempt::Locked(_lock) => remove_tree(paths).map(|()| true),
    }
}

/// Moves an instance that is to be removed to where builders leave what they have not finished, in one
/// step.
pub(super) fn retire(paths: &Paths, id: u64) -> Result<Paths> {
    let root = paths.root_directory();
    let _root = lock_root(&root, Instant::now() + WAIT)?;
    let retired = Paths::of_retired(paths, id);
    if !remove_leftover(&retired)? {
        return Ok(paths.clone());
    }
    let (from, to) = (paths.directory(), retired.directory());
    fs::rename(from, to)
        .map_err(|source| Error::io(format!("remove {}", from.display()), source))?;
    Ok(retired)
}

/// Locks the directory of all instances, which serialises creation and publication, for a moment.
fn lock_root(root: &Path, deadline: Instant) -> Result<LockedDirectory> {
    loop {
        match LockedDirectory::attempt(root, Lock::Exclusive)? {
            Attempt::Locked(lock) => return Ok(lock),
            Attempt::Busy => pause(root, deadline)?,
            Attempt::Absent => match access::create_directory(root) {
                // Somebody else was faster.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                result => result?,
            },
        }
    }
}
