//! The memory of frames: chunks of one size, addressed by their distance from the start of the area.

use std::{
    io,
    ptr::{self, NonNull},
    slice,
    sync::Arc,
};

use super::mapping::Mapping;

/// An area of chunks, in UMEM or in a region that is shared with the daemon.
///
/// A chunk belongs to one side at a time, and the rings say to which.
#[derive(Debug)]
pub struct Area {
    _mapping: Arc<Mapping>,
    start: NonNull<u8>,
    chunk_size: u32,
    chunks: u32,
}

// SAFETY: it is a range of memory that the value keeps alive; the rules of access are at its functions.
unsafe impl Send for Area {}

impl Area {
    /// A new area in memory of its own.
    ///
    /// # Errors
    ///
    /// EINVAL for sizes that [`Area::within`] refuses; else as mmap(2).
    pub fn new(chunk_size: u32, chunks: u32) -> io::Result<Self> {
        let mapping = Mapping::anonymous(chunk_size as usize * chunks as usize)?;
        Self::within(&Arc::new(mapping), 0, chunk_size, chunks)
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// The area that begins at `offset` bytes of a mapping, on a page boundary.
    ///
    /// `None` where it does not lie within, or where the chunk size is no power of two from 2048 to 4096,
    /// which are those that the kernel takes.
    #[must_use]
    pub fn within(
        mapping: &Arc<Mapping>,
        offset: u64,
        chunk_size: u32,
        chunks: u32,
    ) -> Option<Self> {
        let is_sound = matches!(chunk_size, 2048 | 4096) && offset.is_multiple_of(4096);
        let len = (chunk_size as usize).checked_mul(chunks as usize)?;
        Some(Self {
            start: mapping.slice(offset, len).filter(|_| is_sound)?,
            _mapping: Arc::clone(mapping),
            chunk_size,
            chunks,
        })
    }

    /// Bytes of a chunk.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// How many chunks there are.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Bytes of all chunks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunk_size as usize * self.chunks as usize
    }

    /// Whether there are no chunks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks == 0
    }

    /// Where the area begins in memory.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The number of the chunk that an address lies in.
    #[must_use]
    pub fn chunk_of(&self, address: u64) -> Option<u32> {
        let chunk = address / u64::from(self.chunk_size);
        u32::try_from(chunk)
            .ok()
            .filter(|&chunk| chunk < self.chunks)
    }

    /// The address of a chunk.
    #[must_use]
    pub fn address_of(&self, chunk: u32) -> u64 {
        u64::from(chunk) * u64::from(self.chunk_size)
    }

    /// The `len` bytes at `address`; `None` where they do not lie within one chunk.
    ///
    /// # Safety
    ///
    /// While the slice lives the chunk belongs to this side, nothing here writes it, and the other side can
    /// be trusted to leave it alone.
    #[must_use]
    pub unsafe fn get(&self, address: u64, len: u32) -> Option<&[u8]> {
        let start = self.locate(address, len as usize)?;
        // SAFETY: it lies within the mapping, and the caller says that nobody writes it.
        Some(unsafe { slice::from_raw_parts(start, len as usize) })
    }

    /// As [`Area::get`], to be written.
    ///
    /// # Safety
    ///
    /// As there, and nothing else here reads it.
    #[must_use]
    pub unsafe fn get_mut(&mut self, address: u64, len: u32) -> Option<&mut [u8]> {
        let start = self.locate(address, len as usize)?;
        // SAFETY: it lies within the mapping, and the caller says that it is nobody else's.
        Some(unsafe { slice::from_raw_parts_mut(start, len as usize) })
    }

    /// Appends the `len` bytes at `address` to `to`; `false` where they do not lie within one chunk.
    ///
    /// Each byte is read once. If the other side writes them meanwhile, which it should not, what is read is
    /// any mixture, so it has to be judged afterwards, in the copy.
    #[must_use]
    pub fn copy_out(&self, address: u64, len: u32, to: &mut Vec<u8>) -> bool {
        let len = len as usize;
        let Some(start) = self.locate(address, len) else {
            return false;
        };
        to.reserve(len);
        // SAFETY: the bytes lie within the mapping, `to` has room for as many behind what it holds, and
        // both are different memory. No reference is made to memory that another process may write.
        unsafe {
            ptr::copy_nonoverlapping(start, to.as_mut_ptr().add(to.len()), len);
            to.set_len(to.len() + len);
        }
        true
    }

    /// Writes `bytes` at `address`; `false` where they do not lie within one chunk.
    #[must_use]
    pub fn copy_in(&mut self, address: u64, bytes: &[u8]) -> bool {
        let Some(start) = self.locate(address, bytes.len()) else {
            return false;
        };
        // SAFETY: as in `copy_out`; who was lent this memory has promised that nobody writes it, so the
        // caller's bytes do not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
        true
    }

    fn locate(&self, address: u64, len: usize) -> Option<*mut u8> {
        self.chunk_of(address)?;
        let within = (address % u64::from(self.chunk_size)) as usize;
        if len > self.chunk_size as usize - within {
            return None;
        }
        // SAFETY: the address lies within the area, hence within the mapping.
        Some(unsafe { self.start.as_ptr().add(address as usize) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_of_a_chunk_is_reached() {
        let mut area = Area::new(2048, 4).unwrap();
        let mut bytes = Vec::new();
        for (address, len, fits) in [
            (0, 2048, true),
            (1, 2048, false),
            (6144, 2048, true),
            (8191, 1, true),
            (8192, 0, false),
            (2047, 2, false),
            (0, u32::MAX, false),
            (u64::MAX, 1, false),
            (u64::MAX, u32::MAX, false),
        ] {
            bytes.clear();
            assert_eq!(
                area.copy_out(address, len, &mut bytes),
                fits,
                "{address} {len}"
            );
            if fits {
                assert_eq!(bytes.len(), len as usize);
                assert!(area.copy_in(address, &vec![7; len as usize]));
            }
        }
        assert!(!area.copy_in(2047, &[1, 2]));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut area = Area::new(4096, 2).unwrap();
        assert!(area.copy_in(4096 + 256, b"frame"));
        // SAFETY: nobody else knows the area.
        assert_eq!(unsafe { area.get(4352, 5) }, Some(b"frame".as_slice()));
        // SAFETY: as above.
        unsafe { area.get_mut(4352, 5) }.unwrap()[0] = b'F';
        let mut copy = b"a ".to_vec();
        assert!(area.copy_out(4352, 5, &mut copy));
        assert_eq!(copy, b"a Frame");
    }

    #[test]
    fn areas_must_lie_within_their_mapping() {
        let mapping = Arc::new(Mapping::anonymous(16384).unwrap());
        assert!(Area::within(&mapping, 4096, 4096, 3).is_some());
        assert!(Area::within(&mapping, 4096, 4096, 4).is_none());
        assert!(Area::within(&mapping, 2048, 2048, 1).is_none(), "no page");
        assert!(Area::within(&mapping, 0, 1024, 1).is_none(), "too small");
        assert!(Area::within(&mapping, 0, 4096, u32::MAX).is_none());
    }
}
