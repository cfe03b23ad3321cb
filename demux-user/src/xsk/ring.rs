//! The rings of AF_XDP: queues of one producer and one consumer in shared memory, as the kernel lays
//! them out (`include/uapi/linux/if_xdp.h`, `net/xdp/xsk_queue.h`).
//!
//! A ring is two free-running indices of 32 bits, a word of flags, and a power of two of slots. The producer
//! writes slots and then its index (release), which the consumer reads (acquire) before it reads the slots;
//! the consumer writes its index (release) when it has read them, and the producer reads it (acquire) before
//! it writes them again. The distance of the two is what is in the ring.
//!
//! Either role can be taken on any ring, so that a process can also stand in for the kernel. The other side
//! may be hostile: whatever it writes, no access leaves the ring, and no step depends on how far its index
//! has moved, but for the size of the ring. Whoever takes until nothing is left should set a limit.

use std::{
    ptr::NonNull,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering, fence},
    },
};

use super::mapping::Mapping;

/// `XDP_RING_NEED_WAKEUP`: the consumer sleeps.
const NEED_WAKEUP: u32 = 1;

/// What a slot of the rx and tx rings holds: `struct xdp_desc`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Where the data begins, in bytes from the start of the area.
    pub address: u64,
    /// Bytes of data.
    pub len: u32,
    /// [`Descriptor::CONTINUES`], or 0.
    pub options: u32,
}

impl Descriptor {
    /// `XDP_PKT_CONTD`: the frame goes on in the next descriptor.
    pub const CONTINUES: u32 = 1;

    /// Whether the frame goes on in the next descriptor.
    #[must_use]
    pub fn continues(&self) -> bool {
        self.options & Self::CONTINUES != 0
    }
}

/// What a ring can hold: an address (fill, completion) or a descriptor (rx, tx).
pub trait Slot: Copy + sealed::Slot {}
impl Slot for u64 {}
impl Slot for Descriptor {}

mod sealed {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use super::Descriptor;

    pub trait Slot {
        /// The slot in shared memory, where the other side may write at any time.
        type Shared: std::fmt::Debug;
        fn load(shared: &Self::Shared) -> Self;
        fn store(self, shared: &Self::Shared);
    }

    impl Slot for u64 {
        type Shared = AtomicU64;

        fn load(shared: &AtomicU64) -> Self {
            shared.load(Ordering::Relaxed)
        }

        fn store(self, shared: &AtomicU64) {
            shared.store(self, Ordering::Relaxed);
        }
    }

    /// `struct xdp_desc` in shared memory.
    #[derive(Debug)]
    #[repr(C)]
    pub struct SharedDescriptor {
        address: AtomicU64,
        len: AtomicU32,
        options: AtomicU32,
    }

    impl Slot for Descriptor {
        type Shared = SharedDescriptor;

        fn load(shared: &SharedDescriptor) -> Self {
            Self {
                address: shared.address.load(Ordering::Relaxed),
                len: shared.len.load(Ordering::Relaxed),
                options: shared.options.load(Ordering::Relaxed),
            }
        }

        fn store(self, shared: &SharedDescriptor) {
            shared.address.store(self.address, Ordering::Relaxed);
            shared.len.store(self.len, Ordering::Relaxed);
            shared.options.store(self.options, Ordering::Relaxed);
        }
    }
}

/// Where the parts of a ring lie within a mapping, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The index of the producer, 4 bytes.
    pub producer: u64,
    /// The index of the consumer, 4 bytes.
    pub consumer: u64,
    /// The flags, 4 bytes.
    pub flags: u64,
    /// The slots, 8 bytes each in rings of addresses, 16 in rings of descriptors.
    pub slots: u64,
}

/// A ring in shared memory, in no role yet.
#[derive(Debug)]
pub struct Ring<T: Slot> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T::Shared>,
    size: u32,
    _mapping: Arc<Mapping>,
}

// SAFETY: all access is by atomic operations on memory that the value keeps alive.
unsafe impl<T: Slot> Send for Ring<T> {}

impl<T: Slot> Ring<T> {
    /// A ring of `size` slots in a mapping.
    ///
    /// `None` where the size is no power of two, or where the parts do not lie within the mapping on their
    /// natural boundaries.
    #[must_use]
    pub fn new(mapping: &Arc<Mapping>, layout: Layout, size: u32) -> Option<Self> {
        if !size.is_power_of_two() {
            return None;
        }
        Some(Self {
            producer: mapping.slice(layout.producer, 1)?,
            consumer: mapping.slice(layout.consumer, 1)?,
            flags: mapping.slice(layout.flags, 1)?,
            slots: mapping.slice(layout.slots, size as usize)?,
            size,
            _mapping: Arc::clone(mapping),
        })
    }

    /// Takes the producer's role. There must be only one; it goes on where the ring stands.
    #[must_use]
    pub fn producer(self) -> Producer<T> {
        let position = self.producer_index().load(Ordering::Relaxed);
        Producer {
            position,
            consumer: position.wrapping_sub(self.size),
            ring: self,
            is_broken: false,
        }
    }

    /// Takes the consumer's role. There must be only one; it goes on where the ring stands.
    #[must_use]
    pub fn consumer(self) -> Consumer<T> {
        let position = self.consumer_index().load(Ordering::Relaxed);
        Consumer {
            position,
            producer: position,
            ring: self,
            is_broken: false,
        }
    }

    fn producer_index(&self) -> &AtomicU32 {
        // SAFETY: `new` has checked that it lies within the mapping, which the value keeps alive.
        unsafe { self.producer.as_ref() }
    }

