//! The key of the connection table's hash: drawn once for each instance, and never shown to anybody.

use std::{io, os::fd::AsFd as _};

use demux_common::{layout::map, table::Secret};
use rustix::rand::GetRandomFlags;
use zerocopy::IntoBytes as _;

use crate::{Error, Result, bpf, state::Paths};

/// Draws a key.
pub(crate) fn new() -> Result<Secret> {
    let mut secret = Secret::ZERO;
    rustix::rand::getrandom(secret.as_mut_bytes(), GetRandomFlags::empty())
        .map_err(|source| Error::io("get random numbers".to_owned(), io::Error::from(source)))?;
    Ok(secret)
}

/// Keeps the key for programs that will be loaded beside the same tables.
pub(crate) fn write(paths: &Paths, secret: &Secret) -> Result<()> {
    let path = paths.map(map::SECRET);
    let failed = |source| Error::io(format!("write {}", path.display()), source);
    let fd = bpf::object_get(&path, false).map_err(failed)?;
    bpf::map_update(fd.as_fd(), 0u32.as_bytes(), secret.as_bytes(), 0).map_err(failed)
}

/// The key of an instance, which only its owner may read.
pub(crate) fn read(paths: &Paths) -> Result<Secret> {
    let path = paths.map(map::SECRET);
    let failed = |source| Error::io(format!("read {}", path.display()), source);
    let fd = bpf::object_get(&path, false)
        .map_err(|source| Error::unchangeable(format!("read {}", path.display()), &path, source))?;
    let mut secret = Secret::ZERO;
    match bpf::map_lookup(fd.as_fd(), 0u32.as_bytes(), secret.as_mut_bytes()) {
        Ok(true) => Ok(secret),
        Ok(false) => Err(failed(io::ErrorKind::NotFound.into())),
        Err(source) => Err(failed(source)),
    }
}
