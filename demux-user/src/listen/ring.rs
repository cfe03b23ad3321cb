//! Reading a ring buffer.

use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use zerocopy::TryFromBytes;

use crate::{Error, Result, bpf};

/// A ring buffer, mapped.
pub(super) struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl Ring {
    /// Opens the ring that is pinned at `path`. Whoever reads it writes to it how far he is, so it must
    /// be open to writers.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::io(format!("open {}", path.display()), source);
        let fd = bpf::object_get(path, false).map_err(failed)?;
        let data = MapData::from_fd(fd).map_err(|source| failed(std::io::Error::other(source)))?;
        let ring = RingBuf::try_from(Map::RingBuf(data))
            .map_err(|source| failed(std::io::Error::other(source)))?;
        Ok(Self(ring))
    }

    /// Calls `visit` with each record that is there, in order.
    pub(super) fn for_each(&mut self, visit: &mut dyn FnMut(&[u8])) {
        while let Some(record) = self.0.next() {
            visit(&record);
        }
    }

    /// As [`Ring::for_each`], with typed records, at most `most` of them. Returns how many there were.
    pub(super) fn read<T>(&mut self, most: usize, visit: &mut dyn FnMut(T)) -> usize
    where
        T: TryFromBytes,
    {
        let mut count = 0;
        while count < most {
            let Some(record) = self.0.next() else {
                break;
            };
            count += 1;
            // The layout is checked when the maps are opened; a record of another one says nothing.
            if let Ok(record) = T::try_read_from_bytes(&record) {
                visit(record);
            }
        }
        count
    }
}
