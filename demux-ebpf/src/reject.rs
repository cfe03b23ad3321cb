//! Refusals: the frame that is turned into its own answer. What is answered, and how, is
//! [`demux_common::reject`].

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    helpers::{
        bpf_csum_diff, bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
    },
    programs::XdpContext,
};
use demux_common::{
    decide::PackedDecision,
    packet::Packet,
    parse::Parsed,
    reject::{self, LONGEST, Rewrite},
};

use crate::{
    maps::{self, PIECE_WORDS},
    packet::Frame,
    tables::Maps,
};

/// What [`demux_sum`] returns where there is no sum.
const OUT_OF_REACH: u64 = u64::MAX;

/// A frame that may be changed, and its context.
pub(crate) struct Answer<'a> {
    pub(crate) ctx: &'a XdpContext,
    pub(crate) frame: Frame,
}

impl Packet for Answer<'_> {
    #[inline(always)]
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.frame.get(offset)
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        self.frame.frame_len()
    }

    #[inline(always)]
    fn linear_len(&self) -> usize {
        self.frame.linear_len()
    }
}

impl Rewrite for Answer<'_> {
    #[inline(always)]
    fn sum(&self, offset: usize, length: usize, sum: u32) -> Option<u32> {
        let ctx = self.ctx.as_ptr().cast();
        let (start, length) = (offset as u32, length as u32);
        let sum = if start.wrapping_add(length) as usize <= self.frame.linear_len() {
            demux_sum(ctx, start, length, sum)
        } else {
            demux_sum_buffers(ctx, start, length, sum)
        };
        (sum != OUT_OF_REACH).then_some(sum as u32)
    }

    #[inline(always)]
    fn put<T: Copy>(&mut self, offset: usize, value: &T) {
        self.frame.write_at(offset, value);
    }

    #[inline(always)]
    fn reshape(&mut self, front: usize, length: usize) -> bool {
        let ctx: *mut xdp_md = self.ctx.as_ptr().cast();
        let excess = self.frame.linear_len() + front - length;
        let front = front as i32;
        // SAFETY: the context is the program's own, and the frame is loaded anew below.
        if front != 0 && unsafe { bpf_xdp_adjust_head(ctx, -front) } != 0 {
            return false;
        }
        // SAFETY: as above.
        let is_cut = unsafe { bpf_xdp_adjust_tail(ctx, -(excess as i32)) } == 0;
        if !is_cut && front != 0 {
            // SAFETY: as above. What was just added can be taken away.
            unsafe { bpf_xdp_adjust_head(ctx, front) };
        }
        self.frame.reload(self.ctx);
        is_cut
    }
}

/// [`reject::refuse`], in a function of its own like the other steps of a packet's way.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_refuse(
    ctx: *mut xdp_md,
    parsed: *const Parsed,
    slot: u32,
    decision: u64,
) -> u64 {
    // SAFETY: the verifier holds callers to a readable packet, or null.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else {
        return decision;
    };
    let ctx = XdpContext::new(ctx);
    let mut answer = Answer {
        ctx: &ctx,
        frame: Frame::new(&ctx),
    };
    let tables = Maps::<_, true>::new(&ctx);
    let decision = PackedDecision(decision);
    let outcome = reject::refuse(&mut answer, &tables, parsed, slot, decision);
    if outcome.is_by_redirect() {
        // SAFETY: the helper only notes where the frame is to go. What it returns, the program
        // returns too.
        unsafe { bpf_redirect(ctx.ingress_ifindex() as u32, 0) };
    }
    outcome.0
}

/// Adds `length` bytes at `offset` to a sum of 16-bit words in memory order, or returns
/// [`OUT_OF_REACH`]. In a function of its own: the verifier looks at the loop once.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_sum(ctx: *mut xdp_md, offset: u32, length: u32, sum: u32) -> u64 {
    let frame = Frame::new(&XdpContext::new(ctx));
    match add_up(&frame, offset as usize, length as usize, sum) {
        Some(sum) => u64::from(sum),
        None => OUT_OF_REACH,
    }
}

