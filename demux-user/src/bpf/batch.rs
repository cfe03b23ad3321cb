//! Reading a whole map in as few calls as the kernel allows.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya_obj::generated::bpf_cmd;
use zerocopy::IntoBytes as _;

use super::{
    MapInfo, address, address_mut, attributes, bpf,
    map::{is_batch_unsupported, map_get_next_key, map_lookup},
    map_info,
};

/// About how many bytes of keys and values one call asks for.
const TARGET_BYTES: usize = 256 * 1024;

/// Reads every entry of a map, many per call.
///
/// Entries that come, go or change meanwhile may be seen or not, each at most once.
/// Where the map's type or the kernel has no batches, every key is asked for by itself.
#[derive(Debug)]
pub struct BatchReader<'fd> {
    fd: BorrowedFd<'fd>,
    key_size: usize,
    value_size: usize,
    max_entries: usize,
    capacity: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
    position: Position,
}

#[derive(Debug)]
enum Position {
    /// Where the kernel stands, opaque and at most as long as a key; `None` at the start.
    Batch(Option<Vec<u8>>),
    /// One key at a time: the last one seen and all that were handed out, because a key that is deleted
    /// under the walk sends it back to the start.
    Single {
        last: Option<Vec<u8>>,
        seen: HashSet<Vec<u8>>,
        steps: usize,
    },
    End,
}

/// Some entries of a map.
#[derive(Debug)]
pub struct Batch<'reader> {
    keys: &'reader [u8],
    values: &'reader [u8],
    key_size: usize,
    value_size: usize,
}

