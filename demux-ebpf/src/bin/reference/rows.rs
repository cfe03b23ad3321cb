//! The connection table of demux, without the rest of demux. The benchmark enters the rows.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, btf_maps::Array, macros::btf_map};
use demux_common::{
    table::{self, Line, Memory, Numbers, Probe, Secret},
    tcp::Half,
};

use crate::{
    lookup::{ROWS, Table},
    row,
};

#[btf_map]
pub(crate) static LINES: Array<Line, { row::lines(ROWS) }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

static NUMBERS: [u64; Secret::NUMBERS] = row::NUMBERS;

/// The table. Each row says what follows it as the next sequence number of its remote.
pub(crate) struct Rows;

impl Table for Rows {
    #[inline(always)]
    fn next(index: u32) -> Option<u32> {
        let key = row::key(index);
        let probe = Probe::new(&key, &Rows, row::homes(ROWS));
        let found = table::find(&Rows, &probe, &key)?;
        Some(Half::from_word(Rows.load64::<{ Line::REMOTE }>(found.line)).next)
    }
}

impl Numbers for Rows {
    #[inline(always)]
    fn number(&self, index: usize) -> u64 {
        // SAFETY: every index is a constant below the length. Volatile, as in demux, where the
        // compiler does not know the numbers.
        unsafe {
            (&raw const NUMBERS)
                .cast::<u64>()
                .add(index)
                .read_volatile()
        }
    }
}

/// As far as a lookup needs it.
impl Memory for Rows {
    type Line = *const u8;

    #[inline(always)]
    fn line(&self, index: u32) -> Option<*const u8> {
        LINES.get_ptr(index).map(<*const Line>::cast)
    }

    /// IPv4 connections do without.
    #[inline(always)]
    fn cold(&self, _index: u32) -> Option<*const u8> {
        None
    }

    #[inline(always)]
    fn load32<const AT: usize>(&self, line: *const u8) -> u32 {
        // SAFETY: `AT` is a field of the line. Volatile, as in demux.
        unsafe { line.add(AT).cast::<u32>().read_volatile() }
    }

    #[inline(always)]
    fn load64<const AT: usize>(&self, line: *const u8) -> u64 {
        // SAFETY: as in `load32`.
        unsafe { line.add(AT).cast::<u64>().read_volatile() }
    }

    fn store32<const AT: usize>(&self, _line: *const u8, _value: u32) {}

    fn store64<const AT: usize>(&self, _line: *const u8, _value: u64) {}

    fn exchange32<const AT: usize>(&self, _line: *const u8, _old: u32, _new: u32) -> bool {
        true
    }

    fn exchange64<const AT: usize>(&self, _line: *const u8, _old: u64, _new: u64) -> bool {
        true
    }

    fn and32<const AT: usize>(&self, _line: *const u8, _mask: u32) {}

    fn add32<const AT: usize>(&self, _line: *const u8, _addend: u32) {}
}
