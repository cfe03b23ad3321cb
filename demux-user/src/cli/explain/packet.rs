//! The words that describe a packet.

use std::net::SocketAddr;

use demux_common::protocol::Protocol;

use super::super::unbind::protocol;
use crate::{Error, Result};

/// What the words ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) protocol: Protocol,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) is_out: bool,
}

impl Packet {
    /// Reads `tcp from ENDPOINT to ENDPOINT [in|out]`.
    pub(super) fn parse(words: &[String]) -> Result<Self> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (protocol_name, from, to, direction) = match words.as_slice() {
            [protocol, "from", from, "to", to] => (*protocol, *from, *to, "in"),
            [protocol, "from", from, "to", to, direction] => (*protocol, *from, *to, *direction),
            _ => {
                return Err(Error::invalid(
                    "packet",
                    words.join(" "),
                    "write: tcp|udp from ENDPOINT to ENDPOINT [in|out]",
                ));
            }
        };
        Ok(Self {
            protocol: protocol(protocol_name).ok_or_else(|| {
                Error::invalid("protocol", protocol_name, "a protocol is tcp or udp")
            })?,
            from: endpoint(from)?,
            to: endpoint(to)?,
            is_out: match direction {
                "in" => false,
                "out" => true,
                _ => return Err(Error::invalid("direction", direction, "it is in or out")),
            },
        })
    }
}

fn endpoint(text: &str) -> Result<SocketAddr> {
    text.parse().map_err(|_| {
        Error::invalid(
            "endpoint",
            text,
            "write an address and a port from 0 to 65535, such as 10.0.0.2:80 or [::1]:80; names are not resolved",
        )
    })
}
