//! Entries of maps as typed keys and values.

use zerocopy::{Immutable, IntoBytes, KnownLayout, TryFromBytes};

use super::Tables;
use crate::{
    Error, Result,
    bpf::{self, BatchReader},
};

impl Tables {
    pub(super) fn array_entry<V>(&self, name: &str, index: u32) -> Result<V>
    where
        V: TryFromBytes + KnownLayout + Immutable,
    {
        let mut value = vec![0u8; size_of::<V>()];
        bpf::map_lookup(self.map_fd(name)?, index.as_bytes(), &mut value)
            .map_err(|e| cannot_read(name, e))?;
        decode(name, &value)
    }

    pub(super) fn array<V>(&self, name: &str) -> Result<Vec<(u32, V)>>
    where
        V: TryFromBytes + KnownLayout + Immutable,
    {
        let mut entries: Vec<(u32, V)> = self.entries(name)?;
        entries.sort_unstable_by_key(|(index, _)| *index);
        Ok(entries)
    }

    pub(super) fn entries<K, V>(&self, name: &str) -> Result<Vec<(K, V)>>
    where
        K: TryFromBytes + KnownLayout + Immutable,
        V: TryFromBytes + KnownLayout + Immutable,
    {
        let mut entries = Vec::new();
        let mut reader = BatchReader::new(self.map_fd(name)?).map_err(|e| cannot_read(name, e))?;
        while let Some(batch) = reader.next_batch().map_err(|e| cannot_read(name, e))? {
            for (key, value) in batch.iter() {
                entries.push((decode(name, key)?, decode(name, value)?));
            }
        }
        Ok(entries)
    }

    pub(super) fn per_cpu_sums<const WORDS: usize>(&self, name: &str) -> Result<Vec<[u64; WORDS]>> {
        let mut sums: Vec<(u32, [u64; WORDS])> = Vec::new();
        let mut reader = BatchReader::new(self.map_fd(name)?).map_err(|e| cannot_read(name, e))?;
        while let Some(batch) = reader.next_batch().map_err(|e| cannot_read(name, e))? {
            for (key, value) in batch.iter() {
                let mut sum = [0u64; WORDS];
                for copy in value.chunks_exact(WORDS * 8) {
                    let words: [u64; WORDS] = decode(name, copy)?;
                    for (total, word) in sum.iter_mut().zip(words) {
                        *total = total.wrapping_add(word);
                    }
                }
                sums.push((decode(name, key)?, sum));
            }
        }
        sums.sort_unstable_by_key(|(index, _)| *index);
        Ok(sums.into_iter().map(|(_, sum)| sum).collect())
    }

    /// The value that each CPU has at an index.
    pub(super) fn per_cpu_entry<V>(&self, name: &str, index: u32) -> Result<Vec<V>>
    where
        V: TryFromBytes + KnownLayout + Immutable,
    {
        let info = self.info(name)?;
        let stride = info.value_stride().map_err(|e| cannot_read(name, e))?;
        let mut values = vec![0u8; stride];
        bpf::map_lookup(self.map_fd(name)?, index.as_bytes(), &mut values)
            .map_err(|e| cannot_read(name, e))?;
        values
            .chunks_exact(info.cpu_stride())
            .map(|value| decode(name, &value[..size_of::<V>()]))
            .collect()
    }

    pub(super) fn clear_per_cpu(&self, name: &str, index: u32) -> Result<()> {
        self.clear_all_per_cpu(name, [index].into_iter())
    }

    pub(super) fn clear_all_per_cpu(
        &self,
        name: &str,
        mut indexes: impl Iterator<Item = u32>,
    ) -> Result<()> {
        let stride = self
            .info(name)?
            .value_stride()
            .map_err(|e| cannot_write(name, e))?;
        let zeros = vec![0u8; stride];
        let map = self.map_fd(name)?;
        indexes.try_for_each(|index| {
            bpf::map_update(map, index.as_bytes(), &zeros, 0).map_err(|e| cannot_write(name, e))
        })
    }

    pub(super) fn update<K, V>(&self, name: &str, key: &K, value: &V) -> Result<()>
    where
        K: IntoBytes + Immutable,
        V: IntoBytes + Immutable,
    {
        bpf::map_update(self.map_fd(name)?, key.as_bytes(), value.as_bytes(), 0)
            .map_err(|e| cannot_write(name, e))
    }

    pub(super) fn update_batch<V>(&self, name: &str, entries: &[(u32, V)]) -> Result<()>
    where
        V: IntoBytes + Immutable,
    {
        let keys: Vec<u8> = entries
            .iter()
            .flat_map(|(index, _)| index.as_bytes().iter().copied())
            .collect();
        let values: Vec<u8> = entries
            .iter()
            .flat_map(|(_, value)| value.as_bytes().iter().copied())
            .collect();
        let (_, result) =
            bpf::map_update_batch(self.map_fd(name)?, &keys, &values, entries.len(), 0);
        result.map_err(|e| cannot_write(name, e))
    }

    pub(super) fn delete<K>(&self, name: &str, key: &K) -> Result<()>
    where
        K: IntoBytes + Immutable,
    {
        bpf::map_delete(self.map_fd(name)?, key.as_bytes())
            .map(|_was_there| ())
            .map_err(|e| cannot_write(name, e))
    }
}

pub(super) fn decode<T>(name: &str, bytes: &[u8]) -> Result<T>
where
    T: TryFromBytes + KnownLayout + Immutable,
{
    T::try_read_from_bytes(bytes).map_err(|_| {
        Error::unexpected(
            format!("read the map {name}"),
            "an entry is not of this demux's layout",
        )
    })
}

pub(super) fn cannot_read(name: &str, source: std::io::Error) -> Error {
    Error::io(format!("read the map {name}"), source)
}

pub(super) fn cannot_write(name: &str, source: std::io::Error) -> Error {
    Error::io(format!("write the map {name}"), source)
}
