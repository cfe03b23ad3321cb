//! Programs that give a frame another source, as test runs do not, and hand it on.
//!
//! The frame must be TCP over IPv4. Its checksums are left wrong: nobody here verifies them.

use aya_ebpf::{
    bindings::xdp_action::XDP_ABORTED,
    btf_maps::ProgramArray,
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::{
    packet::{self, IPV4_ADDRESSES, IPV4_TCP},
    programs::{step, walk},
    walk::{Source, sequence},
};

/// The programs that frames are handed on to.
#[btf_map]
pub(crate) static NEXT: ProgramArray<3> = ProgramArray::new();

#[inline(always)]
fn mutate(ctx: &XdpContext) -> Option<()> {
    let index = step(walk()?);
    let Source { address, port } = Source::of(index);
    packet::write(ctx, IPV4_ADDRESSES, u32::from_ne_bytes(address))?;
    packet::write(ctx, IPV4_TCP, port.to_be())?;
    packet::write(ctx, IPV4_TCP + 4, sequence(index).to_be())
}

/// Defines a pair of programs for each place in [`NEXT`]. The place is a constant, because the
/// kernel makes a plain jump of such a call.
macro_rules! mutators {
    ($($place:literal $free:ident $waiting:ident)*) => {
        $(
            /// Packets overlap in the processor as far as it can.
            #[xdp(frags)]
            pub(crate) fn $free(ctx: XdpContext) -> u32 {
                if mutate(&ctx).is_some() {
                    // SAFETY: nothing is left to be dropped.
                    unsafe { NEXT.tail_call(&ctx, $place) };
                }
                XDP_ABORTED
            }

            /// Each packet waits for what the one before has loaded, as for a header that the
            /// network card has just written: the clock is read behind a fence.
            #[xdp(frags)]
            pub(crate) fn $waiting(ctx: XdpContext) -> u32 {
                // SAFETY: reading the clock has no conditions.
                if unsafe { bpf_ktime_get_ns() } != 0 && mutate(&ctx).is_some() {
                    // SAFETY: nothing is left to be dropped.
                    unsafe { NEXT.tail_call(&ctx, $place) };
                }
                XDP_ABORTED
            }
        )*
    };
}

mutators! {
    0 mutate_noop wait_noop
    1 mutate_demux wait_demux
    2 mutate_hash wait_hash
}
