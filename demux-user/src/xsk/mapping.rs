//! Memory that is shared with whoever is on the other side of the rings: the kernel or another process.

use std::{
    io,
    os::fd::BorrowedFd,
    ptr::{self, NonNull},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A mapping of memory, removed when it is dropped.
///
/// It hands out pointers only. What may be done with them is up to whoever knows what lies there.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a range of addresses is not bound to a thread, and nothing here reads or writes what is there.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// New memory, all zero, that no other process sees.
    ///
    /// # Errors
    ///
    /// As mmap(2).
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), len, PROTECTION, flags) }?;
        Self::at_start(start.cast(), len)
    }

    /// The `len` bytes at `offset` of what the descriptor stands for.
    ///
    /// # Errors
    ///
    /// As mmap(2).
    pub fn of(fd: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { mmap(ptr::null_mut(), len, PROTECTION, flags, fd, offset) }?;
        Self::at_start(start.cast(), len)
    }

    fn at_start(start: *mut u8, len: usize) -> io::Result<Self> {
        let start = NonNull::new(start).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, len })
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing. The kernel makes no such mapping.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where `count` values of a type lie, the first at `offset` bytes; `None` where they do not all lie
    /// within, or where the type's alignment is not kept. The pointer is valid for as long as the mapping.
    #[must_use]
    pub fn slice<T>(&self, offset: u64, count: usize) -> Option<NonNull<T>> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(count.checked_mul(size_of::<T>())?)?;
        // The start is that of a page.
        if end > self.len || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: the offset lies within the mapping, or at its end.
        Some(unsafe { self.start.add(offset) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that was made; who has a pointer into it keeps the value alive.
        // It cannot fail for a whole mapping.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

const PROTECTION: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_within_is_handed_out() {
        let mapping = Mapping::anonymous(4096).unwrap();
        assert!(mapping.slice::<u64>(0, 512).is_some());
        assert!(mapping.slice::<u64>(0, 513).is_none());
        assert!(mapping.slice::<u64>(4088, 1).is_some());
        assert!(mapping.slice::<u64>(4096, 0).is_some());
        assert!(mapping.slice::<u64>(4092, 1).is_none(), "not aligned");
        assert!(mapping.slice::<u8>(u64::MAX, 1).is_none());
        assert!(mapping.slice::<u64>(8, usize::MAX).is_none());
    }
}
