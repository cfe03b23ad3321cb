//! The kernel's own answer to the question who a segment is for.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action::{XDP_ABORTED, XDP_PASS},
    helpers::{bpf_sk_release, bpf_skc_lookup_tcp},
    macros::xdp,
    programs::XdpContext,
};

use crate::packet::{self, Tuple};

/// BPF_F_CURRENT_NETNS: the namespace of the device.
const CURRENT_NETNS: u64 = u64::MAX;

/// Bytes of `struct bpf_sock_tuple` that are used.
const V4: u32 = 12;
const V6: u32 = 36;

/// Looks the socket up in the kernel's tables, and lets it go again.
#[xdp(frags)]
pub(crate) fn skc_lookup(ctx: XdpContext) -> u32 {
    let found = match packet::tuple(&ctx) {
        Some(Tuple::V4(mut words)) => lookup(&ctx, &mut words, V4),
        Some(Tuple::V6(mut words)) => lookup(&ctx, &mut words, V6),
        None => false,
    };
    if found { XDP_PASS } else { XDP_ABORTED }
}

#[inline(always)]
fn lookup<const N: usize>(ctx: &XdpContext, words: &mut [u64; N], length: u32) -> bool {
    // SAFETY: the tuple is as long as told, and the context is the program's own.
    let socket = unsafe {
        bpf_skc_lookup_tcp(
            ctx.as_ptr(),
            words.as_mut_ptr().cast(),
            length,
            CURRENT_NETNS,
            0,
        )
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the socket was just given to us.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}
