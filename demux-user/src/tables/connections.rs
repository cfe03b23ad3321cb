//! The connection table, read line by line.

use demux_common::{
    connection::{Connection, ConnectionKey},
    counters::TableCounters,
    layout::map,
    table::{self, Cold, Line, Occupancy, WINDOW},
};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::{
    Tables,
    entries::{cannot_read, decode},
};
use crate::{Result, bpf};

/// How many lines are read at once: enough to make calls cheap, few enough to stay in the cache.
const BATCH: usize = 4096;

/// How often a row is read again that changed hands while it was read.
const ATTEMPTS: usize = 8;

impl Tables {
    /// Calls `visit` with every row of the connection table, expired ones included; ends at the
    /// first error that `visit` returns. Each row is as it was at one moment; rows that come and go
    /// meanwhile may be seen or not.
    ///
    /// # Errors
    ///
    /// Where the maps cannot be read, and what `visit` returns.
    pub fn for_each_connection<F>(&self, mut visit: F) -> Result<()>
    where
        F: FnMut(ConnectionKey, Connection) -> Result<()>,
    {
        let mut cold = Vec::new();
        self.for_each_batch(|first, lines, is_entered| {
            cold.clear();
            for (offset, line) in lines.iter().enumerate() {
                if line.occupancy != Occupancy::Live || !is_entered(offset) {
                    continue;
                }
                if cold.is_empty() {
                    cold.resize(lines.len(), Cold::default());
                    self.read_lines(map::CONNECTION_COLD, first, cold.as_mut_bytes())?;
                }
                let row = match Connection::read(line, &cold[offset]) {
                    Some(row) => Some(row),
                    None => self.read_row(first + offset as u32)?,
                };
                if let Some((key, connection)) = row {
                    visit(key, connection)?;
                }
            }
            Ok(())
        })
    }

    /// Calls `visit` with the index of the first line, some lines, and whether the line at an offset
    /// among them is reached from its home.
    pub(super) fn for_each_batch<F>(&self, mut visit: F) -> Result<()>
    where
        F: FnMut(u32, &[Line], &dyn Fn(usize) -> bool) -> Result<()>,
    {
        let name = map::CONNECTIONS;
        let count = self.info(name)?.max_entries;
        // Homes come before what is reached from them.
        let overlap = WINDOW as usize - 1;
        let mut hops = vec![0u16; overlap];
        let mut bytes = vec![0u8; BATCH * size_of::<Line>()];
        let mut lines: Vec<Line> = Vec::with_capacity(BATCH);
        let mut first = 0;
        while first < count {
            let length = (count - first).min(BATCH as u32) as usize;
            let bytes = &mut bytes[..length * size_of::<Line>()];
            self.read_lines(name, first, bytes)?;
            lines.clear();
            for line in bytes.chunks_exact(size_of::<Line>()) {
                let line: Line = decode(name, line)?;
                hops.push(line.hops);
                lines.push(line);
            }
            visit(first, &lines, &|offset| {
                let hop = usize::from(lines[offset].hop) & overlap;
                hops[overlap + offset - hop] >> hop & 1 != 0
            })?;
            hops.drain(..length);
            first += length as u32;
        }
        Ok(())
    }

    /// The row in the line at an index, read as often as it takes to find it whole.
    fn read_row(&self, index: u32) -> Result<Option<(ConnectionKey, Connection)>> {
        let mut bytes = [0u8; size_of::<Line>()];
        let mut cold = Cold::new_zeroed();
        for _ in 0..ATTEMPTS {
            self.read_lines(map::CONNECTIONS, index, &mut bytes)?;
            self.read_lines(map::CONNECTION_COLD, index, cold.as_mut_bytes())?;
            let line: Line = decode(map::CONNECTIONS, &bytes)?;
            if line.occupancy != Occupancy::Live {
                return Ok(None);
            }
            if let Some(row) = Connection::read(&line, &cold) {
                return Ok(Some(row));
            }
        }
        // Whoever changes hands so often is nobody's connection yet.
        Ok(None)
    }

    fn read_lines(&self, name: &str, first: u32, bytes: &mut [u8]) -> Result<()> {
        bpf::array_read(self.map_fd(name)?, first, size_of::<Line>(), bytes)
            .map_err(|e| cannot_read(name, e))
    }

    /// How many connections the table is for.
    ///
    /// # Errors
    ///
    /// Where the kernel does not describe the map.
    pub fn max_connections(&self) -> Result<u32> {
        Ok(table::connections(self.info(map::CONNECTIONS)?.max_entries))
    }

    /// What happened in the connection table, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn table_counters(&self) -> Result<TableCounters> {
        const WORDS: usize = size_of::<TableCounters>() / 8;
        let sums = self.per_cpu_sums::<WORDS>(map::TABLE_COUNTS)?;
        Ok(sums
            .first()
            .map_or_else(TableCounters::default, |words| zerocopy::transmute!(*words)))
    }
}