impl<'reader> Batch<'reader> {
    /// The entries, as key and value. A per-CPU value holds one for each possible CPU,
    /// [`MapInfo::cpu_stride`] bytes apart.
    pub fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = (&'reader [u8], &'reader [u8])> + use<'reader> {
        self.keys
            .chunks_exact(self.key_size)
            .zip(self.values.chunks_exact(self.value_size))
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.keys.len() / self.key_size
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl<'fd> BatchReader<'fd> {
    /// Starts at the first entry of the map behind `fd`, which may be read-only.
    ///
    /// # Errors
    ///
    /// Where the descriptor is not a map with keys and values.
    pub fn new(fd: BorrowedFd<'fd>) -> io::Result<Self> {
        let info = map_info(fd)?;
        Self::with_info(fd, &info)
    }

    /// As [`BatchReader::new`], where the map has been described already.
    ///
    /// # Errors
    ///
    /// Where the map has no keys or no values.
    pub fn with_info(fd: BorrowedFd<'fd>, info: &MapInfo) -> io::Result<Self> {
        let key_size = info.key_size as usize;
        let value_size = info.value_stride()?;
        if key_size == 0 || value_size == 0 {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let max_entries = info.max_entries as usize;
        let capacity = (TARGET_BYTES / (key_size + value_size)).clamp(1, max_entries.max(1));
        Ok(Self {
            fd,
            key_size,
            value_size,
            max_entries,
            capacity,
            keys: Vec::new(),
            values: Vec::new(),
            position: Position::Batch(None),
        })
    }

    /// The next entries, at least one; `None` after the last.
    ///
    /// # Errors
    ///
    /// EPERM where the descriptor may not be read, EOPNOTSUPP for maps whose values cannot be read.
    pub fn next_batch(&mut self) -> io::Result<Option<Batch<'_>>> {
        let count = loop {
            let count = match &self.position {
                Position::Batch(_) => self.read_batch()?,
                Position::Single { .. } => self.read_single()?,
                Position::End => return Ok(None),
            };
            if count > 0 {
                break count;
            }
        };
        Ok(Some(Batch {
            keys: &self.keys[..count * self.key_size],
            values: &self.values[..count * self.value_size],
            key_size: self.key_size,
            value_size: self.value_size,
        }))
    }

    /// Calls `visit` with the key and value of each remaining entry.
    ///
    /// # Errors
    ///
    /// As [`BatchReader::next_batch`].
    pub fn for_each(&mut self, mut visit: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        while let Some(batch) = self.next_batch()? {
            for (key, value) in batch.iter() {
                visit(key, value);
            }
        }
        Ok(())
    }

    fn reserve(&mut self) {
        self.keys.resize(self.capacity * self.key_size, 0);
        self.values.resize(self.capacity * self.value_size, 0);
    }

    fn read_batch(&mut self) -> io::Result<usize> {
        let Position::Batch(position) = &self.position else {
            return Ok(0);
        };
        let from = position.clone();
        // Hash maps keep a 4-byte bucket number here, the others a key.
        let mut to = vec![0; self.key_size.max(size_of::<u32>())];
        loop {
            self.reserve();
            let mut attributes = attributes();
            // SAFETY: these are the fields of the batch commands.
            let batch = unsafe { &mut attributes.batch };
            batch.map_fd = self.fd.as_raw_fd() as u32;
            batch.in_batch = from.as_deref().map_or(0, address);
            batch.out_batch = address_mut(&mut to);
            batch.keys = address_mut(&mut self.keys);
            batch.values = address_mut(&mut self.values);
            batch.count = self.capacity as u32;
            // SAFETY: the buffers outlive the call, hold `capacity` elements, and a position each.
            let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes) };
            // SAFETY: the kernel has written how many it read.
            let count = unsafe { attributes.batch.count } as usize;
            match result {
                Ok(_) => {
                    self.position = Position::Batch(Some(to));
                    return Ok(count);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOENT) => {
                        self.position = Position::End;
                        return Ok(count);
                    }
                    // A bucket of the hash holds more than we have room for.
                    Some(libc::ENOSPC) => self.capacity *= 2,
                    Some(libc::EINTR) => {}
                    _ if from.is_none() && is_batch_unsupported(&error) => {
                        self.position = Position::Single {
                            last: None,
                            seen: HashSet::new(),
                            steps: 0,
                        };
                        return Ok(0);
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    fn read_single(&mut self) -> io::Result<usize> {
        self.reserve();
        let Position::Single { last, seen, steps } = &mut self.position else {
            return Ok(0);
        };
        let mut key = vec![0; self.key_size];
        let mut count = 0;
        while count < self.capacity {
            // Under constant deletion the walk could start over for ever.
            let exhausted = *steps > 4 * self.max_entries;
            if exhausted || !map_get_next_key(self.fd, last.as_deref(), &mut key)? {
                self.position = Position::End;
                break;
            }
            *steps += 1;
            last.get_or_insert_default().clone_from(&key);
            let value = &mut self.values[count * self.value_size..][..self.value_size];
            if !seen.contains(&key) && map_lookup(self.fd, &key, value)? {
                self.keys[count * self.key_size..][..self.key_size].copy_from_slice(&key);
                seen.insert(key.clone());
                count += 1;
            }
        }
        Ok(count)
    }
}

/// Reads the values of an array map, each of `value_size` bytes, from the index `first` on, as many
/// as `values` has room for. Each value is copied while it may change.
///
/// # Errors
///
/// EINVAL where the map has fewer, EPERM where the descriptor may not be read.
pub fn array_read(
    fd: BorrowedFd<'_>,
    first: u32,
    value_size: usize,
    values: &mut [u8],
) -> io::Result<()> {
    let total = values.len() / value_size;
    let mut keys = vec![0u32; total];
    let mut done = 0;
    while done < total {
        let from = (first + done as u32).checked_sub(1);
        let mut to = 0u32;
        let mut attributes = attributes();
        // SAFETY: these are the fields of the batch commands.
        let batch = unsafe { &mut attributes.batch };
        batch.map_fd = fd.as_raw_fd() as u32;
        batch.in_batch = from.as_ref().map_or(0, |from| address(from.as_bytes()));
        batch.out_batch = address_mut(to.as_mut_bytes());
        batch.keys = address_mut(keys[done..].as_mut_bytes());
        batch.values = address_mut(&mut values[done * value_size..]);
        batch.count = (total - done) as u32;
        // SAFETY: the buffers outlive the call and have room for so many elements and a position.
        let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes) };
        // SAFETY: the kernel has written how many it read.
        let count = unsafe { attributes.batch.count } as usize;
        match result {
            Ok(_) => {}
            // The end of the map.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) && done + count == total => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            Err(error) => return Err(error),
        }
        done += count;
    }
    Ok(())
}
