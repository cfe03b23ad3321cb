//! Tables of a million rows, looked up by keys that come in a random order.
//!
//! A table holds for each index the index that follows it. To measure another one: implement
//! [`Table`] for it, add a line to `tables!`, and one to `TABLES` of the benchmark's group `large`.

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_PASS},
    btf_maps::HashMap,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::{
    packet::{self, Tuple},
    programs::{step, walk},
    rows::Rows,
    walk::{Walk, key},
};

/// How many rows each table has.
pub(crate) const ROWS: usize = 1 << 20;

/// A table under test.
pub(crate) trait Table {
    /// The index that is stored under the four-tuple of another.
    fn next(index: u32) -> Option<u32>;
}

/// BPF_MAP_TYPE_HASH, as full as it may be.
struct Hash;

#[btf_map]
pub(crate) static HASH: HashMap<[u32; 4], u64, ROWS> = HashMap::new();

impl Table for Hash {
    #[inline(always)]
    fn next(index: u32) -> Option<u32> {
        // SAFETY: nobody changes the table meanwhile.
        unsafe { HASH.get(&key(index)) }.map(|next| *next as u32)
    }
}

/// No table: what making the keys takes.
struct Keys;

impl Table for Keys {
    #[inline(always)]
    fn next(index: u32) -> Option<u32> {
        let [a, b, c, d] = key(index);
        Some(a ^ b ^ c ^ d)
    }
}

/// The keys do not depend on what is found: the processor looks up several at once.
#[inline(always)]
fn random<T: Table>() -> u32 {
    let Some(walk) = walk() else {
        return XDP_ABORTED;
    };
    match T::next(step(walk)) {
        Some(next) => {
            walk.found ^= next;
            XDP_PASS
        }
        None => miss(walk),
    }
}

/// Each key is what the lookup before has found.
#[inline(always)]
fn dependent<T: Table>() -> u32 {
    let Some(walk) = walk() else {
        return XDP_ABORTED;
    };
    match T::next(walk.index) {
        Some(next) => {
            walk.index = next & walk.mask;
            XDP_PASS
        }
        None => {
            step(walk);
            miss(walk)
        }
    }
}

/// Counts a lookup that found nothing: the benchmark minds when there are many.
#[inline(always)]
fn miss(walk: &mut Walk) -> u32 {
    walk.misses = walk.misses.wrapping_add(1);
    XDP_PASS
}

macro_rules! tables {
    ($($table:ident $random:ident $dependent:ident)*) => {
        $(
            #[xdp(frags)]
            pub(crate) fn $random(_ctx: XdpContext) -> u32 {
                random::<$table>()
            }

            #[xdp(frags)]
            pub(crate) fn $dependent(_ctx: XdpContext) -> u32 {
                dependent::<$table>()
            }
        )*
    };
}

tables! {
    Keys keys_random keys_dependent
    Hash hash_random hash_dependent
    Rows rows_random rows_dependent
}

/// Reads a frame's four-tuple and looks it up in the hash map: the least that a demultiplexer
/// built on one does.
#[xdp(frags)]
pub(crate) fn hash_packet(ctx: XdpContext) -> u32 {
    let Some(Tuple::V4([addresses, ports])) = packet::tuple(&ctx) else {
        return XDP_ABORTED;
    };
    let [remote_port, local_port] = [ports as u16, (ports >> 16) as u16].map(u16::from_be);
    let tuple = [
        addresses as u32,
        (addresses >> 32) as u32,
        u32::from(remote_port) << 16 | u32::from(local_port),
        6,
    ];
    // SAFETY: nobody changes the table meanwhile.
    match (unsafe { HASH.get(&tuple) }, walk()) {
        (Some(_), _) => XDP_PASS,
        (None, Some(walk)) => miss(walk),
        (None, None) => XDP_ABORTED,
    }
}
