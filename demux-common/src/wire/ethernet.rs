//! Ethernet II with up to two VLAN tags (IEEE 802.1Q and 802.1ad).

use network_types::{
    eth::{EthHdr, EtherType},
    vlan::VlanHdr,
};

use super::Header as _;
use crate::{packet::Packet, reason::Reason};

/// A MAC address, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station(u64);

impl Station {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self::new([0xff; 6]);

    /// The station with this MAC address.
    #[inline(always)]
    #[must_use]
    pub const fn new(mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        let first = u32::from_le_bytes([a, b, c, d]);
        Self(first as u64 | ((u16::from_le_bytes([e, f]) as u64) << 32))
    }

    /// The station in the first six bytes of a little-endian word.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word & 0xffff_ffff_ffff)
    }

    /// Whether this is a group of stations.
    #[inline(always)]
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0 & 1 != 0
    }
}

/// What stands behind the Ethernet header and its VLAN tags.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The station that the frame is addressed to.
    pub destination: Station,
    /// EtherType of the payload, in wire order as in [`EtherType`].
    pub ether_type: u16,
    /// Where the payload starts: 14, 18 or 22.
    pub payload: usize,
}

/// Reads the Ethernet header and at most two VLAN tags.
///
/// # Errors
///
/// [`Reason::Truncated`], or [`Reason::VlanDepth`] where a third tag follows.
#[inline(always)]
pub fn read<P: Packet + ?Sized>(packet: &P) -> Result<Frame, Reason> {
    let Some(header) = EthHdr::read(packet, 0) else {
        return Err(Reason::Truncated);
    };
    let mut frame = Frame {
        destination: Station::new(header.dst_addr),
        ether_type: header.ether_type,
        payload: EthHdr::LEN,
    };
    if !is_vlan(frame.ether_type) {
        return Ok(frame);
    }
    frame.pop_tag(packet)?;
    if !is_vlan(frame.ether_type) {
        return Ok(frame);
    }
    frame.pop_tag(packet)?;
    if is_vlan(frame.ether_type) {
        return Err(Reason::VlanDepth);
    }
    Ok(frame)
}

impl Frame {
    #[inline(always)]
    fn pop_tag<P: Packet + ?Sized>(&mut self, packet: &P) -> Result<(), Reason> {
        let Some(tag) = VlanHdr::read(packet, self.payload) else {
            return Err(Reason::Truncated);
        };
        self.ether_type = tag.ether_type;
        self.payload += VlanHdr::LEN;
        Ok(())
    }
}

#[inline(always)]
const fn is_vlan(ether_type: u16) -> bool {
    ether_type == EtherType::Ieee8021q as u16 || ether_type == EtherType::Ieee8021ad as u16
}
