//! Elements of maps, one at a time, and many at a time to write.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya_obj::generated::{bpf_attr, bpf_cmd};

use super::{address, address_mut, attributes, bpf};

/// Reads the value of `key` into `value`; `false` where the key is absent.
///
/// `key` must have the map's key size and `value` its size as [`MapInfo::value_stride`] gives it:
/// the kernel is not told either.
///
/// # Errors
///
/// EPERM where the descriptor is write-only, EOPNOTSUPP for maps that cannot be read.
///
/// [`MapInfo::value_stride`]: super::MapInfo::value_stride
pub fn map_lookup(fd: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attributes = element(fd, key, address_mut(value), 0);
    // SAFETY: both buffers outlive the call and, by contract, have the map's sizes.
    present(unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes) })
}

/// Writes `value` at `key`; `flags` is 0, `BPF_NOEXIST` or `BPF_EXIST`.
///
/// # Errors
///
/// E2BIG where the map is full, EEXIST and ENOENT as the flags say, EPERM on a read-only descriptor.
pub fn map_update(fd: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    let mut attributes = element(fd, key, address(value), flags);
    // SAFETY: both buffers outlive the call and, by contract, have the map's sizes.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes) }?;
    Ok(())
}

/// Deletes `key`; `false` where it was absent.
///
/// # Errors
///
/// EINVAL for array maps, EPERM on a read-only descriptor.
pub fn map_delete(fd: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    let mut attributes = element(fd, key, 0, 0);
    // SAFETY: the key outlives the call and, by contract, has the map's key size.
    present(unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attributes) })
}

/// Writes into `next` the key after `key` (the first for `None`, or where `key` has been deleted);
/// `false` after the last.
///
/// # Errors
///
/// EOPNOTSUPP for maps without keys.
pub fn map_get_next_key(
    fd: BorrowedFd<'_>,
    key: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<bool> {
    let mut attributes = element(fd, key.unwrap_or(&[]), address_mut(next), 0);
    if key.is_none() {
        attributes.__bindgen_anon_2.key = 0;
    }
    // SAFETY: both buffers outlive the call and, by contract, have the map's key size.
    present(unsafe { bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attributes) })
}

/// Writes `count` elements, keys and values each packed one after the other, and returns how many were
/// written before an error, together with that error.
///
/// Falls back to one call per element where the map or the kernel cannot do it in one.
pub fn map_update_batch(
    fd: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: usize,
    flags: u64,
) -> (usize, io::Result<()>) {
    if count == 0 {
        return (0, Ok(()));
    }
    let (key_size, value_size) = (keys.len() / count, values.len() / count);
    let mut attributes = attributes();
    // SAFETY: these are the fields of the batch commands.
    let batch = unsafe { &mut attributes.batch };
    batch.map_fd = fd.as_raw_fd() as u32;
    batch.keys = address(keys);
    batch.values = address(values);
    batch.count = count as u32;
    batch.elem_flags = flags;
    // SAFETY: both buffers outlive the call and hold `count` elements.
    match unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attributes) } {
        Ok(_) => return (count, Ok(())),
        Err(error) if !is_batch_unsupported(&error) => {
            // SAFETY: the kernel has written how many it did.
            return (unsafe { attributes.batch.count } as usize, Err(error));
        }
        Err(_) => {}
    }
    let elements = keys
        .chunks_exact(key_size)
        .zip(values.chunks_exact(value_size));
    for (done, (key, value)) in elements.enumerate() {
        if let Err(error) = map_update(fd, key, value, flags) {
            return (done, Err(error));
        }
    }
    (count, Ok(()))
}

/// Whether a batch command failed because this map type or this kernel does not have it.
pub(super) fn is_batch_unsupported(error: &io::Error) -> bool {
    // The kernel's own ENOTSUPP, which is not the EOPNOTSUPP of user space.
    const ENOTSUPP: i32 = 524;
    matches!(
        error.raw_os_error(),
        Some(ENOTSUPP | libc::EOPNOTSUPP | libc::EINVAL)
    )
}

fn element(fd: BorrowedFd<'_>, key: &[u8], value: u64, flags: u64) -> bpf_attr {
    let mut attributes = attributes();
    // SAFETY: these are the fields of the element commands.
    let element = unsafe { &mut attributes.__bindgen_anon_2 };
    element.map_fd = fd.as_raw_fd() as u32;
    element.key = address(key);
    element.__bindgen_anon_1.value = value;
    element.flags = flags;
    attributes
}

fn present(result: io::Result<i64>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
