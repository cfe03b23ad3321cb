//! Log lines, in objects that are built with the feature `log`; no other object knows of them.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::{debug, info};
use demux_common::{decide::PackedDecision, reason::Verdict};

/// Logs what was decided: drops at level info, the rest at debug.
/// The numbers are those of `demux_common::reason` and of the table of bindings.
#[inline(always)]
pub(crate) fn decision(ctx: &XdpContext, decision: PackedDecision) {
    let ifindex = ctx.ingress_ifindex() as u32;
    let packed = decision.0;
    let (verdict, stage, reason) = (packed as u8, (packed >> 8) as u8, (packed >> 24) as u8);
    let binding = (packed >> 32) as u16;
    if decision.is(Verdict::Drop) {
        info!(
            ctx,
            "interface {}: verdict {}, stage {}, reason {}, binding {}",
            ifindex,
            verdict,
            stage,
            reason,
            binding
        );
    } else {
        debug!(
            ctx,
            "interface {}: verdict {}, stage {}, reason {}, binding {}",
            ifindex,
            verdict,
            stage,
            reason,
            binding
        );
    }
}
