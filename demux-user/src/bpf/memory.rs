//! The memory of an array map: reading and writing many elements without a call for any.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

/// The elements of an array map made with `BPF_F_MMAPABLE`, one word each, shared with the kernel.
#[derive(Debug)]
pub struct MappedWords {
    start: NonNull<AtomicU64>,
    count: usize,
}

impl MappedWords {
    /// Maps the `count` elements of a map whose values are 8 bytes long.
    ///
    /// # Errors
    ///
    /// EPERM or EACCES where the descriptor is read-only, EINVAL where the map has fewer elements.
    pub fn new(fd: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        // SAFETY: a new mapping of an object that the kernel checks for its length.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                count * size_of::<u64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            start: NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?,
            count,
        })
    }

    /// The elements. Each is read and written whole.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping holds that many words, lives as long as the value, and is only ever
        // accessed by atomic operations, here and in the kernel.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }

    /// A copy of every element.
    pub fn read(&self) -> Vec<u64> {
        self.words()
            .iter()
            .map(|word| word.load(Ordering::Acquire))
            .collect()
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that was made, and nothing borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<u64>()) };
    }
}

/// Returns after every BPF program that is running now has ended.
///
/// # Errors
///
/// ENOSYS where the kernel has no membarrier(2).
pub fn synchronize() -> io::Result<()> {
    // SAFETY: the call takes no pointers. This command waits for a grace period of RCU
    // (synchronize_rcu), and programs run within a read-side section of it.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
