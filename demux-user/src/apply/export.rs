//! The running state as a configuration.

use demux_common::{
    binding::Binding as Stored,
    config::{Mode as Attachment, Policy as Default_, Track as Tracking},
    connection::State as Row,
};

use super::state::{Attached, Bound, State};
use crate::{
    Result,
    bindings::{Fallback as Falling, LocalAddress, Pattern, admission::Host},
    configuration::sections::{
        Binding, Egress, Ephemeral, Fallback, File, Instance, Interface, Mode, Policy, Protocol,
        Settings, Track, VERSION,
    },
};

/// Writes the running state as a configuration, which changes nothing where it is applied to it. Bindings to
/// devices that are gone cannot be written; their names come back.
///
/// # Errors
///
/// Where the addresses of this host cannot be read.
pub fn export(state: &State) -> Result<(File, Vec<String>)> {
    let host = Host::read()?;
    let is_gone =
        |device: &Option<String>| device.as_ref().is_some_and(|name| name.starts_with('#'));
    let (gone, here): (Vec<&Bound>, Vec<&Bound>) = state
        .bindings
        .iter()
        .partition(|bound| is_gone(&bound.device));
    let file = File {
        version: Some(VERSION),
        instance: Instance {
            max_connections: Some(state.max_connections),
            max_bindings: Some(state.max_bindings),
        },
        settings: settings(state),
        interface: state.interfaces.iter().map(interface).collect(),
        binding: here
            .into_iter()
            .map(|bound| binding(bound, &host))
            .collect::<Result<_>>()?,
        ..File::default()
    };
    Ok((
        file,
        gone.into_iter().map(|bound| bound.name.clone()).collect(),
    ))
}

fn settings(state: &State) -> Settings {
    let value = |key: &str| state.settings.get(key).cloned();
    let seconds = |row: &Row| {
        let name = row.name().to_lowercase();
        let seconds = value(&format!("timeout.{name}"))?.parse().ok()?;
        Some((name, seconds))
    };
    Settings {
        default: None,
        track: value("track").map(|word| match word.as_str() {
            word if word == Tracking::Bound.name() => Track::Bound,
            _ => Track::Local,
        }),
        kernel_sockets: value("kernel-sockets").map(|word| word == "on"),
        ephemeral: Ephemeral {
            range: value("ephemeral.range"),
            algorithm: value("ephemeral.algorithm"),
            reserved: value("ephemeral.reserved"),
        },
        timeout: Row::ALL.iter().filter_map(seconds).collect(),
    }
}

fn interface(attached: &Attached) -> Interface {
    Interface {
        name: attached.name.clone(),
        mode: Some(match attached.entry.mode {
            Attachment::Native => Mode::Native,
            Attachment::Generic => Mode::Generic,
        }),
        egress: attached.egress.map(|hook| match hook {
            "tcx" => Egress::Tcx,
            "clsact" => Egress::Clsact,
            _ => Egress::None,
        }),
        default: Some(match attached.default {
            Default_::Pass => Policy::Pass,
            Default_::Drop => Policy::Drop,
            Default_::Reject => Policy::Reject,
        }),
        force: false,
    }
}

fn binding(bound: &Bound, host: &Host) -> Result<Binding> {
    let stored = &bound.binding;
    let pattern = Pattern::of(stored);
    Ok(Binding {
        name: Some(bound.name.clone()),
        protocol: match stored.protocol {
            demux_common::protocol::Protocol::Tcp => Protocol::Tcp,
            demux_common::protocol::Protocol::Udp => Protocol::Udp,
        },
        local: pattern.to_string(),
        to: Some(bound.target.clone()),
        fallback: Falling::of(stored).map(|fallback| match fallback {
            Falling::Drop => Fallback::Drop,
            Falling::Stack => Fallback::Stack,
        }),
        dev: bound.device.clone(),
        reuse_addr: stored.has(Stored::REUSE_ADDR),
        reuse_port: stored.has(Stored::REUSE_PORT),
        v6_only: pattern.address == LocalAddress::AnyV6,
        untracked: stored.has(Stored::UNTRACKED),
        freebind: match pattern.address {
            LocalAddress::Exact(address) => !host.has(address)?,
            _ => false,
        },
    })
}
