//! The fields of entries that need nothing but their own bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use demux_common::{
    address::{Address, Family},
    binding::{PortPattern, PortProfile, PortSlot, PrefixKey},
    config::Config,
    connection::State,
    layout::{LocalPrefix, Meta},
    protocol::Protocol,
    table::{Cold, Flags, Line, Occupancy},
};
use serde_json::{Value, json};

use crate::{
    bindings::{Ports, pattern::to_ip},
    render::Record,
};

pub(super) fn meta(meta: &Meta) -> Record {
    let hex: String = meta
        .boot_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let boot_id = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-");
    Record(vec![
        ("layout_version", meta.layout_version.into()),
        ("build", format!("{:08x}", meta.build).into()),
        ("netns_cookie", meta.netns_cookie.into()),
        ("boot_id", boot_id.into()),
    ])
}

pub(super) fn config(config: &Config) -> Record {
    let timeouts: serde_json::Map<String, Value> = State::ALL
        .iter()
        .map(|&state| {
            (
                state.name().to_lowercase(),
                config.timeouts.of(state).into(),
            )
        })
        .collect();
    Record(vec![
        ("epoch", config.epoch.into()),
        ("track", config.track.name().into()),
        ("kernel_sockets", (config.kernel_sockets != 0).into()),
        ("local_prefixes", (config.local_prefixes != 0).into()),
        ("timeouts", timeouts.into()),
        ("ticks_at_zero", config.clock.ticks_at_zero.into()),
        ("tick_ns", config.clock.tick_ns.into()),
        ("unit_ns", config.clock.unit_ns().into()),
        ("events_until", config.events_until.into()),
        ("trace_until", config.trace_until.into()),
    ])
}

pub(super) fn port(index: u32, slot: &PortSlot) -> Record {
    let protocol = Protocol::ALL[usize::from(index >> 16 != 0)];
    Record(vec![
        ("protocol", protocol.name().into()),
        ("port", (index & 0xffff).into()),
        ("any_v4", slot.any_v4.into()),
        ("any_v6", slot.any_v6.into()),
        ("profile", slot.profile.into()),
    ])
}

/// A record for each pattern of a profile.
pub(super) fn profile(index: u32, profile: &PortProfile) -> Vec<Record> {
    const LOOKUPS: [(u32, &str); 10] = [
        (PortPattern::ADDRESS, "address"),
        (PortPattern::ADDRESS_DEVICE, "address-device"),
        (PortPattern::PREFIX, "prefix"),
        (PortPattern::PREFIX_DEVICE, "prefix-device"),
        (PortPattern::ANY_V4, "any-v4"),
        (PortPattern::ANY_V4_DEVICE, "any-v4-device"),
        (PortPattern::ANY_V6, "any-v6"),
        (PortPattern::ANY_V6_DEVICE, "any-v6-device"),
        (PortPattern::DUAL, "dual"),
        (PortPattern::DUAL_DEVICE, "dual-device"),
    ];
    let in_use = profile
        .patterns
        .iter()
        .take_while(|pattern| pattern.lookups != 0);
    in_use
        .map(|pattern| {
            let lookups = LOOKUPS.iter().filter(|(bit, _)| pattern.lookups & bit != 0);
            let lookups: Vec<_> = lookups.map(|(_, name)| *name).collect();
            Record(vec![
                ("index", index.into()),
                ("ports", ports(pattern.first_port, pattern.last_port)),
                ("lookups", lookups.into()),
            ])
        })
        .collect()
}

/// The record of a line that somebody has; of an IPv6 connection the addresses are in the cold line.
pub(super) fn line(index: u32, line: &Line) -> Vec<Record> {
    let occupancy = match line.occupancy {
        Occupancy::Empty => return Vec::new(),
        Occupancy::Busy => "busy",
        Occupancy::Live => "live",
    };
    let flags = Flags(line.flags);
    let address = |bytes: [u8; 4]| {
        if flags.has(Flags::IPV6) {
            Value::Null
        } else {
            Ipv4Addr::from(bytes).to_string().into()
        }
    };
    vec![Record(vec![
        ("index", index.into()),
        ("occupancy", occupancy.into()),
        ("hop", line.hop.into()),
        ("generation", line.generation.into()),
        ("protocol", flags.protocol().name().into()),
        ("ipv6", flags.has(Flags::IPV6).into()),
        ("local_address", address(line.local_address)),
        ("local_port", line.local_port.into()),
        ("remote_address", address(line.remote_address)),
        ("remote_port", line.remote_port.into()),
        ("state", line.state.name().into()),
        ("direction", flags.direction().name().into()),
        ("confirmed", flags.has(Flags::CONFIRMED).into()),
        ("marks", (line.flags & Flags::MARKS).into()),
        ("binding", line.binding.into()),
        ("epoch", line.epoch.into()),
        ("last_seen", line.last_seen.into()),
        ("rx_packets", line.rx.packets().into()),
        ("rx_bytes", line.rx.bytes.into()),
        ("tx_packets", line.tx.packets().into()),
        ("tx_bytes", line.tx.bytes.into()),
        ("remote_next", line.remote.next.into()),
        ("remote_ack", line.remote.ack.into()),
        ("local_next", line.local.next.into()),
        ("local_ack", line.local.ack.into()),
    ])]
}

pub(super) fn cold(index: u32, cold: &Cold) -> Record {
    let address = |bytes: [u8; 16]| Ipv6Addr::from(bytes).to_string();
    Record(vec![
        ("index", index.into()),
        ("generation", (cold.generation & 0xffff).into()),
        ("created", cold.created.into()),
        ("local_address", address(cold.local_address).into()),
        ("remote_address", address(cold.remote_address).into()),
        ("rx_packets_2_24", cold.rx_packets.into()),
        ("rx_bytes_2_32", cold.rx_bytes.into()),
        ("tx_packets_2_24", cold.tx_packets.into()),
        ("tx_bytes_2_32", cold.tx_bytes.into()),
    ])
}

pub(super) fn local(address: &Address) -> Record {
    Record(vec![("address", to_ip(address).to_string().into())])
}

pub(super) fn local_prefix(prefix: &LocalPrefix) -> Record {
    let bits = prefix.prefix_len.saturating_sub(LocalPrefix::FIXED_BITS);
    let family = if prefix.address.is_mapped() {
        Family::Ipv4
    } else {
        Family::Ipv6
    };
    let bits = bits.saturating_sub(PrefixKey::address_offset(family));
    Record(vec![(
        "prefix",
        format!("{}/{bits}", to_ip(&prefix.address)).into(),
    )])
}

pub(super) fn ports(first: u16, last: u16) -> Value {
    json!(Ports { first, last }.to_string())
}

pub(super) fn station(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
