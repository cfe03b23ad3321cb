//! Reading the tables: one walk over the connections, and everything else once.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use demux_common::{
    binding::{NAME_LEN, Target},
    config::Policy,
    decide::UNKNOWN_INTERFACE,
    reason::{Count, Reason, Verdict},
};

use super::{
    best::Best,
    column::{Ranked as _, Sort},
    history::History,
    rates::{self, Rates, per_second},
    snapshot::{
        BindingLine, ConnectionLine, CounterLine, Facts, Figures, InterfaceFact, Snapshot,
        VerdictFact,
    },
};
use crate::{
    Result,
    bindings::{Labels, Pattern, change::name_of, pattern::to_ip},
    connections::{Live, Reader},
    filter::Filter,
    interface,
    netns::NetworkNamespace,
    tables::{Tables, now},
};

/// Which connections are wanted, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Those that it matches.
    pub filter: Filter,
    /// The first in this order.
    pub sort: Sort,
    /// At most so many.
    pub limit: usize,
}

/// Reads the tables again and again, and remembers what it needs for rates.
#[derive(Debug, Default)]
pub struct Sampler {
    last: Option<Instant>,
    history: History,
    /// By index and by when the binding was made, since indexes are used again.
    bindings: HashMap<(u16, u32), Count>,
    counters: HashMap<CounterKey, Count>,
    pressure: (u64, u64),
}

/// An interface by its index, a verdict by its number and a reason; `None` for untracked packets.
type CounterKey = (Option<u32>, Option<(u8, u64)>);

impl Sampler {
    /// Forgets everything, as when the instance is another one.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Reads everything.
    ///
    /// # Errors
    ///
    /// Where a map cannot be read.
    pub fn sample(&mut self, tables: &Tables, selection: &Selection) -> Result<Snapshot> {
        let started = Instant::now();
        let elapsed = self.last.map(|last| started - last);
        // A clock that stands still is nobody's rate.
        let seconds = elapsed.map(|elapsed| elapsed.as_secs_f64().max(0.001));
        let names: HashMap<u32, String> = interface::all()?
            .into_iter()
            .map(|device| (device.index, device.name))
            .collect();
        let mut facts = facts(tables, &names)?;
        let counters = self.counters(tables, &names, seconds, &mut facts)?;
        let (connections, matching, owned) =
            self.connections(tables, selection, seconds, &mut facts)?;
        let bindings = self.bindings(tables, &names, seconds, &owned)?;
        self.last = Some(started);
        Ok(Snapshot {
            elapsed,
            facts,
            connections,
            matching,
            bindings,
            counters,
        })
    }

    fn counters(
        &mut self,
        tables: &Tables,
        names: &HashMap<u32, String>,
        seconds: Option<f64>,
        facts: &mut Facts,
    ) -> Result<Vec<CounterLine>> {
        let interfaces: HashMap<u32, u32> = tables
            .interfaces()?
            .into_iter()
            .map(|(slot, entry)| (slot, entry.ifindex))
            .collect();
        let mut now = HashMap::new();
        let mut lines = Vec::new();
        let mut verdicts = Verdict::ALL.map(|verdict| VerdictFact {
            verdict,
            packets: 0,
            rate: seconds.map(|_| 0.0),
        });
        for (slot, counters) in tables.counters()? {
            let ifindex = interfaces.get(&slot).copied();
            if ifindex.is_none() && slot != UNKNOWN_INTERFACE {
                continue;
            }
            let judged = Verdict::ALL.into_iter().flat_map(|verdict| {
                let reasons = Reason::ALL.iter();
                reasons.map(move |&reason| (Some((verdict, reason)), counters.get(verdict, reason)))
            });
            for (kind, count) in judged.chain([(None, counters.untracked)]) {
                if count == Count::default() {
                    continue;
                }
                let key = (
                    ifindex,
                    kind.map(|(verdict, reason)| (verdict as u8, reason as u64)),
                );
                let before = self.counters.get(&key).copied().unwrap_or_default();
                let rates = seconds.map(|seconds| rates::pair(count, before, seconds));
                now.insert(key, count);
                if let Some((verdict, _)) = kind {
                    let fact = &mut verdicts[verdict as usize];
                    fact.packets += count.packets;
                    fact.rate = fact
                        .rate
                        .zip(rates)
                        .map(|(sum, (packets, _))| sum + packets);
                }
                lines.push(CounterLine {
                    iface: ifindex.map(|index| shown(names, index)),
                    verdict: kind.map(|(verdict, _)| verdict),
                    reason: kind.map_or("untracked", |(_, reason)| reason.name()),
                    count,
                    rates,
                });
            }
        }
        self.counters = now;
        facts.verdicts = verdicts.to_vec();
        let table = tables.table_counters()?;
        let pressure = (table.untracked, table.over_unconfirmed);
        (facts.untracked, facts.displaced) = pressure;
        let rate = |now, before| seconds.map(|seconds| per_second(now, before, seconds));
        facts.untracked_rate = rate(pressure.0, self.pressure.0);
        facts.displaced_rate = rate(pressure.1, self.pressure.1);
        self.pressure = pressure;
        Ok(lines)
    }

