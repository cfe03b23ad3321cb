//! What columns are called, how wide they are, and what stands in them.

use super::amount::{amount, byte_amount, rate};
use crate::{
    render::{milliseconds, printable},
    top::{BindingLine, Column, ConnectionLine, CounterLine, Rates, Snapshot, View},
};

/// How a column is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) title: &'static str,
    /// Whether its cells stand at its right edge.
    pub(super) is_right: bool,
    /// Fewer columns of the screen than this are of no use to it.
    pub(super) least: u16,
    /// It never has more.
    pub(super) most: u16,
    /// The lower, the sooner it is given room.
    pub(super) priority: u8,
}

const fn left(title: &'static str, least: u16, most: u16, priority: u8) -> Look {
    Look {
        title,
        is_right: false,
        least,
        most,
        priority,
    }
}

const fn right(title: &'static str, width: u16, priority: u8) -> Look {
    Look {
        title,
        is_right: true,
        least: width,
        most: width,
        priority,
    }
}

/// Two IPv6 addresses of some length, and what else fits a screen of 200 columns.
const ENDPOINT: u16 = 47;

/// The look of a column in a view.
pub(super) const fn look(view: View, column: Column) -> Look {
    match (view, column) {
        (_, Column::Protocol) => left("PROTO", 5, 5, 11),
        (_, Column::Direction) => left("DIR", 3, 3, 13),
        (View::Bindings, Column::Local) => left("LOCAL", 12, ENDPOINT, 1),
        (_, Column::Local) => left("LOCAL", 13, ENDPOINT, 0),
        (_, Column::Remote) => left("REMOTE", 16, ENDPOINT, 1),
        (_, Column::State) => left("STATE", 12, 12, 3),
        (View::Bindings, Column::Binding) => left("NAME", 10, 32, 0),
        (_, Column::Binding) => left("BINDING", 7, 32, 6),
        (_, Column::Target) => left("TARGET", 6, 24, 10),
        (_, Column::PacketRate) => right("PKT/S", 6, 2),
        (_, Column::RxRate) => right("IN/S", 6, 4),
        (_, Column::TxRate) => right("OUT/S", 6, 5),
        (_, Column::ByteRate) => right("BYTES/S", 7, 3),
        (_, Column::Packets) => right("PACKETS", 7, 8),
        (_, Column::RxBytes) => right("IN", 6, 9),
        (_, Column::TxBytes) => right("OUT", 6, 9),
        (_, Column::Bytes) => right("BYTES", 6, 9),
        (_, Column::Age) => right("AGE", 6, 7),
        (_, Column::Idle) => right("IDLE", 6, 12),
        (_, Column::Expires) => right("EXPIRES", 7, 14),
        (_, Column::Device) => left("DEV", 5, 15, 12),
        (_, Column::Connections) => right("CONNS", 6, 4),
        (_, Column::Interface) => left("IFACE", 6, 15, 1),
        (_, Column::Verdict) => left("VERDICT", 8, 8, 2),
        (_, Column::Reason) => left("REASON", 12, 24, 0),
    }
}

/// What a row of a view shows in a column.
pub(super) fn cell(snapshot: &Snapshot, view: View, place: usize, column: Column) -> String {
    match view {
        View::Connections => connection(&snapshot.connections[place], column),
        View::Bindings => binding(&snapshot.bindings[place], column),
        View::Counters => counter(&snapshot.counters[place], column),
    }
}

fn connection(line: &ConnectionLine, column: Column) -> String {
    let ConnectionLine { row, figures } = line;
    let known = |of: fn(&Rates) -> f64| figures.rates.as_ref().map(of);
    match column {
        Column::Protocol => row.protocol.name().into(),
        Column::Direction => row.direction.name().into(),
        Column::Local => row.local.to_string(),
        Column::Remote => row.remote.to_string(),
        Column::State => row.state.name().into(),
        Column::Binding => row
            .binding
            .as_deref()
            .map_or_else(dash, |name| printable(name).into_owned()),
        Column::Target => printable(&row.target).into_owned(),
        Column::PacketRate => rate(known(Rates::packets), amount),
        Column::RxRate => rate(known(|rates| rates.rx_bytes), byte_amount),
        Column::TxRate => rate(known(|rates| rates.tx_bytes), byte_amount),
        Column::Packets => amount(figures.packets as f64),
        Column::RxBytes => byte_amount(figures.rx_bytes as f64),
        Column::TxBytes => byte_amount(figures.tx_bytes as f64),
        Column::Age => milliseconds(figures.age_ms),
        Column::Idle => milliseconds(figures.idle_ms),
        Column::Expires => milliseconds(figures.expires_ms),
        _ => dash(),
    }
}

fn binding(line: &BindingLine, column: Column) -> String {
    match column {
        Column::Binding => printable(&line.name).into_owned(),
        Column::Protocol => line.protocol.name().into(),
        Column::Local => line.local.clone(),
        Column::Device => line
            .dev
            .as_deref()
            .map_or_else(dash, |name| printable(name).into_owned()),
        Column::Target => printable(&line.target).into_owned(),
        Column::PacketRate => rate(line.rates.map(|(packets, _)| packets), amount),
        Column::ByteRate => rate(line.rates.map(|(_, bytes)| bytes), byte_amount),
        Column::Connections => amount(line.connections as f64),
        Column::Packets => amount(line.count.packets as f64),
        Column::Bytes => byte_amount(line.count.bytes as f64),
        _ => dash(),
    }
}

fn counter(line: &CounterLine, column: Column) -> String {
    match column {
        Column::Interface => line
            .iface
            .as_deref()
            .map_or_else(dash, |name| printable(name).into_owned()),
        Column::Verdict => line
            .verdict
            .map_or_else(dash, |verdict| verdict.name().into()),
        Column::Reason => line.reason.into(),
        Column::PacketRate => rate(line.rates.map(|(packets, _)| packets), amount),
        Column::ByteRate => rate(line.rates.map(|(_, bytes)| bytes), byte_amount),
        Column::Packets => amount(line.count.packets as f64),
        Column::Bytes => byte_amount(line.count.bytes as f64),
        _ => dash(),
    }
}

fn dash() -> String {
    "-".into()
}
