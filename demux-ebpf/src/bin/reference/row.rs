//! Which connections the rows of demux's own table are, and where they belong.
//!
//! Compiled into the programs and into the benchmark, like [`crate::walk`].

use demux_common::{
    address::Address,
    connection::ConnectionKey,
    protocol::Protocol,
    table::{self, Secret},
};

use crate::walk::{LOCAL_ADDRESS, LOCAL_PORT, Source};

/// How many homes a table for so many rows has.
pub(crate) const fn homes(rows: usize) -> u32 {
    table::homes(rows as u32)
}

/// How many lines a table for so many rows has.
pub(crate) const fn lines(rows: usize) -> usize {
    table::lines(rows as u32) as usize
}

/// The numbers of the hash, as good as any other: nobody attacks this table.
pub(crate) const NUMBERS: [u64; Secret::NUMBERS] = {
    let mut numbers = [0x9e37_79b9_7f4a_7c15; Secret::NUMBERS];
    let mut index = 1;
    while index < numbers.len() {
        let word: u64 = numbers[index - 1];
        numbers[index] = (word ^ word >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ word << 17;
        index += 1;
    }
    numbers
};

/// The connection of an index.
#[inline(always)]
pub(crate) fn key(index: u32) -> ConnectionKey {
    let source = Source::of(index);
    ConnectionKey {
        local_address: Address::from_v4(LOCAL_ADDRESS),
        remote_address: Address::from_v4(source.address),
        local_port: LOCAL_PORT,
        remote_port: source.port,
        protocol: Protocol::Tcp,
    }
}
