//! What one sample of the tables says.

use std::{borrow::Cow, net::SocketAddr, time::Duration};

use demux_common::{
    binding::NAME_LEN,
    connection::{Direction, State},
    protocol::Protocol,
    reason::{Count, Verdict},
};

use super::{
    column::{Column, Rank, Ranked},
    rates::Rates,
};
use crate::connections::Row;

/// A sample of everything, with the rates since the one before.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Since the sample before; `None` of the first, which has no rates.
    pub elapsed: Option<Duration>,
    /// The instance.
    pub facts: Facts,
    /// The first of the connections that the filter matches.
    pub connections: Vec<ConnectionLine>,
    /// How many connections the filter matches.
    pub matching: u64,
    /// Every binding.
    pub bindings: Vec<BindingLine>,
    /// Every counter that is not zero.
    pub counters: Vec<CounterLine>,
}

/// The instance as a whole.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The network namespace: its name, or its inode number as `net:[4026531840]`.
    pub netns: String,
    /// The interfaces, by their index.
    pub interfaces: Vec<InterfaceFact>,
    /// How many connections there is room for.
    pub max_connections: u32,
    /// How many there are.
    pub connections: u64,
    /// How many of them this host consented to.
    pub confirmed: u64,
    /// How many there are in each state, by its number.
    pub states: [u64; State::SLOTS],
    /// How many bindings there is room for.
    pub max_bindings: u32,
    /// Packets a second by verdict.
    pub verdicts: Vec<VerdictFact>,
    /// Packets that found the table full.
    pub untracked: u64,
    /// The same a second.
    pub untracked_rate: Option<f64>,
    /// Rows that this host had not consented to, and that gave way.
    pub displaced: u64,
    /// The same a second.
    pub displaced_rate: Option<f64>,
}

/// An interface that demux is loaded on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFact {
    /// Its name; its index behind a # where it is gone.
    pub name: String,
    /// `native` or `generic`.
    pub mode: &'static str,
    /// The default that applies now.
    pub default: &'static str,
}

/// What was decided, on all interfaces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VerdictFact {
    /// The verdict.
    pub verdict: Verdict,
    /// Packets.
    pub packets: u64,
    /// Packets a second.
    pub rate: Option<f64>,
}

/// What connections are ordered by; made without allocating, since there may be millions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Which side opened it.
    pub direction: Direction,
    /// This host's side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
    /// The state.
    pub state: State,
    /// The name of the binding, padded with zeros.
    pub binding: [u8; NAME_LEN],
    /// The number of the target.
    pub target: u8,
    /// Rates, where they are known.
    pub rates: Option<Rates>,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes that arrived.
    pub rx_bytes: u64,
    /// Bytes that left.
    pub tx_bytes: u64,
    /// Milliseconds since the row was made.
    pub age_ms: u64,
    /// Milliseconds since a packet proved it alive.
    pub idle_ms: u64,
    /// Milliseconds until it expires.
    pub expires_ms: u64,
}

impl Ranked for Figures {
    fn rank(&self, column: Column) -> Rank {
        let rate = |of: fn(&Rates) -> f64| Rank::rate(self.rates.as_ref().map(of));
        match column {
            Column::Protocol => Rank::number(self.protocol as u64),
            Column::Direction => Rank::number(self.direction as u64),
            Column::Local => endpoint(self.local),
            Column::Remote => endpoint(self.remote),
            Column::State => Rank::text(self.state.name().as_bytes()),
            Column::Binding => Rank::text(&self.binding),
            Column::Target => Rank::number(self.target.into()),
            Column::PacketRate => rate(Rates::packets),
            Column::RxRate => rate(|rates| rates.rx_bytes),
            Column::TxRate => rate(|rates| rates.tx_bytes),
            Column::Packets => Rank::number(self.packets),
            Column::RxBytes => Rank::number(self.rx_bytes),
            Column::TxBytes => Rank::number(self.tx_bytes),
            Column::Age => Rank::number(self.age_ms),
            Column::Idle => Rank::number(self.idle_ms),
            Column::Expires => Rank::number(self.expires_ms),
            _ => Rank::default(),
        }
    }
}

fn endpoint(endpoint: SocketAddr) -> Rank {
    // IPv4 first, as it is written shorter.
    let address = match endpoint.ip() {
        std::net::IpAddr::V4(address) => u128::from(u32::from(address)),
        std::net::IpAddr::V6(address) => u128::from(address),
    };
    Rank::endpoint(address, endpoint.port())
}

/// A connection.
#[derive(Clone, Debug)]
pub struct ConnectionLine {
    /// What the table says.
    pub row: Row,
    /// What it is ordered by, with its rates.
    pub figures: Figures,
}

impl Ranked for ConnectionLine {
    fn rank(&self, column: Column) -> Rank {
        self.figures.rank(column)
    }
}

/// A binding.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingLine {
    /// Its name.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its pattern of local endpoints, as users write it.
    pub local: String,
    /// The device it is bound to.
    pub dev: Option<String>,
    /// Where its packets go.
    pub target: Cow<'static, str>,
    /// What was counted for it.
    pub count: Count,
    /// Packets and bytes a second.
    pub rates: Option<(f64, f64)>,
    /// Rows that it owns.
    pub connections: u64,
}

impl Ranked for BindingLine {
    fn rank(&self, column: Column) -> Rank {
        match column {
            Column::Binding => Rank::text(self.name.as_bytes()),
            Column::Protocol => Rank::number(self.protocol as u64),
            Column::Local => Rank::text(self.local.as_bytes()),
            Column::Device => Rank::text(self.dev.as_deref().unwrap_or_default().as_bytes()),
            Column::Target => Rank::text(self.target.as_bytes()),
            Column::PacketRate => Rank::rate(self.rates.map(|(packets, _)| packets)),
            Column::ByteRate => Rank::rate(self.rates.map(|(_, bytes)| bytes)),
            Column::Connections => Rank::number(self.connections),
            Column::Packets => Rank::number(self.count.packets),
            Column::Bytes => Rank::number(self.count.bytes),
            _ => Rank::default(),
        }
    }
}

/// A counter that is not zero.
#[derive(Clone, Debug, PartialEq)]
pub struct CounterLine {
    /// The interface; `None` for packets of interfaces that have no entry.
    pub iface: Option<String>,
    /// What happened; `None` for what is counted under its verdict elsewhere too.
    pub verdict: Option<Verdict>,
    /// Why.
    pub reason: &'static str,
    /// Packets and bytes.
    pub count: Count,
    /// Packets and bytes a second.
    pub rates: Option<(f64, f64)>,
}

impl Ranked for CounterLine {
    fn rank(&self, column: Column) -> Rank {
        match column {
            Column::Interface => Rank::text(self.iface.as_deref().unwrap_or_default().as_bytes()),
            Column::Verdict => {
                Rank::number(self.verdict.map_or(u64::MAX, |verdict| verdict as u64))
            }
            Column::Reason => Rank::text(self.reason.as_bytes()),
            Column::PacketRate => Rank::rate(self.rates.map(|(packets, _)| packets)),
            Column::ByteRate => Rank::rate(self.rates.map(|(_, bytes)| bytes)),
            Column::Packets => Rank::number(self.count.packets),
            Column::Bytes => Rank::number(self.count.bytes),
            _ => Rank::default(),
        }
    }
}
