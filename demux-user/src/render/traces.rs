//! Traced packets, one a row.

use demux_common::tcp::Flags;
use serde::Serialize;

use super::{
    events::{clock_of, rfc3339},
    list::{Column, Row, left, right},
};
use crate::listen::TraceRow;

/// A packet, with the fields of its JSON object.
#[derive(Clone, Debug, Serialize)]
pub struct TraceView {
    /// The time of day (RFC 3339).
    time: String,
    iface: String,
    cpu: u32,
    /// `in` or `out`.
    direction: &'static str,
    protocol: Option<&'static str>,
    local: Option<String>,
    remote: Option<String>,
    /// Control bits of a TCP segment, such as `syn,ack`.
    flags: Option<String>,
    sequence: Option<u32>,
    acknowledgement: Option<u32>,
    /// Bytes of the frame.
    length: u32,
    /// Segments that a packet which leaves will be cut into.
    segments: u32,
    /// As `explain` says it; for a packet that leaves `pass` and `egress`.
    verdict: &'static str,
    reason: &'static str,
    stage: Option<&'static str>,
    binding: Option<String>,
    target: Option<String>,
}

impl From<TraceRow> for TraceView {
    fn from(row: TraceRow) -> Self {
        let endpoints = row.endpoints;
        let segment = endpoints.and_then(|endpoints| endpoints.segment);
        let outcome = row.outcome;
        Self {
            time: rfc3339(row.time),
            iface: row.interface,
            cpu: row.cpu,
            direction: row.direction.name(),
            protocol: endpoints.map(|endpoints| endpoints.protocol.name()),
            local: endpoints.map(|endpoints| endpoints.local.to_string()),
            remote: endpoints.map(|endpoints| endpoints.remote.to_string()),
            flags: segment.map(|(flags, ..)| names(flags)),
            sequence: segment.map(|(_, sequence, _)| sequence),
            acknowledgement: segment.map(|(.., acknowledgement)| acknowledgement),
            length: row.length,
            segments: row.segments,
            verdict: outcome
                .as_ref()
                .map_or("pass", |outcome| outcome.verdict.name()),
            reason: outcome
                .as_ref()
                .map_or("egress", |outcome| outcome.reason.name()),
            stage: outcome.as_ref().map(|outcome| outcome.stage.name()),
            target: outcome.as_ref().map(|outcome| outcome.target.clone()),
            binding: outcome.and_then(|outcome| outcome.binding),
        }
    }
}

/// The names of control bits, in the order of RFC 9293.
fn names(flags: u8) -> String {
    const NAMES: [(u32, &str); 6] = [
        (Flags::SYN, "syn"),
        (Flags::FIN, "fin"),
        (Flags::RST, "rst"),
        (Flags::PSH, "psh"),
        (Flags::ACK, "ack"),
        (Flags::URG, "urg"),
    ];
    let names: Vec<_> = NAMES
        .into_iter()
        .filter(|(bit, _)| u32::from(flags) & bit != 0)
        .map(|(_, name)| name)
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(",")
    }
}

impl Row for TraceView {
    const NOUN: &'static str = "trace";
    const WIDTHS: &'static [u16] = &[15, 6, 3, 5, 21, 21, 7, 6, 8, 14, 13, 8];
    const COLUMNS: &'static [Column] = &[
        left("TIME"),
        left("IFACE"),
        left("DIR"),
        left("PROTO"),
        left("LOCAL"),
        left("REMOTE"),
        left("FLAGS"),
        right("LENGTH"),
        left("VERDICT"),
        left("REASON"),
        left("STAGE"),
        left("BINDING"),
        left("TARGET"),
    ];

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
        vec![
            clock_of(&self.time),
            self.iface.clone(),
            self.direction.into(),
            or_dash(self.protocol),
            or_dash(self.local.as_deref()),
            or_dash(self.remote.as_deref()),
            or_dash(self.flags.as_deref()),
            self.length.to_string(),
            self.verdict.into(),
            self.reason.into(),
            or_dash(self.stage),
            or_dash(self.binding.as_deref()),
            or_dash(self.target.as_deref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bits_have_names() {
        assert_eq!(names((Flags::SYN | Flags::ACK) as u8), "syn,ack");
        assert_eq!(names(0), "none");
    }
}
