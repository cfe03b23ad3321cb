//! The BPF programs: entry points only.
//!
//! What they do is [`demux_common::decide`]; here are the maps ([`maps`]), the packet ([`packet`])
//! and the tables ([`tables`]) that it runs on, the frame that becomes a refusal ([`reject`]),
//! the ways to other CPUs and to AF_XDP sockets ([`steering`]), and what is told to listeners ([`listen`]).

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    allow(internal_features, reason = "BPF has no other atomics")
)]

#[cfg(target_arch = "bpf")]
mod bind;
#[cfg(target_arch = "bpf")]
mod connect;
#[cfg(target_arch = "bpf")]
mod listen;
#[cfg(all(target_arch = "bpf", feature = "log"))]
mod log;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod ports;
#[cfg(target_arch = "bpf")]
mod reject;
#[cfg(target_arch = "bpf")]
mod ring;
#[cfg(target_arch = "bpf")]
mod steering;
#[cfg(target_arch = "bpf")]
mod tables;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        EbpfContext as _,
        bindings::{TC_ACT_UNSPEC, xdp_action},
        helpers::bpf_xdp_adjust_head,
        macros::{cgroup_sock, cgroup_sock_addr, classifier, xdp},
        programs::{SockAddrContext, SockContext, TcContext, XdpContext},
    };
    use demux_common::{
        command::{BATCH, Command, Operation, Outcome, Preamble},
        decide::decide,
        egress::{self, Departure},
        explanation::Explanation,
        reason::Verdict,
        sent::{self, Sent},
        tables::Tables as _,
    };

    use crate::{
        bind,
        connect::connect,
        packet::Frame,
        ports::{demux_allocate, demux_release},
        tables::{Maps, demux_enter_sent, demux_execute},
    };

    /// Decides about every frame that arrives.
    #[xdp(frags)]
    pub(crate) fn demux_xdp(ctx: XdpContext) -> u32 {
        let tables = Maps::<_, true>::new(&ctx);
        let decision = decide(&Frame::new(&ctx), ctx.ingress_ifindex() as u32, &tables);
        #[cfg(feature = "log")]
        crate::log::decision(&ctx, decision);
        if decision.is(Verdict::Drop) {
            return xdp_action::XDP_DROP;
        }
        if decision.is(Verdict::Reject) {
            // The frame is the answer now.
            return if decision.is_by_redirect() {
                xdp_action::XDP_REDIRECT
            } else {
                xdp_action::XDP_TX
            };
        }
        if decision.is(Verdict::Redirect) {
            // Where to has been told to the kernel.
            return xdp_action::XDP_REDIRECT;
        }
        // A verdict from the future passes.
        xdp_action::XDP_PASS
    }

    /// Sees every frame that leaves, and never holds one up.
    #[classifier]
    pub(crate) fn demux_egress(ctx: TcContext) -> i32 {
        let departure = Departure {
            // SAFETY: the context is the program's own.
            ifindex: unsafe { (*ctx.skb.skb).ifindex },
            // SAFETY: as above.
            segments: unsafe { (*ctx.skb.skb).gso_segs },
            // SAFETY: as above.
            is_forwarded: unsafe { (*ctx.skb.skb).ingress_ifindex },
            is_reported: 0,
        };
        // The headers of what this host sends are together mostly, but need not be.
        if ctx.data_end() - ctx.data() < LONGEST_HEADERS {
            let length = ctx.len().min(LONGEST_HEADERS as u32);
            // Where it cannot be done, the frame is as it was.
            let _ = ctx.pull_data(length);
        }
        egress::observe(&Frame::of_skb(&ctx), &departure, &Maps::<_, true>::new(()));
        // The next program on the hook decides; with none left the frame goes out.
        TC_ACT_UNSPEC
    }

    /// Does in the connection table what the controller asks for: see [`demux_common::command`].
    /// Never attached, only run on packets of the controller's making.
    #[xdp]
    pub(crate) fn demux_control(ctx: XdpContext) -> u32 {
        const COMMANDS: usize = size_of::<Preamble>();
        const OUTCOME: usize = core::mem::offset_of!(Command, outcome);
        const ANSWER: usize = core::mem::offset_of!(Command, head);
        let frame = Frame::new(&ctx);
        let Some(preamble) = frame.read::<Preamble>(0) else {
            return xdp_action::XDP_DROP;
        };
        let ticks = Maps::<_, true>::new(()).ticks();
        frame.write_at(core::mem::offset_of!(Preamble, ticks), &ticks);
        for index in 0..BATCH {
            if index as u64 >= preamble.count {
                break;
            }
            let offset = COMMANDS + index * size_of::<Command>();
            let Some(command) = frame.read::<Command>(offset) else {
                break;
            };
            if command.operation == Operation::Allocate as u32
                || command.operation == Operation::Release as u32
            {
                let answer = if command.operation == Operation::Release as u32 {
                    demux_release(&command.request)
                } else {
                    demux_allocate(&command.request)
                };
                frame.write_at(offset + ANSWER, &answer);
                frame.write_at(offset + OUTCOME, &(Outcome::Done as u32));
                continue;
            }
            let outcome = demux_execute(&command) as u32;
            frame.write_at(offset + OUTCOME, &outcome);
        }
        xdp_action::XDP_DROP
    }

    /// Enters what the owners of AF_XDP sockets have sent: see [`demux_common::sent`]. Never attached,
    /// only run on packets of the controller's making.
    #[xdp]
    pub(crate) fn demux_sent(ctx: XdpContext) -> u32 {
        let frame = Frame::new(&ctx);
        let Some(preamble) = frame.read::<Preamble>(0) else {
            return xdp_action::XDP_DROP;
        };
        for index in 0..sent::BATCH {
            if index as u64 >= preamble.count {
                break;
            }
            let offset = size_of::<Preamble>() + index * size_of::<Sent>();
            let Some(sent) = frame.read::<Sent>(offset) else {
                break;
            };
            demux_enter_sent(&sent);
        }
        xdp_action::XDP_DROP
    }

    /// Chooses the source port of a connection over IPv4 in a control group of `demux exec`.
    #[cgroup_sock_addr(connect4)]
    pub(crate) fn demux_connect4(ctx: SockAddrContext) -> i32 {
        connect::<false>(ctx.sock_addr)
    }

    /// The same over IPv6.
    #[cgroup_sock_addr(connect6)]
    pub(crate) fn demux_connect6(ctx: SockAddrContext) -> i32 {
        connect::<true>(ctx.sock_addr)
    }

    /// Headers longer than this are none that the parser takes: Ethernet with two tags, IPv4 or
    /// IPv6 with options or extensions, TCP with options.
    const LONGEST_HEADERS: usize = 14 + 8 + 60 + 60;

    /// Says what [`demux_xdp`] would do with a frame, and changes nothing.
    ///
    /// It always drops, so that a test run with it can put no packet anywhere, and it writes its
    /// report in front of the frame, where the caller of the test run finds it.
    #[xdp(frags)]
    pub(crate) fn demux_explain(ctx: XdpContext) -> u32 {
        const REPORT: i32 = size_of::<Explanation>() as i32;
        let tables = Maps::<_, false>::new(&ctx);
        let decision = decide(&Frame::new(&ctx), ctx.ingress_ifindex() as u32, &tables);
        // An explanation is a packed decision.
        let report = decision.0;
        // SAFETY: the context is the program's own; no packet pointer outlives the call.
        if unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), -REPORT) } == 0 {
            Frame::new(&ctx).write(&report);
        }
        xdp_action::XDP_DROP
    }

    /// Refuses a bind(2) to an IPv4 endpoint that demux owns.
    #[cgroup_sock_addr(bind4)]
    pub(crate) fn demux_bind4(ctx: SockAddrContext) -> i32 {
        bind::asks(&ctx, bind::asked_v4)
    }

    /// The same for IPv6, and for IPv4 on sockets of IPv6.
    #[cgroup_sock_addr(bind6)]
    pub(crate) fn demux_bind6(ctx: SockAddrContext) -> i32 {
        bind::asks(&ctx, bind::asked_v6)
    }

    /// Refuses a bind(2) to port 0 for which the kernel has chosen a port that demux owns.
    #[cgroup_sock(post_bind4)]
    pub(crate) fn demux_bound4(ctx: SockContext) -> i32 {
        bind::got(&ctx, bind::got_v4)
    }

    /// The same for IPv6.
    #[cgroup_sock(post_bind6)]
    pub(crate) fn demux_bound6(ctx: SockContext) -> i32 {
        bind::got(&ctx, bind::got_v6)
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
