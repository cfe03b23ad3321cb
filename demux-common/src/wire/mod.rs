//! Reading headers: the layouts come from `network-types`, the checks are here.
//!
//! Each header is read once, through one checked fixed-size array.

pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod loose;
pub mod tcp;
pub mod udp;

use crate::packet::Packet;

/// The payload of an IP packet, once the lengths of its headers were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The protocol number, behind any extension headers.
    pub protocol: u8,
    /// Where the transport header starts, from the start of the frame.
    pub offset: usize,
    /// Bytes of transport header and data.
    pub len: usize,
}

/// A header of fixed size for which every bit pattern is a value.
///
/// # Safety
///
/// Implementors consist of integers and arrays of integers only.
pub(crate) unsafe trait Header: Copy {
    /// The bytes of the header.
    type Bytes;

    /// The header that these bytes are.
    fn view(bytes: &Self::Bytes) -> Self;

    /// Reads the header at `offset`, or `None` where the packet does not reach that far.
    fn read<P: Packet + ?Sized>(packet: &P, offset: usize) -> Option<Self>;
}

macro_rules! header {
    ($($type:ty),*) => { $(
        // SAFETY: network-types declares these as `repr(C)` structures of integers and byte arrays.
        unsafe impl Header for $type {
            type Bytes = [u8; size_of::<$type>()];

            #[inline(always)]
            fn view(bytes: &Self::Bytes) -> Self {
                // SAFETY: the array has the size of the type, any bytes are a value of it,
                // and the read does not ask for alignment.
                unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() }
            }

            #[inline(always)]
            fn read<P: Packet + ?Sized>(packet: &P, offset: usize) -> Option<Self> {
                packet.get::<{ size_of::<$type>() }>(offset).map(Self::view)
            }
        }
    )* };
}

header!(
    network_types::eth::EthHdr,
    network_types::vlan::VlanHdr,
    network_types::ip::Ipv4Hdr,
    network_types::ip::Ipv6Hdr,
    network_types::tcp::TcpHdr,
    network_types::udp::UdpHdr
);
