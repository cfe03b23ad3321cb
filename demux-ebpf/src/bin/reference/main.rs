//! What the benchmark measures demux against, and what feeds it packets. Never part of demux.
//!
//! A program that cannot do its work aborts, and lookups that miss are counted, so that the
//! benchmark sees when it measures something else than it means to.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod flows;
#[cfg(target_arch = "bpf")]
mod lookup;
#[cfg(target_arch = "bpf")]
mod mutate;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod row;
#[cfg(target_arch = "bpf")]
mod rows;
#[cfg(target_arch = "bpf")]
mod socket;
#[cfg(target_arch = "bpf")]
mod steer;
#[cfg(target_arch = "bpf")]
mod walk;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::xdp_action::{XDP_ABORTED, XDP_PASS},
        btf_maps::Array,
        macros::{btf_map, xdp},
        programs::XdpContext,
    };

    use crate::{
        packet::{self, Tuple},
        walk::Walk,
    };

    #[btf_map]
    static WALK: Array<Walk, 1> = Array::new();

    /// The walk of whichever program runs.
    #[inline(always)]
    pub(crate) fn walk() -> Option<&'static mut Walk> {
        // SAFETY: test runs of one object do not overlap.
        WALK.get_ptr_mut(0).map(|walk| unsafe { &mut *walk })
    }

    /// Goes on to the next index.
    #[inline(always)]
    pub(crate) fn step(walk: &mut Walk) -> u32 {
        walk.index = walk.after(walk.index);
        walk.index
    }

    /// What every figure is over.
    #[xdp(frags)]
    pub(crate) fn noop(_ctx: XdpContext) -> u32 {
        XDP_PASS
    }

    /// Reads the four-tuple.
    #[xdp(frags)]
    pub(crate) fn parse_only(ctx: XdpContext) -> u32 {
        // Each word decides, so that each is read.
        match packet::tuple(&ctx) {
            Some(Tuple::V4([a, b])) if a & b != u64::MAX => XDP_PASS,
            Some(Tuple::V6([a, b, c, d, e])) if a & b & c & d & e != u64::MAX => XDP_PASS,
            _ => XDP_ABORTED,
        }
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers for sockets are for programs under a licence compatible with the GPL.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
