//! Messages of netlink families that no crate knows, as bytes.

use std::convert::Infallible;

use netlink_packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator,
};

/// A message of any family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    /// The type in the netlink header.
    pub message_type: u16,
    /// What follows that header.
    pub payload: Vec<u8>,
}

impl NetlinkSerializable for RawMessage {
    fn message_type(&self) -> u16 {
        self.message_type
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

impl NetlinkDeserializable for RawMessage {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self {
            message_type: header.message_type,
            payload: payload.to_vec(),
        })
    }
}

/// The type and value of each attribute in `bytes`, up to the first that is damaged.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let end = attribute.length() as usize;
        Some((attribute.kind(), attribute.into_inner().get(4..end)?))
    })
}

/// The value of the first attribute of this type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// The text of an attribute, without the NUL at its end.
pub fn text(value: &[u8]) -> String {
    let end = value
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Appends an attribute, padded as netlink wants it.
pub fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(((value.len() + 4) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, 1, b"nat\0");
        push_attribute(&mut bytes, 2, b"x");
        push_attribute(&mut bytes, 1, b"");
        assert_eq!(bytes.len(), 8 + 8 + 4);
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(1, &b"nat\0"[..]), (2, b"x"), (1, b"")]);
        assert_eq!(text(attribute(&bytes, 1).unwrap()), "nat");
        assert_eq!(attribute(&bytes, 3), None);
    }

    #[test]
    fn damaged_attributes_end_the_list() {
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[9, 0, 1, 0, 0]).count(), 0);
        assert_eq!(attributes(&[4, 0, 1]).count(), 0);
    }
}
