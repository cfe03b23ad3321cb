//! Loading what is loaded already: a note where the options agree, a refusal where they differ.

use demux_common::config::{Interface, Policy, Track};

use super::{LoadOptions, Loaded};
use crate::{
    Error, Result,
    attach::{self, EgressChoice, Hook, ModeChoice, egress},
    interface::Interface as Device,
    state::Instance,
    tables::{Tables, now},
};

/// Something that runs with another value than the one asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// In words, such as `default is pass, not drop`.
    pub(super) text: String,
    /// The assignment for `demux set` that applies it; `None` where only a new load does.
    assignment: Option<String>,
}

/// Compares a running value with the one asked for, if one is.
fn compare(
    key: &str,
    running: &str,
    asked: Option<&str>,
    assignment: Option<String>,
) -> Option<Difference> {
    let asked = asked.filter(|asked| *asked != running)?;
    Some(Difference {
        text: format!("{key} is {running}, not {asked}"),
        assignment,
    })
}

/// The devices to which the instance is attached, and those to which it is not.
pub(super) fn split(
    instance: &Instance,
    tables: &Tables,
    devices: Vec<Device>,
) -> Result<(Vec<Device>, Vec<Device>)> {
    let mut present = Vec::new();
    let mut absent = Vec::new();
    for device in devices {
        if is_attached(instance, tables, &device)? {
            present.push(device);
        } else {
            absent.push(device);
        }
    }
    Ok((present, absent))
}

/// Whether the instance is attached to the device.
pub(super) fn is_attached(instance: &Instance, tables: &Tables, device: &Device) -> Result<bool> {
    let link = attach::pinned_link(&instance.paths().xdp_link(device.index))?;
    Ok(link.is_some_and(|link| link.ifindex == Some(device.index))
        && tables
            .interfaces()?
            .iter()
            .any(|(_, entry)| entry.ifindex == device.index))
}

/// How the settings of the instance differ from those asked for.
pub(super) fn differences(tables: &Tables, options: &LoadOptions) -> Result<Vec<Difference>> {
    let config = tables.config()?;
    let on_off = |on: bool| if on { "on" } else { "off" };
    let track = options.track.map(Track::name);
    let sockets = options.kernel_sockets.map(on_off);
    let connections = options.max_connections.map(|max| max.to_string());
    let bindings = options.max_bindings.map(|max| max.to_string());
    Ok([
        compare(
            "track",
            config.track.name(),
            track,
            track.map(|track| format!("track={track}")),
        ),
        compare(
            "kernel-sockets",
            on_off(config.kernel_sockets != 0),
            sockets,
            sockets.map(|sockets| format!("kernel-sockets={sockets}")),
        ),
        compare(
            "max-connections",
            &tables.max_connections()?.to_string(),
            connections.as_deref(),
            None,
        ),
        compare(
            "max-bindings",
            &tables.max_bindings()?.to_string(),
            bindings.as_deref(),
            None,
        ),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// How an interface differs from what is asked for.
pub(super) fn interface_differences(
    instance: &Instance,
    tables: &Tables,
    device: &Device,
    options: &LoadOptions,
) -> Result<Vec<Difference>> {
    let entry = entry(tables, device)?;
    let egress = egress::find(instance.paths(), device.index)?;
    let asked = match options.egress {
        None | Some(EgressChoice::Auto) => None,
        Some(EgressChoice::Only(hook)) => Some(hook.name()),
        Some(EgressChoice::Nothing) => Some(Hook::name_of(None)),
    };
    let name = &device.name;
    let mode = match options.mode {
        None | Some(ModeChoice::Auto) => None,
        Some(ModeChoice::Native) => Some("native"),
        Some(ModeChoice::Generic) => Some("generic"),
    };
    let default = options.default.map(Policy::name);
    Ok([
        compare(&format!("mode of {name}"), entry.mode.name(), mode, None),
        compare(
            &format!("egress of {name}"),
            Hook::name_of(egress.map(|found| found.hook)),
            asked,
            None,
        ),
        compare(
            &format!("default of {name}"),
            effective_default(&entry).name(),
            default,
            default.map(|default| format!("default@{name}={default}")),
        ),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// Refuses to load over differences.
pub(super) fn refuse(
    present: &[Device],
    differences: Vec<Difference>,
    options: &LoadOptions,
) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let assignments: Option<Vec<String>> = differences
        .iter()
        .map(|difference| difference.assignment.clone())
        .collect();
    let remedy = match assignments {
        Some(assignments) => {
            let probation = options
                .probation
                .map(|time| format!(" --try {}", time.as_secs()))
                .unwrap_or_default();
            format!("demux set {}{probation}", assignments.join(" "))
        }
        None => "demux unload --all, then demux load with the new options".to_owned(),
    };
    Err(Error::OptionsDiffer {
        interface: present
            .first()
            .map_or_else(|| "demux".to_owned(), |device| device.name.clone()),
        differences: differences
            .into_iter()
            .map(|difference| difference.text)
            .collect(),
        remedy,
    })
}

/// What is known of an interface that is loaded already.
pub(super) fn describe(instance: &Instance, tables: &Tables, device: &Device) -> Result<Loaded> {
    let egress = egress::find(instance.paths(), device.index)?;
    Ok(Loaded {
        interface: device.name.clone(),
        ifindex: device.index,
        mode: entry(tables, device)?.mode,
        mode_note: None,
        egress: egress.as_ref().map(|found| found.hook),
        egress_note: egress::shortcoming(egress.as_ref(), &device.name),
        already: true,
        connections: 0,
        connections_note: None,
        memory_bytes: tables.memory_bytes()?,
        max_connections: tables.max_connections()?,
    })
}

/// The default that applies now: one whose probation has run out is `pass` again.
fn effective_default(entry: &Interface) -> Policy {
    if entry.is_probation_over(now()) {
        Policy::Pass
    } else {
        entry.default
    }
}

fn entry(tables: &Tables, device: &Device) -> Result<Interface> {
    tables
        .interfaces()?
        .into_iter()
        .map(|(_, entry)| entry)
        .find(|entry| entry.ifindex == device.index)
        .ok_or_else(|| Error::NotAttached(device.name.clone()))
}
