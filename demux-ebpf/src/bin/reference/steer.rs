//! What the targets of bindings are measured against, and what feeds both: frames that go elsewhere
//! without anything being looked at or looked up, and frames of many flows that arrive on an interface.

use aya_ebpf::{
    bindings::{
        TC_ACT_UNSPEC,
        xdp_action::{XDP_ABORTED, XDP_REDIRECT},
    },
    btf_maps::{Array, CpuMap, PerCpuArray, XskMap},
    helpers::bpf_redirect,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::{
    flows::{FIRST_PORT, FLOWS},
    packet::{self, ETHER_TYPE, ETHER_TYPE_IPV4, IPV4_TCP, IPV6_TCP},
};

/// As many as there are CPUs, where it is used: more would be refused.
#[btf_map]
static PLAIN_CPUS: CpuMap<1> = CpuMap::new();

/// Where [`plain_cpu`] redirects to; set before the program is loaded, and constant from then on.
#[unsafe(no_mangle)]
static PLAIN_CPU: u32 = 0;

/// The socket of each receive queue.
#[btf_map]
static PLAIN_SOCKETS: XskMap<64> = XskMap::new();

/// The index of the interface that [`feed`] sends by, and below it the number of the next frame.
#[btf_map]
static FEED: Array<[u32; 2], 1> = Array::new();

/// How many packets [`stack`] has seen.
#[btf_map]
static TO_STACK: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Every frame goes to one CPU.
#[xdp(frags)]
pub(crate) fn plain_cpu(_ctx: XdpContext) -> u32 {
    // SAFETY: volatile, because the loader sets it after the compiler has seen it.
    let cpu = unsafe { (&raw const PLAIN_CPU).read_volatile() };
    match PLAIN_CPUS.redirect(cpu, 0) {
        Ok(action) | Err(action) => action,
    }
}

/// Every frame goes to the socket of its receive queue.
#[xdp(frags)]
pub(crate) fn plain_xsk(ctx: XdpContext) -> u32 {
    match PLAIN_SOCKETS.redirect(ctx.rx_queue_index() as u32, 0) {
        Ok(action) | Err(action) => action,
    }
}

/// Gives a frame, TCP or UDP, the remote port of the next flow, and sends it to the other end of a veth
/// pair. The checksum is left wrong: nobody here verifies it.
#[xdp]
pub(crate) fn feed(ctx: XdpContext) -> u32 {
    let Some(feed) = FEED.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: only one run is under way at a time.
    let [ifindex, number] = unsafe { *feed };
    let port = FIRST_PORT + (number & (FLOWS - 1)) as u16;
    let offset = match packet::read::<u16>(&ctx, ETHER_TYPE) {
        Some(ETHER_TYPE_IPV4) => IPV4_TCP,
        Some(_) => IPV6_TCP,
        None => return XDP_ABORTED,
    };
    if packet::write(&ctx, offset, port.to_be()).is_none() {
        return XDP_ABORTED;
    }
    // SAFETY: as above; the helper only notes where the frame is to go.
    let action = unsafe {
        (*feed)[1] = number.wrapping_add(1);
        bpf_redirect(ifindex, 0)
    };
    if action == i64::from(XDP_REDIRECT) {
        XDP_REDIRECT
    } else {
        XDP_ABORTED
    }
}

/// Counts what the stack gets, and lets it go on.
#[classifier]
pub(crate) fn stack(_ctx: TcContext) -> i32 {
    if let Some(count) = TO_STACK.get_ptr_mut(0) {
        // SAFETY: this CPU is the only writer of its own copy.
        unsafe { *count += 1 };
    }
    TC_ACT_UNSPEC
}
