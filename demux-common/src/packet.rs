//! What the parser needs of a packet: checked, fixed-size reads, and the whole length.

/// A frame that starts with its Ethernet header.
///
/// The only access is a checked read of a fixed number of bytes: one comparison per header,
/// which is the shape that the BPF verifier can follow.
pub trait Packet {
    /// The `N` bytes at `offset`, or `None` where they are not all within reach.
    ///
    /// In the kernel only the linear part of a multi-buffer packet is within reach.
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// The length of the whole frame in bytes, including what is not within reach of [`Packet::get`].
    /// May cost a call.
    fn frame_len(&self) -> usize;

    /// How many bytes are within reach of [`Packet::get`].
    fn linear_len(&self) -> usize;
}

impl Packet for [u8] {
    #[inline]
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }

    #[inline]
    fn frame_len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn linear_len(&self) -> usize {
        self.len()
    }
}
