//! What owners and the daemon say to each other: one JSON object a message, over a Unix socket that keeps
//! messages apart (SOCK_SEQPACKET), with descriptors beside them where that is said.
//!
//! ```text
//! owner   {"version":1,"request":"open","set":"web","interfaces":["eth0"],"ring_size":2048,
//!          "chunk_size":4096,"multi_buffer":true}
//! daemon  {"version":1,"reply":"opened","longest_frame":61440,"chunk_size":4096,"chunks":4096,
//!          "ring_size":2048,"queues":[{"interface":"eth0","ifindex":2,"queue":0,"zero_copy":false}]}
//!         and for each queue, in order, the region (see [`crate::xsk::region`]) and a socket: each side
//!         wakes the other by writing a byte to it
//! owner   {"version":1,"request":"statistics"}
//! daemon  {"version":1,"reply":"statistics","queues":[…]}
//! daemon  {"version":1,"reply":"error","code":"permission_denied","status":4,"message":"…","hint":"…"}
//! ```
//!
//! The daemon answers every request, in order. The connection is the owner's life: when it ends, so does
//! the set. The daemon may send an error unasked, and then ends the connection: the set was lost.

use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::transport::MAX_MESSAGE;
use crate::{Error, Result};

/// The version of this protocol. A message of another one is answered with an error.
pub const VERSION: u64 = 1;

/// What an owner asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// To own a set, with sockets that the daemon holds.
    Open(Open),
    /// To own a set, with sockets of the owner's. One message for each socket, which comes with it.
    Register(Register),
    /// What has happened on the queues of the connection's set.
    Statistics,
}

/// See [`Request::Open`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// The name of the set.
    pub set: String,
    /// The names of the interfaces; all their receive queues are meant.
    pub interfaces: Vec<String>,
    /// How many slots each ring has, a power of two.
    pub ring_size: u32,
    /// Bytes of a chunk, 2048 or 4096.
    pub chunk_size: u32,
    /// Whether frames may take several chunks.
    pub multi_buffer: bool,
}

/// See [`Request::Register`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// The name of the set.
    pub set: String,
    /// The name of the interface that the socket is bound to.
    pub interface: String,
    /// The queue that it is bound to.
    pub queue: u32,
    /// Bytes of the longest frame that it takes. Longer ones go to the fallback of their binding.
    pub longest_frame: u32,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The set is open.
    Opened(Opened),
    /// The socket is in its place.
    Registered,
    /// What has happened on each queue, in the order of [`Opened::queues`].
    Statistics {
        /// One for each queue.
        queues: Vec<Statistics>,
    },
    /// The request was refused, or the set was lost.
    Error(Refusal),
}

/// See [`Reply::Opened`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Bytes of the longest frame that can be received and sent.
    pub longest_frame: u32,
    /// Bytes of a chunk.
    pub chunk_size: u32,
    /// How many chunks each region has.
    pub chunks: u32,
    /// How many slots each ring has.
    pub ring_size: u32,
    /// The queues. Two descriptors come for each.
    pub queues: Vec<OpenedQueue>,
}

/// A queue of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedQueue {
    /// The name of its interface.
    pub interface: String,
    /// The index of its interface.
    pub ifindex: u32,
    /// Its number.
    pub queue: u32,
    /// Whether the driver and the daemon share the memory of frames.
    pub zero_copy: bool,
}

/// What has happened on a queue: as `struct xdp_statistics`, and what only the daemon counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// Frames that the owner was given.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that were sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Arrived frames that were too long, or that the daemon had no memory for.
    pub rx_dropped: u64,
    /// Addresses in the fill ring that were none.
    pub rx_invalid: u64,
    /// Arrived frames for which the rx ring had no room.
    pub rx_ring_full: u64,
    /// Arrived frames for which the fill ring had no chunk.
    pub fill_ring_empty: u64,
    /// Descriptors in the tx ring that were none.
    pub tx_invalid: u64,
    /// Frames that the owner may not send: whose source is not the set's.
    pub tx_refused: u64,
}

