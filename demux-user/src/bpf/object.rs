//! Objects by path and by id: pinning, opening, enumerating.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{BPF_F_RDONLY, BPF_F_REPLACE, bpf_cmd};

use super::{attributes, bpf};

/// Opens the object pinned at `path`.
///
/// With `read_only`, read permission on the file is enough and no capability is needed;
/// maps opened so can be read but not written, and cannot be mapped into memory.
/// Links cannot be opened read-only (the kernel answers EPERM).
///
/// # Errors
///
/// ENOENT where nothing is pinned, EACCES where the file's mode forbids it.
pub fn object_get(path: &Path, read_only: bool) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = attributes();
    // SAFETY: these are the fields of BPF_OBJ_GET.
    let object = unsafe { &mut attributes.__bindgen_anon_4 };
    object.pathname = path.as_ptr() as u64;
    object.file_flags = if read_only { BPF_F_RDONLY } else { 0 };
    // SAFETY: the path is NUL-terminated and outlives the call.
    let fd = unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attributes) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Pins a map, program or link at `path`, with mode 0600.
///
/// # Errors
///
/// EEXIST where `path` exists, EPERM where its last part contains a dot, EINVAL where it is not in a BPF file system.
pub fn object_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = attributes();
    // SAFETY: these are the fields of BPF_OBJ_PIN.
    let object = unsafe { &mut attributes.__bindgen_anon_4 };
    object.pathname = path.as_ptr() as u64;
    object.bpf_fd = fd.as_raw_fd() as u32;
    // SAFETY: the path is NUL-terminated and outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes) }?;
    Ok(())
}

/// Detaches a link, which then does nothing for as long as it lives.
///
/// To close the last descriptor and remove the last pin does it too, but only after a while.
///
/// # Errors
///
/// EOPNOTSUPP for links of kinds that cannot be detached.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = attributes();
    attributes.link_detach.link_fd = link.as_raw_fd() as u32;
    // SAFETY: this command follows no address.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attributes) }?;
    Ok(())
}

/// Has a link run another program from the next packet or call on; none is missed in between.
///
/// # Errors
///
/// EPERM where `old` is given and the link has another program, EINVAL for a program of another type,
/// ENOLINK where what it was attached to is gone.
pub fn link_update(
    link: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
    old: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attributes = attributes();
    attributes.link_update.link_fd = link.as_raw_fd() as u32;
    attributes.link_update.__bindgen_anon_1.new_prog_fd = new.as_raw_fd() as u32;
    if let Some(old) = old {
        attributes.link_update.flags = BPF_F_REPLACE;
        attributes.link_update.__bindgen_anon_2.old_prog_fd = old.as_raw_fd() as u32;
    }
    // SAFETY: this command follows no address.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attributes) }?;
    Ok(())
}

/// Opens a loaded program by its kernel id. Needs CAP_SYS_ADMIN.
///
/// # Errors
///
/// ENOENT where no such program is loaded.
pub fn program_open_by_id(id: u32) -> io::Result<OwnedFd> {
    open_by_id(bpf_cmd::BPF_PROG_GET_FD_BY_ID, id)
}

/// Opens a link by its kernel id. Needs CAP_SYS_ADMIN.
///
/// # Errors
///
/// ENOENT where no such link exists.
pub fn link_open_by_id(id: u32) -> io::Result<OwnedFd> {
    open_by_id(bpf_cmd::BPF_LINK_GET_FD_BY_ID, id)
}

/// The kernel ids of all links. Needs CAP_SYS_ADMIN.
///
/// # Errors
///
/// EPERM without the capability.
pub fn link_ids() -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    loop {
        let mut attributes = attributes();
        attributes.__bindgen_anon_6.__bindgen_anon_1.start_id = ids.last().copied().unwrap_or(0);
        // SAFETY: this command follows no address.
        match unsafe { bpf(bpf_cmd::BPF_LINK_GET_NEXT_ID, &mut attributes) } {
            // SAFETY: the kernel has written the field.
            Ok(_) => ids.push(unsafe { attributes.__bindgen_anon_6.next_id }),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(ids),
            Err(error) => return Err(error),
        }
    }
}

fn open_by_id(command: bpf_cmd, id: u32) -> io::Result<OwnedFd> {
    let mut attributes = attributes();
    // All commands of this kind have the id in the same place.
    attributes.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    // SAFETY: this command follows no address.
    let fd = unsafe { bpf(command, &mut attributes) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