    /// The first of those that are wanted, how many are wanted, and how many each binding owns.
    fn connections(
        &mut self,
        tables: &Tables,
        selection: &Selection,
        seconds: Option<f64>,
        facts: &mut Facts,
    ) -> Result<(Vec<ConnectionLine>, u64, HashMap<u16, u64>)> {
        let Selection {
            filter,
            sort,
            limit,
        } = selection;
        let mut best = Best::new(*limit);
        let mut owned: HashMap<u16, u64> = HashMap::new();
        let history = &mut self.history;
        history.begin(seconds);
        Reader::new(tables)?.for_each_live(|live| {
            facts.connections += 1;
            facts.confirmed += u64::from(live.connection.is_confirmed());
            facts.states[live.connection.state as usize] += 1;
            if live.binding().is_some() {
                *owned.entry(live.connection.binding).or_default() += 1;
            }
            let rates = history.visit(live.key, live.connection, live.age_ms());
            // Putting a row together costs more than everything else here.
            if filter.is_empty() || filter.matches(&live.row()) {
                let figures = figures(live, rates);
                best.offer(sort.place(figures.rank(sort.column)), || ConnectionLine {
                    row: live.row(),
                    figures,
                });
            }
            Ok(())
        })?;
        history.end();
        let matching = best.seen();
        Ok((best.into_sorted(), matching, owned))
    }

    fn bindings(
        &mut self,
        tables: &Tables,
        names: &HashMap<u32, String>,
        seconds: Option<f64>,
        owned: &HashMap<u16, u64>,
    ) -> Result<Vec<BindingLine>> {
        let bindings = tables.bindings()?;
        let labels = Labels::read(tables, &bindings)?;
        // Counters of every place in the table, for each CPU: not read where nobody has one.
        let counts = if bindings.is_empty() {
            Vec::new()
        } else {
            tables.binding_counts()?
        };
        let mut now = HashMap::new();
        let mut lines = Vec::with_capacity(bindings.len());
        for (index, binding) in &bindings {
            let count = counts.get(usize::from(*index)).copied().unwrap_or_default();
            let key = (*index, binding.created);
            let before = self.bindings.get(&key).copied().unwrap_or_default();
            now.insert(key, count);
            lines.push(BindingLine {
                name: name_of(binding),
                protocol: binding.protocol,
                local: Pattern::of(binding).to_string(),
                dev: (binding.ifindex != 0).then(|| shown(names, binding.ifindex)),
                target: labels.of(*index, binding),
                count,
                rates: seconds.map(|seconds| rates::pair(count, before, seconds)),
                connections: owned.get(index).copied().unwrap_or_default(),
            });
        }
        self.bindings = now;
        Ok(lines)
    }
}

fn facts(tables: &Tables, names: &HashMap<u32, String>) -> Result<Facts> {
    let namespace = NetworkNamespace::current()?;
    let mut entries = tables.interfaces()?;
    entries.sort_by_key(|(_, entry)| entry.ifindex);
    Ok(Facts {
        netns: namespace
            .name()
            .unwrap_or_else(|| format!("net:[{}]", namespace.inode())),
        interfaces: entries
            .iter()
            .map(|(_, entry)| InterfaceFact {
                name: shown(names, entry.ifindex),
                mode: entry.mode.name(),
                default: if entry.is_probation_over(now()) {
                    Policy::Pass
                } else {
                    entry.default
                }
                .name(),
            })
            .collect(),
        max_connections: tables.max_connections()?,
        max_bindings: tables.max_bindings()?,
        ..Facts::default()
    })
}

fn figures(live: &Live<'_>, rates: Option<Rates>) -> Figures {
    let (key, connection) = (live.key, live.connection);
    let binding = live.binding();
    Figures {
        protocol: key.protocol,
        direction: connection.flags.direction(),
        local: SocketAddr::new(to_ip(&key.local_address), key.local_port),
        remote: SocketAddr::new(to_ip(&key.remote_address), key.remote_port),
        state: connection.state,
        binding: binding.map_or([0; NAME_LEN], |binding| binding.name),
        target: binding.map_or(Target::Stack, |binding| binding.target) as u8,
        rates,
        packets: connection.rx_packets + connection.tx_packets,
        rx_bytes: connection.rx_bytes,
        tx_bytes: connection.tx_bytes,
        age_ms: live.age_ms(),
        idle_ms: live.idle_ms(),
        expires_ms: live.expires_ms(),
    }
}

/// The name of an interface, or its index where it is gone.
fn shown(names: &HashMap<u32, String>, ifindex: u32) -> String {
    names
        .get(&ifindex)
        .map_or_else(|| format!("#{ifindex}"), Clone::clone)
}

impl Snapshot {
    /// How long ago the sample before was, in seconds.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        self.elapsed.as_ref().map(Duration::as_secs_f64)
    }
}
