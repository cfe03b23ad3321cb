//! The TCP header (RFC 9293, section 3.1).

use core::mem::offset_of;

use network_types::tcp::TcpHdr;

use super::{Header as _, Payload};
use crate::{connection::ConnectionKey, packet::Packet, reason::Reason, tcp::Flags};

/// What the TCP header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Segment {
    /// SEG.SEQ.
    pub sequence: u32,
    /// SEG.ACK; it means something only with the control bit ACK.
    pub acknowledgement: u32,
    /// SEG.LEN: data bytes, and one each for SYN and FIN.
    pub length: u32,
    /// Bytes of the header with its options.
    pub header_len: u32,
    /// The control bits.
    pub flags: Flags,
}

/// Where the control bits stand.
const FLAGS: usize = offset_of!(TcpHdr, _bitfield_1) + 1;
/// Where the data offset stands.
const DATA_OFFSET: usize = offset_of!(TcpHdr, _bitfield_1);

/// Reads the TCP header of an IP packet into `segment`, and its ports into `key`: that of the sender is the
/// remote one.
///
/// # Errors
///
/// [`Reason::BadTcpHeader`] where the data offset is below five words or beyond the segment,
/// [`Reason::Truncated`] where the header is not within reach.
#[inline(always)]
pub fn read<P: Packet + ?Sized>(
    packet: &P,
    payload: &Payload,
    segment: &mut Segment,
    key: &mut ConnectionKey,
) -> Result<(), Reason> {
    if payload.len < TcpHdr::LEN {
        return Err(Reason::BadTcpHeader);
    }
    let Some(bytes) = packet.get::<{ TcpHdr::LEN }>(payload.offset) else {
        return Err(Reason::Truncated);
    };
    let header = TcpHdr::view(bytes);
    let header_len = usize::from(bytes[DATA_OFFSET] >> 4) * 4;
    if header_len < TcpHdr::LEN || header_len > payload.len {
        return Err(Reason::BadTcpHeader);
    }
    let flags = Flags(u32::from(bytes[FLAGS]));
    let data = (payload.len - header_len) as u32;
    key.remote_port = u16::from_be_bytes(header.source);
    key.local_port = u16::from_be_bytes(header.dest);
    segment.flags = flags;
    segment.sequence = u32::from_be_bytes(header.seq);
    segment.acknowledgement = u32::from_be_bytes(header.ack_seq);
    segment.header_len = header_len as u32;
    segment.length = data + flags.sequence_space();
    Ok(())
}