/// See [`Reply::Error`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// As [`Error::code`].
    pub code: String,
    /// As [`Error::exit_status`].
    pub status: u8,
    /// The error in one line.
    pub message: String,
    /// As [`Error::hint`].
    pub hint: String,
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code().to_owned(),
            status: error.exit_status(),
            message: error.to_string(),
            hint: error.hint().unwrap_or_default(),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused {
            code: refusal.code,
            status: refusal.status,
            message: refusal.message,
            hint: refusal.hint,
        }
    }
}

/// Writes a message.
///
/// # Errors
///
/// Where it would be longer than a message may be.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>> {
    let failed = |source: io::Error| Error::io("write a message for the daemon's socket", source);
    let mut fields = Map::new();
    fields.insert("version".into(), VERSION.into());
    match serde_json::to_value(message).map_err(|error| failed(error.into()))? {
        Value::Object(body) => fields.extend(body),
        other => unreachable!("messages are objects, not {other}"),
    }
    let bytes = serde_json::to_vec(&fields).map_err(|error| failed(error.into()))?;
    if bytes.len() > MAX_MESSAGE {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

/// Reads a message.
///
/// # Errors
///
/// [`Error::InvalidMessage`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let invalid = |reason: String| Error::InvalidMessage { reason };
    let mut fields: Map<String, Value> = serde_json::from_slice(bytes)
        .map_err(|error| invalid(format!("it is no JSON object: {error}")))?;
    match fields.remove("version") {
        Some(version) if version == VERSION => {}
        Some(version) => {
            return Err(invalid(format!(
                "it is of version {version}, and {VERSION} is spoken here"
            )));
        }
        None => return Err(invalid("it has no version".into())),
    }
    serde_json::from_value(Value::Object(fields)).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let open = Request::Open(Open {
            set: "web".into(),
            interfaces: vec!["eth0".into()],
            ring_size: 2048,
            chunk_size: 4096,
            multi_buffer: true,
        });
        for request in [open, Request::Statistics] {
            let bytes = encode(&request).unwrap();
            assert_eq!(decode::<Request>(&bytes).unwrap(), request);
        }
        let reply = Reply::Statistics {
            queues: vec![Statistics::default(); 64],
        };
        let bytes = encode(&reply).unwrap();
        assert_eq!(decode::<Reply>(&bytes).unwrap(), reply);
    }

    #[test]
    fn errors_reach_the_other_side_whole() {
        let error = Error::UnknownInterface("eth9".into());
        let there = encode(&Reply::Error(Refusal::from(&error))).unwrap();
        let Reply::Error(refusal) = decode(&there).unwrap() else {
            panic!("an error");
        };
        let here = Error::from(refusal);
        assert_eq!(here.to_string(), error.to_string());
        assert_eq!(here.code(), error.code());
        assert_eq!(here.exit_status(), error.exit_status());
        assert_eq!(here.hint(), error.hint());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let largest = format!(
            "{{\"version\":1,\"request\":{}",
            "[".repeat(MAX_MESSAGE / 2)
        );
        for (text, word) in [
            ("", "JSON"),
            ("[1]", "JSON"),
            ("{\"version\":1", "JSON"),
            (&largest, "JSON"),
            ("{}", "version"),
            (r#"{"version":2,"request":"statistics"}"#, "version 2"),
            (r#"{"version":"1","request":"statistics"}"#, "version"),
            (r#"{"version":1}"#, "request"),
            (r#"{"version":1,"request":"close"}"#, "close"),
            (r#"{"version":1,"request":"open"}"#, "set"),
            (
                r#"{"version":1,"request":"register","set":"a","interface":"b","queue":-1,"longest_frame":1}"#,
                "-1",
            ),
            (
                r#"{"version":1,"request":"register","set":"a","interface":"b","queue":1,"longest_frame":1,"more":1}"#,
                "more",
            ),
        ] {
            match decode::<Request>(text.as_bytes()) {
                Err(Error::InvalidMessage { reason }) => {
                    assert!(reason.contains(word), "{text}: {reason}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
