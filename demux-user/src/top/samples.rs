//! Samples that tests have made up.

use std::time::Duration;

use demux_common::{
    binding::NAME_LEN,
    connection::{Direction, State},
    protocol::Protocol,
    reason::{Count, Verdict},
};

use super::{
    BindingLine, ConnectionLine, CounterLine, Facts, Figures, InterfaceFact, Model, Rates,
    Settings, Snapshot, Sort, VerdictFact, View,
};
use crate::connections::{Row, Seen};

/// A connection to port 80, which is the binding `web`'s, from a host with this number.
pub(crate) fn connection(number: u8, rx_packets: f64) -> ConnectionLine {
    let mut name = [0; NAME_LEN];
    name[..3].copy_from_slice(b"web");
    let row = Row {
        protocol: Protocol::Tcp,
        local: "10.0.0.2:80".parse().unwrap(),
        remote: format!("192.0.2.{number}:40000").parse().unwrap(),
        state: if number == 3 {
            State::TimeWait
        } else {
            State::Established
        },
        direction: Direction::In,
        is_confirmed: true,
        binding: Some("web".into()),
        target: "stack".into(),
        rx_packets: 10,
        rx_bytes: 2048,
        tx_packets: 5,
        tx_bytes: 100,
        age_ms: 61_000 + u64::from(number),
        idle_ms: 5,
        expires_ms: 8_000_000,
        seen: Seen::Both,
    };
    ConnectionLine {
        figures: Figures {
            protocol: row.protocol,
            direction: row.direction,
            local: row.local,
            remote: row.remote,
            state: row.state,
            binding: name,
            target: 0,
            rates: Some(Rates {
                rx_packets,
                rx_bytes: 100.0 * rx_packets,
                ..Rates::default()
            }),
            packets: 15,
            rx_bytes: row.rx_bytes,
            tx_bytes: row.tx_bytes,
            age_ms: row.age_ms,
            idle_ms: row.idle_ms,
            expires_ms: row.expires_ms,
        },
        row,
    }
}

/// A sample with these connections, a binding and a counter.
pub(crate) fn snapshot(connections: Vec<ConnectionLine>) -> Snapshot {
    let mut facts = Facts {
        netns: "blue".into(),
        interfaces: vec![InterfaceFact {
            name: "eth0".into(),
            mode: "native",
            default: "drop",
        }],
        max_connections: 1000,
        connections: connections.len() as u64,
        confirmed: 1,
        max_bindings: 4095,
        verdicts: Verdict::ALL
            .map(|verdict| VerdictFact {
                verdict,
                packets: 7,
                rate: Some(1500.0 * f64::from(verdict as u8)),
            })
            .to_vec(),
        untracked_rate: Some(0.0),
        displaced_rate: Some(0.0),
        ..Facts::default()
    };
    for line in &connections {
        facts.states[line.row.state as usize] += 1;
    }
    Snapshot {
        elapsed: Some(Duration::from_secs(1)),
        facts,
        matching: connections.len() as u64,
        connections,
        bindings: vec![BindingLine {
            name: "web".into(),
            protocol: Protocol::Tcp,
            local: "10.0.0.2:80".into(),
            dev: None,
            target: "stack".into(),
            count: Count {
                packets: 123_456,
                bytes: 2048,
            },
            rates: Some((7.0, 700.0)),
            connections: 3,
        }],
        counters: vec![CounterLine {
            iface: Some("eth0".into()),
            verdict: Some(Verdict::Drop),
            reason: "default",
            count: Count {
                packets: 9,
                bytes: 540,
            },
            rates: None,
        }],
    }
}

/// A model of connections that has taken a sample with three of them, the second being the busiest.
pub(crate) fn model() -> Model {
    let mut model = Model::new(Settings {
        view: View::Connections,
        sort: Sort::initial(View::Connections),
        filter: String::new(),
        limit: 100,
        interval: Duration::from_secs(1),
    })
    .unwrap();
    let connections = vec![connection(1, 5.0), connection(2, 90.0), connection(3, 0.0)];
    model.take(Ok(snapshot(connections))).unwrap();
    model
}