    fn consumer_index(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.flags.as_ref() }
    }

    fn slot(&self, index: u32) -> &T::Shared {
        // SAFETY: as above, for all slots; they consist of atomics.
        let slots = unsafe { slice::from_raw_parts(self.slots.as_ptr(), self.size as usize) };
        &slots[(index & (self.size - 1)) as usize]
    }
}

/// Who fills a ring: user space for fill and tx, the kernel for rx and completion.
#[derive(Debug)]
pub struct Producer<T: Slot> {
    ring: Ring<T>,
    /// The next slot to be written; what the other side sees of it is `submit`'s matter.
    position: u32,
    /// The consumer's index when it was last read; never more than the size behind.
    consumer: u32,
    is_broken: bool,
}

impl<T: Slot> Producer<T> {
    /// How many slots the ring has.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.ring.size
    }

    /// How many can be pushed. Asks the other side only where it looks full.
    pub fn free(&mut self) -> u32 {
        if self.used() == self.ring.size {
            self.refresh();
        }
        self.ring.size - self.used()
    }

    /// How many the other side has not taken yet, pushed ones that it cannot see included.
    pub fn outstanding(&mut self) -> u32 {
        self.refresh();
        self.used()
    }

    /// Writes the next slot; `false` where the ring is full. The other side sees it after
    /// [`Producer::submit`].
    pub fn push(&mut self, value: T) -> bool {
        if self.free() == 0 {
            return false;
        }
        value.store(self.ring.slot(self.position));
        self.position = self.position.wrapping_add(1);
        true
    }

    /// Shows the other side what was pushed.
    pub fn submit(&mut self) {
        self.ring
            .producer_index()
            .store(self.position, Ordering::Release);
    }

    /// Whether the consumer sleeps and must be woken. To be asked after [`Producer::submit`].
    #[must_use]
    pub fn needs_wakeup(&self) -> bool {
        // The consumer sets the flag and then looks at the index once more: one of both sees the other.
        fence(Ordering::SeqCst);
        self.ring.flags().load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    /// As [`Producer::needs_wakeup`], and takes the flag away: who wakes a consumer by a message of which
    /// one is enough.
    #[must_use]
    pub fn take_wakeup(&self) -> bool {
        fence(Ordering::SeqCst);
        let flags = self.ring.flags();
        flags.load(Ordering::Relaxed) & NEED_WAKEUP != 0
            && flags.fetch_and(!NEED_WAKEUP, Ordering::SeqCst) & NEED_WAKEUP != 0
    }

    /// Whether the consumer's index has been where it cannot be. Such indices were ignored.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn used(&self) -> u32 {
        self.position.wrapping_sub(self.consumer)
    }

    fn refresh(&mut self) {
        let consumer = self.ring.consumer_index().load(Ordering::Acquire);
        if self.position.wrapping_sub(consumer) <= self.ring.size {
            self.consumer = consumer;
        } else {
            self.is_broken = true;
        }
    }
}

/// Who empties a ring: user space for rx and completion, the kernel for fill and tx.
#[derive(Debug)]
pub struct Consumer<T: Slot> {
    ring: Ring<T>,
    /// The next slot to be read; what the other side sees of it is `release`'s matter.
    position: u32,
    /// The producer's index when it was last read; never more than the size ahead.
    producer: u32,
    is_broken: bool,
}

impl<T: Slot> Consumer<T> {
    /// How many slots the ring has.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.ring.size
    }

    /// How many can be popped. Asks the other side only where it looks empty.
    pub fn available(&mut self) -> u32 {
        if self.producer == self.position {
            self.refresh();
        }
        self.producer.wrapping_sub(self.position)
    }

    /// As [`Consumer::available`], but always asks the other side.
    pub fn available_now(&mut self) -> u32 {
        self.refresh();
        self.producer.wrapping_sub(self.position)
    }

    /// Reads the next slot. The other side may write it again after [`Consumer::release`].
    pub fn pop(&mut self) -> Option<T> {
        if self.available() == 0 {
            return None;
        }
        let value = T::load(self.ring.slot(self.position));
        self.position = self.position.wrapping_add(1);
        Some(value)
    }

    /// Gives the slots that were popped back to the other side.
    pub fn release(&mut self) {
        self.ring
            .consumer_index()
            .store(self.position, Ordering::Release);
    }

    /// Asks the producer to wake this side after it has submitted, or not to.
    ///
    /// Who is about to sleep asks, then looks with [`Consumer::available_now`] once more, and sleeps only
    /// if there is nothing.
    pub fn set_needs_wakeup(&self, needed: bool) {
        let flags = self.ring.flags();
        if needed {
            flags.store(NEED_WAKEUP, Ordering::Relaxed);
            // See `Producer::needs_wakeup`.
            fence(Ordering::SeqCst);
        } else {
            flags.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a wish to be woken stands and no producer has taken it.
    #[must_use]
    pub fn awaits_wakeup(&self) -> bool {
        self.ring.flags().load(Ordering::Acquire) & NEED_WAKEUP != 0
    }

    /// Whether the producer's index has been where it cannot be. Of such a ring as much was read as it holds.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn refresh(&mut self) {
        let producer = self.ring.producer_index().load(Ordering::Acquire);
        let available = producer.wrapping_sub(self.position);
        self.is_broken |= available > self.ring.size;
        self.producer = self.position.wrapping_add(available.min(self.ring.size));
    }
}