/// [`demux_sum`] of a frame in several buffers, which is copied for that, piece by piece.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_sum_buffers(
    ctx: *mut xdp_md,
    offset: u32,
    length: u32,
    sum: u32,
) -> u64 {
    let mut sum = u64::from(sum);
    let (mut at, mut left) = (offset, length);
    for _ in 0..=LONGEST_IN_BUFFERS / PIECE {
        if left < PIECE as u32 {
            break;
        }
        sum = demux_sum_piece(ctx, at, PIECE as u32, sum as u32);
        if sum == OUT_OF_REACH {
            return sum;
        }
        at = at.wrapping_add(PIECE as u32);
        left -= PIECE as u32;
    }
    match left {
        0 => sum,
        left => demux_sum_piece(ctx, at, left, sum as u32),
    }
}

/// One piece of it, of 1 to [`PIECE`] bytes. In a function of its own, lest the verifier follow the
/// turns of the loop for every length.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_sum_piece(
    ctx: *mut xdp_md,
    offset: u32,
    length: u32,
    sum: u32,
) -> u64 {
    let Some(piece) = maps::PIECE.get_ptr_mut(0) else {
        return OUT_OF_REACH;
    };
    // In a form in which the verifier of Linux 6.1 sees that it is neither 0 nor more than there is
    // room for; a comparison with 0 tells it nothing.
    let length = (length.wrapping_sub(1) & (PIECE as u32 - 1)) + 1;
    // Behind a short piece zeros are added.
    // SAFETY: the map has the value, and this CPU alone uses its copy.
    unsafe { *piece = [0; PIECE_WORDS] };
    // SAFETY: the value has room for the bytes, and the context is the program's own.
    if unsafe { bpf_xdp_load_bytes(ctx, offset, piece.cast(), length) } != 0 {
        return OUT_OF_REACH;
    }
    let nothing = core::ptr::null_mut();
    // SAFETY: the value is initialised, and there is nothing to be subtracted.
    let sum = unsafe { bpf_csum_diff(nothing, 0, piece.cast(), PIECE as u32, sum) };
    u64::from(sum as u32)
}

/// The longest packet in several buffers that is added up.
const LONGEST_IN_BUFFERS: usize = 0xffff;

const _: () = assert!(PIECE == PIECE_WORDS * 8);

/// The longest piece that the kernel adds up at once.
const PIECE: usize = 512;

/// How many such pieces a packet has at most.
const PIECES: usize = LONGEST / PIECE + 1;

#[inline(always)]
fn add_up(frame: &Frame, offset: usize, length: usize, mut sum: u32) -> Option<u32> {
    /// No packet is longer, and the verifier wants to see a bound. It is applied wherever the
    /// position moves, so that all ways to a place look alike to the verifier.
    const REACH: usize = LONGEST;

    let mut at = offset & REACH;
    let mut left = length;
    for _ in 0..PIECES {
        if left < PIECE {
            break;
        }
        sum = frame.sum_chunk::<PIECE>(at, sum)?;
        at = (at + PIECE) & REACH;
        left -= PIECE;
    }
    macro_rules! pieces {
        ($($length:literal)*) => { $(
            if left & $length != 0 {
                sum = frame.sum_chunk::<$length>(at, sum)?;
                at = (at + $length) & REACH;
            }
        )* };
    }
    pieces!(256 128 64 32 16 8 4);
    // The rest is no whole word.
    let mut rest = 0;
    if left & 2 != 0 {
        rest = u32::from(u16::from_ne_bytes(*frame.get::<2>(at)?));
        at = (at + 2) & REACH;
    }
    if left & 1 != 0 {
        // With the byte before it: the verifier learns nothing from a look at a single one.
        let [_, last] = *frame.get::<2>(at.wrapping_sub(1) & REACH)?;
        rest += u32::from(u16::from_ne_bytes([last, 0]));
    }
    let (sum, carried) = sum.overflowing_add(rest);
    // With a carry the sum is small.
    Some(sum + u32::from(carried))
}
