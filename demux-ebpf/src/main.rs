//! The BPF programs: entry points only.
//!
//! What they do is [`demux_common::decide`]; here are the maps ([`maps`]), the packet ([`packet`])
//! and the tables ([`tables`]) that it runs on.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    allow(internal_features, reason = "BPF has no other atomics")
)]

#[cfg(all(target_arch = "bpf", feature = "log"))]
mod log;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod tables;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        EbpfContext as _,
        bindings::{TC_ACT_UNSPEC, xdp_action},
        helpers::bpf_xdp_adjust_head,
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };
    use demux_common::{decide::decide, explanation::Explanation, reason::Verdict};

    use crate::{packet::Frame, tables::Maps};

    /// Decides about every frame that arrives.
    #[xdp(frags)]
    pub(crate) fn demux_xdp(ctx: XdpContext) -> u32 {
        let tables = Maps::<true>::new(&ctx);
        let decision = decide(&Frame::new(&ctx), ctx.ingress_ifindex() as u32, &tables);
        #[cfg(feature = "log")]
        crate::log::decision(&ctx, decision);
        if decision.is(Verdict::Drop) {
            return xdp_action::XDP_DROP;
        }
        // Nothing is refused or redirected yet; a verdict from the future passes.
        xdp_action::XDP_PASS
    }

    /// Sees every frame that leaves, and never drops one.
    #[classifier]
    pub(crate) fn demux_egress(_ctx: TcContext) -> i32 {
        // The next program on the hook decides; with none left the frame goes out.
        TC_ACT_UNSPEC
    }

    /// Says what [`demux_xdp`] would do with a frame, and changes nothing.
    ///
    /// It always drops, so that a test run with it can put no packet anywhere, and it writes its
    /// report in front of the frame, where the caller of the test run finds it.
    #[xdp(frags)]
    pub(crate) fn demux_explain(ctx: XdpContext) -> u32 {
        const REPORT: i32 = size_of::<Explanation>() as i32;
        let tables = Maps::<false>::new(&ctx);
        let decision = decide(&Frame::new(&ctx), ctx.ingress_ifindex() as u32, &tables);
        // An explanation is a packed decision.
        let report = decision.0;
        // SAFETY: the context is the program's own; no packet pointer outlives the call.
        if unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), -REPORT) } == 0 {
            Frame::new(&ctx).write(&report);
        }
        xdp_action::XDP_DROP
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets only programs under a licence compatible with the GPL call the helpers for sockets.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
