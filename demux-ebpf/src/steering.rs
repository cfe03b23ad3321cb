//! Ways to other CPUs and to AF_XDP sockets, and what finds them without a port of its own. What
//! goes where is [`demux_common::steering`].

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use demux_common::{
    connection::ConnectionKey,
    decide::PackedDecision,
    fragments, icmp,
    parse::Parsed,
    reject::checksum,
    related, steering, table,
    wire::loose::{self, Loose},
};

use crate::{packet::Frame, reject::Answer, tables::Maps};

// Global functions, like the other steps of a packet's way: the verifier looks at each once.

/// [`steering::to_socket`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_to_socket(
    ctx: *mut xdp_md,
    ifindex: u32,
    length: u32,
    decision: u64,
) -> u64 {
    let ctx = XdpContext::new(ctx);
    let tables = Maps::<_, false>::new(&ctx);
    steering::to_socket(&tables, ifindex, length, PackedDecision(decision)).0
}

/// [`steering::to_cpu`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_to_cpu(key: *const ConnectionKey, decision: u64) -> u64 {
    // SAFETY: the verifier holds callers to a readable key, or null.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return decision;
    };
    let tables = Maps::<_, false>::new(());
    let hash = (table::tuple_hash(key, &tables) >> 32) as u32;
    steering::to_cpu(&tables, hash, PackedDecision(decision)).0
}

/// [`checksum::complete`]; returns 0 where it could not be done.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_complete(ctx: *mut xdp_md, parsed: *const Parsed) -> u64 {
    // SAFETY: the verifier holds callers to a readable packet, or null.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else {
        return 0;
    };
    let ctx = XdpContext::new(ctx);
    let mut frame = Answer {
        ctx: &ctx,
        frame: Frame::new(&ctx),
    };
    u64::from(checksum::complete(&mut frame, parsed))
}

/// [`loose::read`]; returns 0 where there is no such header.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_read_loose(
    ctx: *mut xdp_md,
    offset: u32,
    header: *mut Loose,
) -> u64 {
    // SAFETY: the verifier holds callers to a header that may be written, or null.
    let Some(header) = (unsafe { header.as_mut() }) else {
        return 0;
    };
    let frame = Frame::new(&XdpContext::new(ctx));
    u64::from(loose::read(&frame, offset as usize, header))
}

/// [`fragments::read`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_read_fragment(
    ctx: *mut xdp_md,
    slot: u32,
    parsed: *mut Parsed,
) -> u64 {
    // SAFETY: as above.
    let Some(parsed) = (unsafe { parsed.as_mut() }) else {
        return 0;
    };
    let ctx = XdpContext::new(ctx);
    let tables = Maps::<_, false>::new(&ctx);
    fragments::read(&Frame::new(&ctx), &tables, slot, parsed) as u64
}

/// [`icmp::read`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_read_icmp(ctx: *mut xdp_md, slot: u32, parsed: *mut Parsed) -> u64 {
    // SAFETY: as above.
    let Some(parsed) = (unsafe { parsed.as_mut() }) else {
        return 0;
    };
    let ctx = XdpContext::new(ctx);
    let tables = Maps::<_, false>::new(&ctx);
    u64::from(icmp::read(&Frame::new(&ctx), &tables, slot, parsed))
}

/// [`fragments::binding`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_binding_of_fragment(
    ctx: *mut xdp_md,
    parsed: *const Parsed,
    slot: u32,
) -> u64 {
    // SAFETY: as above.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else {
        return 0;
    };
    let ctx = XdpContext::new(ctx);
    let tables = Maps::<_, false>::new(&ctx);
    u64::from(fragments::binding(&tables, parsed, slot))
}

/// [`fragments::remember`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_remember(parsed: *const Parsed, binding: u32) -> u64 {
    // SAFETY: as above.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else {
        return 0;
    };
    let tables = Maps::<_, true>::new(());
    fragments::remember(&tables, parsed, binding as u16);
    0
}

/// [`fragments::recall`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_recall(parsed: *mut Parsed) -> u64 {
    // SAFETY: as above.
    let Some(parsed) = (unsafe { parsed.as_mut() }) else {
        return 0;
    };
    let tables = Maps::<_, false>::new(());
    u64::from(fragments::recall(&tables, parsed))
}

/// [`related::owner_of_row`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_owner_of_row(parsed: *const Parsed, slot: u32) -> u64 {
    // SAFETY: as above.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else {
        return 0;
    };
    let tables = Maps::<_, true>::new(());
    u64::from(related::owner_of_row(&tables, parsed, slot))
}

/// [`related::owner_of_row`] with every store left out.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_owner_of_row_dry(parsed: *const Parsed, slot: u32) -> u64 {
    // SAFETY: as above.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else {
        return 0;
    };
    let tables = Maps::<_, false>::new(());
    u64::from(related::owner_of_row(&tables, parsed, slot))
}
