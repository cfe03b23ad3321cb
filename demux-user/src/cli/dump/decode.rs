//! From the bytes of a map entry to readable fields.

use demux_common::{
    binding::{AddressKey, Binding, PrefixKey, PrefixMatch, Scope},
    config::Interface,
    counters::{InterfaceCounters, TableCounters},
    layout::map,
    owned::{Owned, OwnedKey},
    protocol::Protocol,
    reason::{Count, Reason, Verdict},
    reject::Budget,
    steering::{Ownership, XskInterface, XskSet},
};
use serde_json::Value;
use zerocopy::{Immutable, KnownLayout, TryFromBytes};

use super::{
    super::{bindings::flags, names::Names},
    allocator::{barred, ephemeral, exec_cgroup, hints, perturbation, source},
    fields::{cold, config, line, local, local_prefix, meta, port, ports, profile, station},
    listen::{listener, listener_counts, selection},
    steering::{cpu_list, fragments, xsk_socket},
};
use crate::{
    Error, Result,
    bindings::{Pattern, SetName, change::name_of, pattern::to_ip},
    render::Record,
};

/// Decodes the entries of one map.
pub(super) struct Decoder<'a> {
    map: &'a str,
    names: &'a Names,
    /// Bytes from the value of one CPU to that of the next.
    cpu_stride: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(map: &'a str, names: &'a Names, cpu_stride: usize) -> Self {
        Self {
            map,
            names,
            cpu_stride,
        }
    }

    /// The records of an entry: none where it is empty, several where it holds several things.
    pub(super) fn decode(&self, key: &[u8], value: &[u8]) -> Result<Vec<Record>> {
        let is_array = key.len() == 4;
        if is_array && value.iter().all(|&byte| byte == 0) {
            return Ok(Vec::new());
        }
        let one = |record| Ok(vec![record]);
        match self.map {
            map::META => one(meta(&self.read(value)?)),
            map::CONFIG => one(config(&self.read(value)?)),
            map::INTERFACES => one(self.interface(self.read(key)?, &self.read(value)?)),
            map::COUNTERS => self.counters(self.read(key)?, value),
            map::BINDINGS => one(self.binding(self.read(key)?, &self.read(value)?)),
            map::BINDING_COUNTS => self.binding_counts(self.read(key)?, value),
            map::PORTS => one(port(self.read(key)?, &self.read(value)?)),
            map::PORT_PROFILES => Ok(profile(self.read(key)?, &self.read(value)?)),
            map::ADDRESSES => one(self.address(&self.read(key)?, self.read(value)?)),
            map::PREFIXES => one(self.prefix(&self.read(key)?, &self.read(value)?)),
            map::CONNECTIONS => Ok(line(self.read(key)?, &self.read(value)?)),
            map::CONNECTION_COLD => one(cold(self.read(key)?, &self.read(value)?)),
            map::TABLE_COUNTS => self.table_counts(value),
            map::EPHEMERAL => one(ephemeral(&self.read(value)?)),
            map::PERTURBATION => one(perturbation(self.read(key)?, self.read(value)?)),
            map::PORT_HINTS => one(hints(self.read(key)?, self.read(value)?)),
            map::BARRED_PORTS => one(barred(self.read(key)?, self.read(value)?)),
            map::EXEC_CGROUPS => one(exec_cgroup(self.read(key)?, &self.read(value)?)),
            map::SOURCES => one(source(&self.read(key)?, &self.read(value)?)),
            map::REPLY_BUDGET => self.budgets(value),
            map::OWNED_PORTS => one(self.owned(&self.read(key)?, &self.read(value)?)),
            map::CPU_LISTS => one(cpu_list(self.read(key)?, &self.read(value)?)),
            map::XSK_SETS => Ok(self.xsk_set(self.read(key)?, &self.read(value)?)),
            map::XSK_SOCKETS => one(xsk_socket(self.read(key)?, &self.read(value)?)),
            map::FRAGMENTS => one(fragments(&self.read(key)?, &self.read(value)?)),
            map::LISTENERS => one(listener(self.read(key)?, &self.read(value)?)),
            map::LISTENER_COUNTS => {
                listener_counts(self.read(key)?, value, self.cpu_stride, |value| {
                    self.read(value)
                })
            }
            map::SELECTION => one(selection(&self.read(value)?)),
            map::LOCALS => one(local(&self.read(key)?)),
            map::LOCAL_PREFIXES => one(local_prefix(&self.read(key)?)),
            other => Err(Error::MapNotFound(other.to_owned())),
        }
    }

    fn read<T: TryFromBytes + KnownLayout + Immutable>(&self, bytes: &[u8]) -> Result<T> {
        T::try_read_from_bytes(bytes).map_err(|_| {
            Error::unexpected(
                format!("read the map {}", self.map),
                "an entry is not of this demux's layout",
            )
        })
    }

    fn device(&self, ifindex: u32) -> Value {
        match ifindex {
            0 => Value::Null,
            index => self.names.show(index).into(),
        }
    }

    fn interface(&self, slot: u32, entry: &Interface) -> Record {
        Record(vec![
            ("slot", slot.into()),
            ("ifindex", entry.ifindex.into()),
            ("iface", self.device(entry.ifindex)),
            ("station", station(entry.station).into()),
            ("default", entry.default.name().into()),
            ("mode", entry.mode.name().into()),
            ("probation_ends", entry.probation_ends.into()),
        ])
    }

    /// A record for each counter of each CPU that is not zero.
    fn counters(&self, slot: u32, values: &[u8]) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for (cpu, bytes) in values.chunks_exact(self.cpu_stride).enumerate() {
            let counters: InterfaceCounters =
                self.read(&bytes[..size_of::<InterfaceCounters>()])?;
            let mut push = |verdict: Option<Verdict>, reason: &str, count: Count| {
                if count != Count::default() {
                    records.push(Record(vec![
                        ("slot", slot.into()),
                        ("cpu", cpu.into()),
                        ("verdict", verdict.map(Verdict::name).into()),
                        ("reason", reason.into()),
                        ("packets", count.packets.into()),
                        ("bytes", count.bytes.into()),
                    ]));
                }
            };
            for verdict in Verdict::ALL {
                for &reason in Reason::ALL {
                    push(Some(verdict), reason.name(), counters.get(verdict, reason));
                }
            }
            push(None, "untracked", counters.untracked);
        }
        Ok(records)
    }

    fn table_counts(&self, values: &[u8]) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for (cpu, bytes) in values.chunks_exact(self.cpu_stride).enumerate() {
            let counts: TableCounters = self.read(&bytes[..size_of::<TableCounters>()])?;
            if counts != TableCounters::default() {
                records.push(Record(vec![
                    ("cpu", cpu.into()),
                    ("entered", counts.entered.into()),
                    ("over_expired", counts.over_expired.into()),
                    ("over_unconfirmed", counts.over_unconfirmed.into()),
                    ("untracked", counts.untracked.into()),
                    ("ended", counts.ended.into()),
                ]));
            }
        }
        Ok(records)
    }

    fn budgets(&self, values: &[u8]) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for (cpu, bytes) in values.chunks_exact(self.cpu_stride).enumerate() {
            let budget: Budget = self.read(&bytes[..size_of::<Budget>()])?;
            if budget != Budget::default() {
                records.push(Record(vec![
                    ("cpu", cpu.into()),
                    ("filled_at", budget.filled_at.into()),
                    ("left", budget.left.into()),
                ]));
            }
        }
        Ok(records)
    }

    fn binding(&self, index: u32, binding: &Binding) -> Record {
        Record(vec![
            ("index", index.into()),
            ("name", name_of(binding).into()),
            ("protocol", binding.protocol.name().into()),
            ("local", Pattern::of(binding).to_string().into()),
            ("dev", self.device(binding.ifindex)),
            ("target", binding.target.name().into()),
            ("flags", flags(binding).into()),
            ("created", binding.created.into()),
        ])
    }

    fn binding_counts(&self, index: u32, values: &[u8]) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for (cpu, bytes) in values.chunks_exact(self.cpu_stride).enumerate() {
            let count: Count = self.read(bytes)?;
            if count != Count::default() {
                records.push(Record(vec![
                    ("index", index.into()),
                    ("cpu", cpu.into()),
                    ("packets", count.packets.into()),
                    ("bytes", count.bytes.into()),
                ]));
            }
        }
        Ok(records)
    }

    fn address(&self, key: &AddressKey, binding: u32) -> Record {
        let scope = match key.scope {
            Scope::Ipv4 => "ipv4",
            Scope::Ipv6 => "ipv6",
            Scope::DualStack => "dual-stack",
        };
        Record(vec![
            ("protocol", key.protocol.name().into()),
            ("address", to_ip(&key.address).to_string().into()),
            ("ports", ports(key.first_port, key.last_port)),
            ("dev", self.device(key.ifindex)),
            ("scope", scope.into()),
            ("binding", binding.into()),
        ])
    }

    /// A record for each interface of a set, or one for a set without.
    fn xsk_set(&self, index: u32, set: &XskSet) -> Vec<Record> {
        let ownership = match set.ownership {
            Ownership::None => "none",
            Ownership::Direct => "direct",
            Ownership::Daemon => "daemon",
        };
        let of_set = |place: Option<&XskInterface>| {
            Record(vec![
                ("index", index.into()),
                ("name", SetName::of(set).to_string().into()),
                ("ownership", ownership.into()),
                ("pid", set.pid.into()),
                ("holder", set.holder.into()),
                ("generation", set.generation.into()),
                ("longest", set.longest.into()),
                (
                    "iface",
                    place.map_or(Value::Null, |place| self.device(place.ifindex)),
                ),
                ("first_slot", place.map(|place| place.first_slot).into()),
                ("queues", place.map(|place| place.queues).into()),
            ])
        };
        let places: Vec<_> = set.interfaces.iter().filter(|p| p.ifindex != 0).collect();
        if places.is_empty() {
            return vec![of_set(None)];
        }
        places
            .into_iter()
            .map(|place| of_set(Some(place)))
            .collect()
    }

    fn owned(&self, key: &OwnedKey, owned: &Owned) -> Record {
        let protocol = Protocol::ALL
            .into_iter()
            .find(|protocol| *protocol as u16 == key.protocol);
        Record(vec![
            ("protocol", protocol.map(Protocol::name).into()),
            ("port", key.port.into()),
            ("place", key.place.into()),
            ("address", to_ip(&owned.address).to_string().into()),
            ("dev", self.device(owned.ifindex)),
            ("v6_only", (owned.v6_only != 0).into()),
        ])
    }

    fn prefix(&self, key: &PrefixKey, found: &PrefixMatch) -> Record {
        let bits = key.prefix_len.saturating_sub(PrefixKey::FIXED_BITS);
        let bits = bits.saturating_sub(PrefixKey::address_offset(key.family));
        Record(vec![
            ("protocol", key.protocol.name().into()),
            ("prefix", format!("{}/{bits}", to_ip(&key.address)).into()),
            ("ports", ports(key.first_port, key.last_port)),
            ("dev", self.device(key.ifindex)),
            ("binding", found.binding.into()),
        ])
    }
}
