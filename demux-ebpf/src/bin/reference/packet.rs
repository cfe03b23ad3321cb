//! Frames whose headers lie where they lie in most: Ethernet without tags, IP without options, TCP.

use aya_ebpf::programs::XdpContext;

/// Offsets in a frame.
pub(crate) const ETHER_TYPE: usize = 12;
pub(crate) const IPV4: usize = 14;
pub(crate) const IPV4_PROTOCOL: usize = IPV4 + 9;
pub(crate) const IPV4_ADDRESSES: usize = IPV4 + 12;
pub(crate) const IPV4_TCP: usize = IPV4 + 20;
pub(crate) const IPV6: usize = 14;
pub(crate) const IPV6_NEXT_HEADER: usize = IPV6 + 6;
pub(crate) const IPV6_ADDRESSES: usize = IPV6 + 8;
pub(crate) const IPV6_TCP: usize = IPV6 + 40;

const TCP: u8 = 6;
const TCP_HEADER: usize = 20;
pub(crate) const ETHER_TYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHER_TYPE_IPV6: u16 = 0x86dd_u16.to_be();
const VERSION_4_WITHOUT_OPTIONS: u8 = 0x45;

/// The four-tuple of a segment in wire order, in whole words: addresses, and then ports in the
/// first half of a word, as `struct bpf_sock_tuple` has them.
pub(crate) enum Tuple {
    V4([u64; 2]),
    V6([u64; 5]),
}

/// Reads the four-tuple; `None` of every other frame.
#[inline(always)]
pub(crate) fn tuple(ctx: &XdpContext) -> Option<Tuple> {
    match read::<u16>(ctx, ETHER_TYPE)? {
        ETHER_TYPE_IPV4 => {
            holds(ctx, IPV4_TCP + TCP_HEADER)?;
            if read::<u8>(ctx, IPV4)? != VERSION_4_WITHOUT_OPTIONS
                || read::<u8>(ctx, IPV4_PROTOCOL)? != TCP
            {
                return None;
            }
            let ports = u64::from(read::<u32>(ctx, IPV4_TCP)?);
            Some(Tuple::V4([read(ctx, IPV4_ADDRESSES)?, ports]))
        }
        ETHER_TYPE_IPV6 => {
            holds(ctx, IPV6_TCP + TCP_HEADER)?;
            if read::<u8>(ctx, IPV6_NEXT_HEADER)? != TCP {
                return None;
            }
            Some(Tuple::V6([
                read(ctx, IPV6_ADDRESSES)?,
                read(ctx, IPV6_ADDRESSES + 8)?,
                read(ctx, IPV6_ADDRESSES + 16)?,
                read(ctx, IPV6_ADDRESSES + 24)?,
                u64::from(read::<u32>(ctx, IPV6_TCP)?),
            ]))
        }
        _ => None,
    }
}

/// Reads a number as it lies in the frame.
#[inline(always)]
pub(crate) fn read<T: Copy>(ctx: &XdpContext, offset: usize) -> Option<T> {
    holds(ctx, offset + size_of::<T>())?;
    // SAFETY: just checked; numbers have no invalid values, and packets no alignment.
    Some(unsafe { ((ctx.data() + offset) as *const T).read_unaligned() })
}

/// Writes a number into the frame.
#[inline(always)]
pub(crate) fn write<T>(ctx: &XdpContext, offset: usize, value: T) -> Option<()> {
    holds(ctx, offset + size_of::<T>())?;
    // SAFETY: as for `read`.
    unsafe { ((ctx.data() + offset) as *mut T).write_unaligned(value) };
    Some(())
}

#[inline(always)]
fn holds(ctx: &XdpContext, length: usize) -> Option<()> {
    (ctx.data() + length <= ctx.data_end()).then_some(())
}
