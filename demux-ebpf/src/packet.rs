//! The one place that dereferences packet memory.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    helpers::{bpf_csum_diff, bpf_xdp_get_buff_len},
    programs::{TcContext, XdpContext},
};
use demux_common::packet::Packet;

/// The frame of a context, as it is now: helpers that move its head or tail end its life.
pub(crate) struct Frame {
    start: usize,
    end: usize,
    whole: Whole,
}

/// What tells the length of the whole frame.
enum Whole {
    /// The context of an XDP program, which is asked.
    Xdp(*mut xdp_md),
    /// It is known.
    Known(usize),
}

impl Frame {
    /// The frame of a context.
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
            whole: Whole::Xdp(ctx.as_ptr().cast()),
        }
    }

    /// The frame of a packet that leaves.
    #[inline(always)]
    pub(crate) fn of_skb(ctx: &TcContext) -> Self {
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
            whole: Whole::Known(ctx.len() as usize),
        }
    }

    /// The frame of the same context as it is after a helper has moved its head or tail.
    #[inline(always)]
    pub(crate) fn reload(&mut self, ctx: &XdpContext) {
        self.start = ctx.data();
        self.end = ctx.data_end();
    }

    /// Adds `N` bytes at `offset`, a multiple of four up to 512, to a sum of 16-bit words in memory
    /// order; `None` where the linear part has not all of them.
    #[inline(always)]
    pub(crate) fn sum_chunk<const N: usize>(&self, offset: usize, sum: u32) -> Option<u32> {
        let from = self.start + offset;
        if from + N > self.end {
            return None;
        }
        // SAFETY: just checked that the linear part holds `N` bytes there; there is nothing to be
        // subtracted.
        let sum =
            unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, from as *mut u32, N as u32, sum) };
        Some(sum as u32)
    }

    /// Copies a value out of the frame; `None` where it is shorter. Any bytes must be a value of `T`.
    #[inline(always)]
    pub(crate) fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        let from = self.start + offset;
        if from + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: just checked that the linear part holds the value, and the read does not ask for
        // alignment.
        Some(unsafe { (from as *const T).read_unaligned() })
    }

    /// Writes a value into the frame; does nothing where it is shorter.
    #[inline(always)]
    pub(crate) fn write_at<T: Copy>(&self, offset: usize, value: &T) {
        let to = self.start + offset;
        if to + size_of::<T>() <= self.end {
            // SAFETY: just checked that the frame holds that many bytes.
            unsafe { (to as *mut T).write_unaligned(*value) };
        }
    }

    /// Writes a value over the first bytes of the frame; does nothing where it is shorter.
    #[inline(always)]
    pub(crate) fn write<T: Copy>(&self, value: &T) {
        self.write_at(0, value);
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let from = self.start + offset;
        if from + N > self.end {
            return None;
        }
        // SAFETY: just checked that the linear part holds `N` bytes there, and an array of bytes
        // asks for no alignment.
        Some(unsafe { &*(from as *const [u8; N]) })
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        match self.whole {
            // SAFETY: the context is the program's own.
            Whole::Xdp(ctx) => (unsafe { bpf_xdp_get_buff_len(ctx) }) as usize,
            Whole::Known(len) => len,
        }
    }

    #[inline(always)]
    fn linear_len(&self) -> usize {
        self.end - self.start
    }
}
