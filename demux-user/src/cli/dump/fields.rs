//! The fields of entries that need nothing but their own bytes.

use std::net::SocketAddr;

use demux_common::{
    address::{Address, Family},
    binding::{PortPattern, PortProfile, PortSlot, PrefixKey},
    config::Config,
    connection::{Connection, ConnectionKey, State},
    layout::{LocalPrefix, Meta},
    protocol::Protocol,
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

pub(super) fn connection(key: &ConnectionKey, row: &Connection) -> Record {
    let endpoint = |address, port| SocketAddr::new(to_ip(address), port).to_string().into();
    Record(vec![
        ("protocol", key.protocol.name().into()),
        ("local", endpoint(&key.local_address, key.local_port)),
        ("remote", endpoint(&key.remote_address, key.remote_port)),
        ("state", row.state.name().into()),
        ("direction", row.direction.name().into()),
        ("confirmed", (row.flags & Connection::CONFIRMED != 0).into()),
        ("binding", row.binding.into()),
        ("epoch", row.epoch.into()),
        ("remote_next", row.remote_next.into()),
        ("rx_packets", row.rx_packets.into()),
        ("rx_bytes", row.rx_bytes.into()),
        ("tx_packets", row.tx_packets.into()),
        ("tx_bytes", row.tx_bytes.into()),
        ("created", row.created.into()),
        ("last_seen", row.last_seen.into()),
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
