//! Questions to sock_diag and its answers, as they are laid out in `linux/inet_diag.h`.
//!
//! The crate netlink-packet-sock-diag allocates for every answer and drops the time that a TIME-WAIT
//! socket has left.

use demux_common::{address::Address, protocol::Protocol};
use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, network_endian};

use super::States;
use crate::netlink::attribute;

/// The type of a question about one family, and of what answers it.
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// The attribute that says whether an IPv6 socket leaves IPv4 alone.
const SKV6ONLY: u16 = 11;

/// The families, as the kernel numbers them.
pub(super) const INET: u8 = libc::AF_INET as u8;
pub(super) const INET6: u8 = libc::AF_INET6 as u8;

/// `struct inet_diag_req_v2`.
#[derive(Debug, Clone, FromZeros, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    padding: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_sockid`; all zero, it stands for any socket.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct SocketId {
    pub(super) local_port: network_endian::U16,
    pub(super) remote_port: network_endian::U16,
    local: [u8; 16],
    remote: [u8; 16],
    pub(super) ifindex: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_msg`.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Message {
    pub(super) family: u8,
    pub(super) state: u8,
    pub(super) timer: u8,
    pub(super) retransmits: u8,
    pub(super) id: SocketId,
    pub(super) expires: u32,
    pub(super) receive_queue: u32,
    pub(super) send_queue: u32,
    pub(super) uid: u32,
    pub(super) inode: u32,
}

const _: () = assert!(size_of::<Request>() == 56 && size_of::<Message>() == 72);

/// A socket as the kernel describes it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) message: Message,
    pub(super) v6_only: Option<bool>,
}

impl Request {
    /// Every socket of one family and protocol that is in one of these states.
    pub(super) fn new(family: u8, protocol: Protocol, states: States) -> Self {
        Self {
            family,
            protocol: protocol.ip_number(),
            states: states.request(),
            ..Self::new_zeroed()
        }
    }

    /// Only those of one local port; 0 for every port.
    pub(super) fn at_port(mut self, port: u16) -> Self {
        self.id.local_port = port.into();
        self
    }
}

impl Message {
    pub(super) fn local(&self) -> Address {
        self.address(self.id.local)
    }

    pub(super) fn remote(&self) -> Address {
        self.address(self.id.remote)
    }

    /// An address of which IPv4 uses the first bytes only.
    fn address(&self, bytes: [u8; 16]) -> Address {
        match bytes {
            [a, b, c, d, ..] if self.family == INET => Address::from_v4([a, b, c, d]),
            bytes => Address::from_v6(bytes),
        }
    }
}

impl SocketId {
    pub(super) fn cookie(&self) -> u64 {
        let [low, high] = self.cookie;
        u64::from(high) << 32 | u64::from(low)
    }
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        SOCK_DIAG_BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        size_of::<Self>()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(self.as_bytes());
    }
}

impl NetlinkDeserializable for Answer {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (message, attributes) = Message::read_from_prefix(payload)
            .map_err(|_| DecodeError::buffer_too_small(payload.len(), size_of::<Message>()))?;
        let v6_only = attribute(attributes, SKV6ONLY).and_then(|value| value.first());
        Ok(Self {
            message,
            v6_only: v6_only.map(|&value| value != 0),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::netlink::push_attribute;

    /// What the kernel would say of a socket: the addresses as it writes them.
    pub(in super::super) fn answer(
        family: u8,
        state: u8,
        [local, remote]: [(&[u8], u16); 2],
    ) -> Answer {
        let mut message = Message::new_zeroed();
        message.family = family;
        message.state = state;
        message.id.local[..local.0.len()].copy_from_slice(local.0);
        message.id.local_port = local.1.into();
        message.id.remote[..remote.0.len()].copy_from_slice(remote.0);
        message.id.remote_port = remote.1.into();
        Answer {
            message,
            v6_only: None,
        }
    }

    #[test]
    fn the_attribute_is_found_and_a_short_message_is_refused() {
        let mut bytes = Message::new_zeroed().as_bytes().to_vec();
        let deserialize = |bytes: &[u8]| Answer::deserialize(&NetlinkHeader::default(), bytes);
        assert_eq!(deserialize(&bytes).unwrap().v6_only, None);
        push_attribute(&mut bytes, 8, &[0]);
        push_attribute(&mut bytes, SKV6ONLY, &[1]);
        assert_eq!(deserialize(&bytes).unwrap().v6_only, Some(true));
        assert!(deserialize(&bytes[..71]).is_err());
    }
}
