//! Connections, one a row.

use std::borrow::Cow;

use std::net::SocketAddr;

use demux_common::connection::State;
use serde::Serialize;

use super::{
    bytes,
    list::{Column, Row, left, right},
    milliseconds,
};
use crate::{connections, verify::Difference};

/// A connection, with the fields of its JSON object.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct ConnectionRow {
    pub(super) protocol: &'static str,
    pub(super) local: String,
    pub(super) local_address: String,
    pub(super) local_port: u16,
    pub(super) remote: String,
    pub(super) remote_address: String,
    pub(super) remote_port: u16,
    pub(super) state: &'static str,
    pub(super) direction: &'static str,
    pub(super) confirmed: bool,
    pub(super) binding: Option<String>,
    pub(super) target: Cow<'static, str>,
    pub(super) rx_packets: u64,
    pub(super) rx_bytes: u64,
    pub(super) tx_packets: u64,
    pub(super) tx_bytes: u64,
    pub(super) age_ms: u64,
    pub(super) idle_ms: u64,
    pub(super) expires_ms: u64,
    /// Where its packets were seen: `both`, `ingress`, `egress` or `nowhere`.
    pub(super) seen: &'static str,
}

impl From<connections::Row> for ConnectionRow {
    fn from(row: connections::Row) -> Self {
        let (local_address, local) = address_and_endpoint(row.local);
        let (remote_address, remote) = address_and_endpoint(row.remote);
        Self {
            protocol: row.protocol.name(),
            local,
            local_address,
            local_port: row.local.port(),
            remote,
            remote_address,
            remote_port: row.remote.port(),
            state: row.state.name(),
            direction: row.direction.name(),
            confirmed: row.is_confirmed,
            binding: row.binding,
            target: row.target,
            rx_packets: row.rx_packets,
            rx_bytes: row.rx_bytes,
            tx_packets: row.tx_packets,
            tx_bytes: row.tx_bytes,
            age_ms: row.age_ms,
            idle_ms: row.idle_ms,
            expires_ms: row.expires_ms,
            seen: row.seen.name(),
        }
    }
}

/// The address alone, and with its port. Formatting addresses is what a long list costs most.
fn address_and_endpoint(endpoint: SocketAddr) -> (String, String) {
    let address = endpoint.ip().to_string();
    let port = endpoint.port();
    let both = if endpoint.is_ipv4() {
        format!("{address}:{port}")
    } else {
        format!("[{address}]:{port}")
    };
    (address, both)
}

impl Row for ConnectionRow {
    const NOUN: &'static str = "connections";
    const COLUMNS: &'static [Column] = &[
        left("PROTO"),
        left("STATE"),
        left("DIR"),
        left("LOCAL"),
        left("REMOTE"),
        left("BINDING"),
        left("TARGET"),
        right("RX-PKTS"),
        right("RX-BYTES"),
        right("TX-PKTS"),
        right("TX-BYTES"),
        right("AGE"),
        right("IDLE"),
        right("EXPIRES"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.protocol.into(),
            self.state.into(),
            self.direction.into(),
            self.local.clone(),
            self.remote.clone(),
            self.binding.clone().unwrap_or_else(|| "-".into()),
            self.target.to_string(),
            self.rx_packets.to_string(),
            bytes(self.rx_bytes),
            self.tx_packets.to_string(),
            bytes(self.tx_bytes),
            milliseconds(self.age_ms),
            milliseconds(self.idle_ms),
            milliseconds(self.expires_ms),
        ]
    }
}

/// A TCP connection of which the table and the kernel say different things.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct DifferenceRow {
    protocol: &'static str,
    local: String,
    remote: String,
    /// The state in the table, if it has a row.
    state: Option<&'static str>,
    /// The state of the kernel's socket, if it has one.
    kernel_state: Option<&'static str>,
}

impl From<&Difference> for DifferenceRow {
    fn from(difference: &Difference) -> Self {
        Self {
            protocol: "tcp",
            local: difference.local.to_string(),
            remote: difference.remote.to_string(),
            state: difference.state.map(State::name),
            kernel_state: difference.kernel_state.map(State::name),
        }
    }
}

impl Row for DifferenceRow {
    const NOUN: &'static str = "connections";
    const COLUMNS: &'static [Column] = &[
        left("PROTO"),
        left("LOCAL"),
        left("REMOTE"),
        left("STATE"),
        left("KERNEL"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.protocol.into(),
            self.local.clone(),
            self.remote.clone(),
            self.state.unwrap_or("-").into(),
            self.kernel_state.unwrap_or("-").into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use demux_common::{
        connection::{Direction, State},
        protocol::Protocol,
    };

    use super::*;

    fn row() -> ConnectionRow {
        connections::Row {
            protocol: Protocol::Tcp,
            local: "[::1]:80".parse().unwrap(),
            remote: "[2001:db8::9]:40000".parse().unwrap(),
            state: State::Established,
            direction: Direction::In,
            is_confirmed: true,
            binding: Some("web".into()),
            target: "stack".into(),
            rx_packets: 3,
            rx_bytes: 2048,
            tx_packets: 0,
            tx_bytes: 0,
            age_ms: 61_000,
            idle_ms: 5,
            expires_ms: 8_000_000,
            seen: connections::Seen::Both,
        }
        .into()
    }

    #[test]
    fn the_json_object_has_the_promised_fields() {
        assert_eq!(
            serde_json::to_value(row()).unwrap(),
            serde_json::json!({
                "protocol": "tcp", "local": "[::1]:80", "local_address": "::1", "local_port": 80,
                "remote": "[2001:db8::9]:40000", "remote_address": "2001:db8::9", "remote_port": 40000,
                "state": "ESTABLISHED", "direction": "in", "confirmed": true, "binding": "web",
                "target": "stack", "rx_packets": 3, "rx_bytes": 2048, "tx_packets": 0, "tx_bytes": 0,
                "age_ms": 61000, "idle_ms": 5, "expires_ms": 8000000, "seen": "both",
            })
        );
    }

    #[test]
    fn every_column_has_its_cell() {
        assert_eq!(row().cells().len(), ConnectionRow::COLUMNS.len());
    }
}
