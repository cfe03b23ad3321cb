//! A region of memory that the daemon shares with one owner: an area and the four rings, in a memfd.
//!
//! It is laid out as AF_XDP is, and the daemon plays the kernel's part. Both sides derive all offsets from
//! the same three numbers, so none has to be believed.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};

use super::{
    area::Area,
    mapping::Mapping,
    port::Rings,
    ring::{Consumer, Descriptor, Layout, Producer, Ring, Slot},
};

/// How large a region and its parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of a chunk, 2048 or 4096.
    pub chunk_size: u32,
    /// How many chunks there are.
    pub chunks: u32,
    /// How many slots each ring has, a power of two.
    pub ring_size: u32,
}

/// A region that is mapped into this process.
#[derive(Debug)]
pub struct Region {
    fd: OwnedFd,
    mapping: Arc<Mapping>,
    shape: Shape,
}

/// The rings, as the kernel's stand-in uses them.
#[derive(Debug)]
pub struct KernelSide {
    /// Chunks for frames that arrive.
    pub fill: Consumer<u64>,
    /// Frames that have arrived.
    pub rx: Producer<Descriptor>,
    /// Frames to be sent.
    pub tx: Consumer<Descriptor>,
    /// Addresses of frames that have been sent.
    pub completion: Producer<u64>,
}

/// The largest ring; the rest of the numbers follows from what can be useful with it.
const MAX_RING_SIZE: u32 = 1 << 15;
const MAX_CHUNKS: u32 = 1 << 17;

/// The words of a ring lie in cache lines of their own, and in pairs of lines, which are fetched together.
const WORD: u64 = 128;
const HEADER: u64 = 3 * WORD;
const PAGE: u64 = 4096;

impl Shape {
    /// Whether a region can be made of it: bounded, and not empty.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        matches!(self.chunk_size, 2048 | 4096)
            && (1..=MAX_CHUNKS).contains(&self.chunks)
            && self.ring_size.is_power_of_two()
            && self.ring_size <= MAX_RING_SIZE
    }

    /// Bytes of the whole region.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ring_offset(4)
    }

    /// Whether it holds nothing, which no sound one does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the `number`th of the rings fill, rx, tx and completion begins. Each has room for descriptors.
    fn ring_offset(&self, number: u64) -> u64 {
        let area = (u64::from(self.chunk_size) * u64::from(self.chunks)).next_multiple_of(PAGE);
        let ring = HEADER + u64::from(self.ring_size) * size_of::<Descriptor>() as u64;
        area + number * ring.next_multiple_of(PAGE)
    }
}

impl Region {
    /// A new region, all zero. Its size can never change, so that nobody who has the descriptor can make
    /// another's access fail.
    ///
    /// # Errors
    ///
    /// EINVAL where the shape is not sound; else as memfd_create(2) and mmap(2).
    pub fn create(shape: Shape) -> io::Result<Self> {
        check(shape)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("demux-xsk", flags)?;
        ftruncate(&fd, shape.len())?;
        fcntl_add_seals(&fd, SEALS | SealFlags::SEAL)?;
        Self::map(fd, shape)
    }

    /// A region that another process has made.
    ///
    /// # Errors
    ///
    /// EINVAL where the shape is not sound, or where the memory is not as long or may change its length;
    /// else as mmap(2).
    pub fn open(fd: OwnedFd, shape: Shape) -> io::Result<Self> {
        check(shape)?;
        let size = u64::try_from(fstat(&fd)?.st_size).unwrap_or(0);
        if size != shape.len() || !fcntl_get_seals(&fd)?.contains(SEALS) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Self::map(fd, shape)
    }

    fn map(fd: OwnedFd, shape: Shape) -> io::Result<Self> {
        let len = usize::try_from(shape.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mapping = Arc::new(Mapping::of(fd.as_fd(), 0, len)?);
        Ok(Self { fd, mapping, shape })
    }

    /// How large its parts are.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Its chunks.
    ///
    /// The stand-in for the kernel must not use [`Area::get`] on them, since an owner may write them at any
    /// time, but copy.
    ///
    /// # Panics
    ///
    /// Never: the shape was checked.
    #[must_use]
    pub fn area(&self) -> Area {
        Area::within(&self.mapping, 0, self.shape.chunk_size, self.shape.chunks)
            .expect("the shape is sound")
    }

    /// The rings as the owner uses them. To be called once, on one side.
    #[must_use]
    pub fn owner_side(&self) -> Rings {
        Rings {
            fill: self.ring(0).producer(),
            rx: self.ring(1).consumer(),
            tx: self.ring(2).producer(),
            completion: self.ring(3).consumer(),
        }
    }

    /// The rings as the kernel's stand-in uses them. To be called once, on the other side.
    #[must_use]
    pub fn kernel_side(&self) -> KernelSide {
        KernelSide {
            fill: self.ring(0).consumer(),
            rx: self.ring(1).producer(),
            tx: self.ring(2).consumer(),
            completion: self.ring(3).producer(),
        }
    }

    fn ring<T: Slot>(&self, number: u64) -> Ring<T> {
        let start = self.shape.ring_offset(number);
        let layout = Layout {
            producer: start,
            consumer: start + WORD,
            flags: start + 2 * WORD,
            slots: start + HEADER,
        };
        Ring::new(&self.mapping, layout, self.shape.ring_size).expect("the shape is sound")
    }
}

impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

fn check(shape: Shape) -> io::Result<()> {
    if shape.is_sound() {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        chunk_size: 2048,
        chunks: 3,
        ring_size: 4,
    };

    #[test]
    fn nothing_overlaps() {
        for shape in [
            SHAPE,
            Shape {
                chunk_size: 4096,
                chunks: 1,
                ring_size: 1 << 15,
            },
        ] {
            let area = u64::from(shape.chunk_size) * u64::from(shape.chunks);
            let ring = HEADER + 16 * u64::from(shape.ring_size);
            assert!(shape.ring_offset(0) >= area);
            for number in 0..4 {
                assert!(shape.ring_offset(number) + ring <= shape.ring_offset(number + 1));
            }
        }
    }

    #[test]
    fn nobody_can_change_its_length() {
        let region = Region::create(SHAPE).unwrap();
        assert!(ftruncate(&region.fd, 0).is_err());
        assert!(ftruncate(&region.fd, SHAPE.len() + 4096).is_err());
    }

    #[test]
    fn memory_that_is_no_region_is_refused() {
        let open = |len: u64, seals: SealFlags, shape: Shape| {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let fd = memfd_create("test", flags).unwrap();
            ftruncate(&fd, len).unwrap();
            fcntl_add_seals(&fd, seals).unwrap();
            Region::open(fd, shape)
        };
        assert!(open(SHAPE.len(), SEALS, SHAPE).is_ok());
        assert!(open(SHAPE.len() - 1, SEALS, SHAPE).is_err());
        assert!(open(SHAPE.len(), SealFlags::GROW, SHAPE).is_err());
        for (chunk_size, chunks, ring_size) in [
            (1024, 3, 4),
            (2048, 0, 4),
            (2048, 3, 5),
            (2048, 3, 0),
            (2048, u32::MAX, 4),
        ] {
            let shape = Shape {
                chunk_size,
                chunks,
                ring_size,
            };
            assert!(open(4096, SEALS, shape).is_err(), "{shape:?}");
        }
    }
}
