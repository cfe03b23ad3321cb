//! Ring buffers to user space.
//!
//! Nobody is woken: readers look into their ring every few milliseconds, so that a flood of records costs
//! no interrupts.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_RB_NO_WAKEUP, bpf_map_type::BPF_MAP_TYPE_RINGBUF},
    helpers::{bpf_ringbuf_reserve, bpf_ringbuf_submit},
};
use demux_common::listen::Record;

/// A ring buffer as long as `BYTES`. Its fields are the definition that loaders read from BTF; that of aya
/// names a type of records too, which libbpf does not take.
#[repr(C)]
pub(crate) struct Ring<const BYTES: usize> {
    r#type: *const [i32; BPF_MAP_TYPE_RINGBUF as usize],
    max_entries: *const [i32; BYTES],
}

// SAFETY: the pointers are placeholders that nobody follows; only the address of the whole is used.
unsafe impl<const BYTES: usize> Sync for Ring<BYTES> {}

impl<const BYTES: usize> Ring<BYTES> {
    pub(crate) const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            max_entries: core::ptr::null(),
        }
    }

    /// A record, all zero, that must be [submitted](Self::submit); `None` where the ring is full.
    #[inline(always)]
    pub(crate) fn reserve<'a, T: Record>(&self) -> Option<&'a mut T> {
        const { assert!(size_of::<T>() % 8 == 0 && align_of::<T>() <= 8) };
        // SAFETY: the map is a ring buffer.
        let record = unsafe { bpf_ringbuf_reserve(self.as_ptr(), size_of::<T>() as u64, 0) };
        if record.is_null() {
            return None;
        }
        // Word by word, because the compiler would otherwise make the record on the stack first, of which
        // there is little.
        for word in 0..size_of::<T>() / 8 {
            // SAFETY: the record has as many words, and is aligned to them.
            unsafe { record.cast::<u64>().add(word).write_volatile(0) };
        }
        // SAFETY: all zero is a record, and it is the caller's alone until it is submitted.
        Some(unsafe { &mut *record.cast() })
    }

    #[inline(always)]
    const fn as_ptr(&self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }

    /// Hands a record over to the reader.
    #[inline(always)]
    pub(crate) fn submit<T: Record>(&self, record: &mut T) {
        // SAFETY: it was reserved by this program, and the borrow ends here.
        unsafe {
            bpf_ringbuf_submit(
                core::ptr::from_mut(record).cast(),
                u64::from(BPF_RB_NO_WAKEUP),
            )
        };
    }
}
