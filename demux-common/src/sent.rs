//! What the owners of AF_XDP sockets report of the packets they send, which no hook of the kernel sees.
//!
//! Reports stand one behind the other in the packet of a test run of `demux_sent`, behind a
//! [`Preamble`]. Each is applied to the connection table as a packet that leaves.

pub use crate::command::Preamble;
use crate::{
    address::Family,
    connection::ConnectionKey,
    egress::{self, Departure},
    parse::Parsed,
    protocol::Protocol,
    tables::Tables,
    tcp::Flags,
    wire::{ethernet::Station, tcp::Segment},
};

/// How many reports fit into one run: with room for its headers the packet is one page.
pub const BATCH: usize = 32;

/// A packet that was sent.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Sent {
    /// The four-tuple: the source is local.
    pub key: ConnectionKey,
    /// The index of the interface by which it left.
    pub ifindex: u32,
    /// The version of IP.
    pub family: Family,
    /// The length of the frame in bytes.
    pub frame_len: u32,
    /// The length of all its headers in bytes.
    pub headers_len: u32,
    /// SEG.SEQ; 0 for UDP, as the three below.
    pub sequence: u32,
    /// SEG.ACK.
    pub acknowledgement: u32,
    /// SEG.LEN.
    pub length: u32,
    /// The control bits.
    pub flags: u32,
}

const _: () = assert!(size_of::<Sent>() == 72);

impl Sent {
    /// The report of a frame that was sent, as the parser read it: its destination taken for local.
    #[must_use]
    pub fn new(ifindex: u32, frame: &Parsed) -> Self {
        let mut frame = *frame;
        frame.turn();
        Self {
            key: frame.key,
            ifindex,
            family: frame.family,
            frame_len: frame.frame_len,
            headers_len: frame.headers_len,
            sequence: frame.segment.sequence,
            acknowledgement: frame.segment.acknowledgement,
            length: frame.segment.length,
            flags: frame.segment.flags.0,
        }
    }

    /// What the parser read, turned round.
    #[inline(always)]
    fn parsed(&self) -> Parsed {
        let header_len = match self.key.protocol {
            Protocol::Tcp => 20,
            Protocol::Udp => 0,
        };
        Parsed {
            key: self.key,
            segment: Segment {
                flags: Flags(self.flags),
                sequence: self.sequence,
                acknowledgement: self.acknowledgement,
                length: self.length,
                header_len,
            },
            station: Station::new([0; 6]),
            family: self.family,
            frame_len: self.frame_len,
            headers_len: self.headers_len,
        }
    }
}

/// Enters a packet that was sent into the connection table.
#[inline(always)]
pub fn enter<T: Tables>(tables: &T, sent: &Sent) {
    let departure = Departure {
        ifindex: sent.ifindex,
        segments: 1,
        is_forwarded: 0,
        is_reported: 1,
    };
    egress::enter(tables, &sent.parsed(), &departure);
}
