//! What is known about interfaces, most of it by `preflight`.

use std::collections::{BTreeMap, BTreeSet};

use demux_common::config::{Interface as Entry, Mode, Reply};

use super::Fact;
use crate::{
    Result,
    attach::{EgressChoice, Hook, egress},
    ethtool,
    interface::{self, Interface},
    load::reply,
    preflight::{self, DriverReport, Risk},
};

/// An interface.
#[derive(Clone, Debug)]
pub struct InterfaceFacts {
    /// What rtnetlink tells.
    pub interface: Interface,
    /// The entry of the instance, where demux is attached to it.
    pub loaded: Option<Entry>,
    /// The name of the XDP program on it, where the caller may ask.
    pub program_name: Option<String>,
    /// What attaching will be like.
    pub report: Fact<DriverReport>,
    /// The features of the driver that are on.
    pub features: Fact<BTreeSet<String>>,
    /// Which hook for what leaves can be had, and why.
    pub egress: Fact<(Option<Hook>, String)>,
    /// What speaks against a default other than `pass`.
    pub risks: Fact<Vec<Risk>>,
    /// How refusals leave.
    pub reply: Fact<Reply>,
    /// The VLANs above it.
    pub vlans: Vec<String>,
    /// The other end of a veth pair, where it is in this namespace.
    pub peer: Option<String>,
}

/// Those that are named; else those that demux is attached to; else those that it could be.
pub(super) fn gather(
    names: &[String],
    loaded: &BTreeMap<u32, Entry>,
) -> Result<Vec<InterfaceFacts>> {
    let all = interface::all()?;
    let chosen: Vec<Interface> = if names.is_empty() {
        let present = |wanted: &dyn Fn(&Interface) -> bool| -> Vec<Interface> {
            all.iter()
                .filter(|device| wanted(device))
                .cloned()
                .collect()
        };
        let attached = present(&|device| loaded.contains_key(&device.index));
        if attached.is_empty() {
            present(&|device| device.is_up && !device.is_loopback && device.has_ethernet_header())
        } else {
            attached
        }
    } else {
        names
            .iter()
            .map(|name| interface::by_name(name))
            .collect::<Result<_>>()?
    };
    Ok(chosen
        .into_iter()
        .map(|device| {
            let entry = loaded.get(&device.index).copied();
            about(device, entry, &all)
        })
        .collect())
}

fn about(interface: Interface, loaded: Option<Entry>, all: &[Interface]) -> InterfaceFacts {
    let told = |error: crate::Error| error.to_string();
    let mode = loaded.map_or(Mode::Native, |entry| entry.mode);
    let vlans = interface
        .uppers(all)
        .into_iter()
        .filter(|upper| upper.kind.as_deref() == Some("vlan"))
        .map(|upper| upper.name.clone())
        .collect();
    InterfaceFacts {
        loaded,
        program_name: interface.xdp.and_then(|xdp| xdp.program_name()),
        report: preflight::report(&interface).map_err(told),
        features: ethtool::features(&interface.name).map_err(|error| error.to_string()),
        egress: egress::foretell(&interface, EgressChoice::Auto).map_err(told),
        risks: preflight::risks(&interface).map_err(told),
        reply: reply::reply(&interface, mode).map_err(told),
        vlans,
        peer: interface.peer(all).map(|peer| peer.name.clone()),
        interface,
    }
}
