//! The live view for programs.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use demux_common::{connection::State, reason::Verdict};
use serde::Serialize;

use super::text::on_a_line;
use crate::{
    render::{ConnectionRow, Format, List},
    top::{BindingLine, ConnectionLine, CounterLine, Model, Rates, Snapshot},
};

/// A sample. Rates are numbers a second, and null where they are not known.
#[derive(Debug, Serialize)]
struct TopItem<'s> {
    /// RFC 3339.
    time: String,
    /// Milliseconds since the sample before.
    interval_ms: Option<u64>,
    instance: Instance<'s>,
    /// The first of them, in the order that was asked for.
    connections: Vec<ConnectionItem>,
    /// How many the filter matches.
    matching: u64,
    bindings: Vec<BindingItem<'s>>,
    counters: Vec<CounterItem<'s>>,
}

#[derive(Debug, Serialize)]
struct Instance<'s> {
    netns: &'s str,
    interfaces: Vec<InterfaceItem<'s>>,
    max_connections: u32,
    connections: u64,
    confirmed: u64,
    states: Vec<StateItem>,
    verdicts: Vec<VerdictItem>,
    untracked: u64,
    untracked_per_s: Option<f64>,
    displaced: u64,
    displaced_per_s: Option<f64>,
    bindings: u64,
    max_bindings: u32,
}

#[derive(Debug, Serialize)]
struct InterfaceItem<'s> {
    name: &'s str,
    mode: &'static str,
    default: &'static str,
}

#[derive(Debug, Serialize)]
struct StateItem {
    state: &'static str,
    connections: u64,
}

#[derive(Debug, Serialize)]
struct VerdictItem {
    verdict: &'static str,
    packets: u64,
    packets_per_s: Option<f64>,
}

#[derive(Debug, Serialize)]
struct ConnectionItem {
    #[serde(flatten)]
    row: ConnectionRow,
    rx_packets_per_s: Option<f64>,
    rx_bytes_per_s: Option<f64>,
    tx_packets_per_s: Option<f64>,
    tx_bytes_per_s: Option<f64>,
}

#[derive(Debug, Serialize)]
struct BindingItem<'s> {
    name: &'s str,
    protocol: &'static str,
    local: &'s str,
    dev: Option<&'s str>,
    target: &'s Cow<'static, str>,
    packets: u64,
    bytes: u64,
    packets_per_s: Option<f64>,
    bytes_per_s: Option<f64>,
    connections: u64,
}

#[derive(Debug, Serialize)]
struct CounterItem<'s> {
    iface: Option<&'s str>,
    verdict: Option<&'static str>,
    reason: &'static str,
    packets: u64,
    bytes: u64,
    packets_per_s: Option<f64>,
    bytes_per_s: Option<f64>,
}

/// Writes a sample as a document of the schema `demux.v1.top`, or its item alone, on a line.
///
/// # Errors
///
/// Where the writer fails.
pub fn write_top_document(
    model: &Model,
    time: String,
    format: Format,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Some(snapshot) = model.snapshot() else {
        return Ok(());
    };
    let mut list = List::new(out, on_a_line(format), "top", &[]);
    list.push_with(&item(snapshot, time), Vec::new)?;
    list.finish()
}

fn item(snapshot: &Snapshot, time: String) -> TopItem<'_> {
    let facts = &snapshot.facts;
    TopItem {
        time,
        interval_ms: snapshot.elapsed.map(|elapsed| elapsed.as_millis() as u64),
        instance: Instance {
            netns: &facts.netns,
            interfaces: facts
                .interfaces
                .iter()
                .map(|interface| InterfaceItem {
                    name: &interface.name,
                    mode: interface.mode,
                    default: interface.default,
                })
                .collect(),
            max_connections: facts.max_connections,
            connections: facts.connections,
            confirmed: facts.confirmed,
            states: State::ALL
                .iter()
                .map(|&state| StateItem {
                    state: state.name(),
                    connections: facts.states[state as usize],
                })
                .filter(|state| state.connections > 0)
                .collect(),
            verdicts: facts
                .verdicts
                .iter()
                .map(|fact| VerdictItem {
                    verdict: fact.verdict.name(),
                    packets: fact.packets,
                    packets_per_s: fact.rate,
                })
                .collect(),
            untracked: facts.untracked,
            untracked_per_s: facts.untracked_rate,
            displaced: facts.displaced,
            displaced_per_s: facts.displaced_rate,
            bindings: snapshot.bindings.len() as u64,
            max_bindings: facts.max_bindings,
        },
        connections: snapshot.connections.iter().map(connection).collect(),
        matching: snapshot.matching,
        bindings: snapshot.bindings.iter().map(binding).collect(),
        counters: snapshot.counters.iter().map(counter).collect(),
    }
}

fn connection(line: &ConnectionLine) -> ConnectionItem {
    let rate = |of: fn(&Rates) -> f64| line.figures.rates.as_ref().map(of);
    ConnectionItem {
        row: line.row.clone().into(),
        rx_packets_per_s: rate(|rates| rates.rx_packets),
        rx_bytes_per_s: rate(|rates| rates.rx_bytes),
        tx_packets_per_s: rate(|rates| rates.tx_packets),
        tx_bytes_per_s: rate(|rates| rates.tx_bytes),
    }
}

fn binding(line: &BindingLine) -> BindingItem<'_> {
    BindingItem {
        name: &line.name,
        protocol: line.protocol.name(),
        local: &line.local,
        dev: line.dev.as_deref(),
        target: &line.target,
        packets: line.count.packets,
        bytes: line.count.bytes,
        packets_per_s: line.rates.map(|(packets, _)| packets),
        bytes_per_s: line.rates.map(|(_, bytes)| bytes),
        connections: line.connections,
    }
}

fn counter(line: &CounterLine) -> CounterItem<'_> {
    CounterItem {
        iface: line.iface.as_deref(),
        verdict: line.verdict.map(Verdict::name),
        reason: line.reason,
        packets: line.count.packets,
        bytes: line.count.bytes,
        packets_per_s: line.rates.map(|(packets, _)| packets),
        bytes_per_s: line.rates.map(|(_, bytes)| bytes),
    }
}
