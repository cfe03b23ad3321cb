//! What loading would be like, without loading.

use demux_common::config::Policy;

use super::{LoadOptions, admitted, attached};
use crate::{
    Result,
    attach::{Hook, ModeChoice, egress},
    bpffs::BpfFs,
    interface::Interface as Device,
    netns::NetworkNamespace,
    object::Capacities,
    preflight::{self, Native},
    state::{Instance, Lock},
    tables::{Access, Tables},
};

/// What is known before attaching to an interface.
#[derive(Clone, Debug, serde::Serialize, schemars::JsonSchema)]
pub struct Check {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// The mode that `load` would end up with: `native`, `generic`, or `none` where it would refuse.
    pub mode: &'static str,
    /// Why.
    pub mode_reason: String,
    /// The driver.
    pub driver: Option<String>,
    /// Bytes of the largest packet, without the Ethernet header.
    pub mtu: u32,
    /// Receive queues in use.
    pub rx_queues: Option<u32>,
    /// Transmit queues in use.
    pub tx_queues: Option<u32>,
    /// Whether attaching in the driver takes the link down for a moment; `null` where that is not known.
    pub resets_link: Option<bool>,
    /// The memory of a new instance in bytes, about; 0 where there is an instance already.
    pub memory_bytes: u64,
    /// The XDP program on the interface, as `NAME (id ID, MODE)`.
    pub program: Option<String>,
    /// The hook for what leaves that `load` would end up with: `tcx`, `clsact` or `none`; where demux is
    /// loaded, the present one.
    pub egress: &'static str,
    /// Why.
    pub egress_reason: String,
    /// What is on the hooks for what leaves, in the order in which it runs, as `NAME (id ID, HOOK)`.
    pub egress_programs: Vec<String>,
    /// Whether the XDP program is demux's own.
    pub loaded: bool,
    /// What runs with another value than the one asked for.
    pub differences: Vec<String>,
    /// What speaks against a default other than `pass`.
    pub risks: Vec<String>,
    /// What to do about them, other than to leave the default at `pass` or to force another.
    pub remedies: Vec<String>,
    /// Whether `load` with these options would succeed.
    pub ok: bool,
}

/// Looks at interfaces as `load` with these options would, and changes nothing. Without a BPF file
/// system, nothing is loaded yet.
///
/// # Errors
///
/// As `load`, where the options themselves are wrong or the machine lacks something.
pub fn check(bpffs: Option<&BpfFs>, names: &[String], options: &LoadOptions) -> Result<Vec<Check>> {
    let devices = admitted(names, options)?;
    let capacities = options.capacities()?;
    bpffs.map(BpfFs::require_writable).transpose()?;
    let running = bpffs.map(open).transpose()?.flatten();
    devices
        .iter()
        .map(|device| {
            let report = preflight::report(device)?;
            let (loaded, differences) = match &running {
                Some((instance, tables)) => compare(instance, tables, device, options)?,
                None => (false, Vec::new()),
            };
            let risks = preflight::risks(device)?;
            let (egress, egress_reason) = match &running {
                Some((instance, _)) if loaded => present_egress(instance, device)?,
                _ => egress::foretell(device, options.egress.unwrap_or_default())?,
            };
            let egress_programs = egress::programs(device.index)?;
            let choice = options.mode.unwrap_or_default();
            let (mode, mode_reason) = foretell(choice, &report.native);
            let is_safe = risks.is_empty()
                || options.force
                || options.default.unwrap_or(Policy::Pass) == Policy::Pass;
            Ok(Check {
                interface: device.name.clone(),
                ifindex: device.index,
                mode,
                mode_reason,
                driver: report.driver,
                mtu: report.mtu,
                rx_queues: report.channels.map(|channels| channels.rx),
                tx_queues: report.channels.map(|channels| channels.tx),
                resets_link: report.resets_link,
                memory_bytes: if running.is_some() {
                    0
                } else {
                    estimate(capacities)
                },
                program: report.xdp.map(|xdp| {
                    let name = xdp.program_name().unwrap_or_else(|| "?".to_owned());
                    format!("{name} (id {}, {})", xdp.program_id, xdp.mode)
                }),
                egress: Hook::name_of(egress),
                egress_reason,
                egress_programs: egress_programs.iter().map(ToString::to_string).collect(),
                loaded,
                ok: differences.is_empty()
                    && (loaded || mode != "none" && is_safe && report.xdp.is_none()),
                differences,
                risks: risks.iter().map(ToString::to_string).collect(),
                remedies: preflight::remedies(&risks),
            })
        })
        .collect()
}

/// The instance of the present namespace, if there is one.
fn open(bpffs: &BpfFs) -> Result<Option<(Instance, Tables)>> {
    let namespace = NetworkNamespace::current()?;
    match Instance::open(bpffs, namespace.cookie(), Lock::Shared) {
        Ok(instance) => {
            let tables = Tables::open(&instance, Access::ReadOnly)?;
            Ok(Some((instance, tables)))
        }
        Err(crate::Error::NotLoaded) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an instance is attached to the device, and what runs otherwise than these options ask for.
fn compare(
    instance: &Instance,
    tables: &Tables,
    device: &Device,
    options: &LoadOptions,
) -> Result<(bool, Vec<String>)> {
    let loaded = attached::is_attached(instance, tables, device)?;
    let mut differences = attached::differences(tables, options)?;
    if loaded {
        differences.extend(attached::interface_differences(
            instance, tables, device, options,
        )?);
    }
    let differences = differences
        .into_iter()
        .map(|difference| difference.text)
        .collect();
    Ok((loaded, differences))
}

/// Where the egress program is attached.
fn present_egress(instance: &Instance, device: &Device) -> Result<(Option<Hook>, String)> {
    let found = egress::find(instance.paths(), device.index)?;
    let reason = egress::shortcoming(found.as_ref(), &device.name)
        .unwrap_or_else(|| "attached already".to_owned());
    Ok((found.map(|found| found.hook), reason))
}

fn foretell(choice: ModeChoice, native: &Native) -> (&'static str, String) {
    match (choice, native) {
        (ModeChoice::Generic, _) => ("generic", "asked for".to_owned()),
        (ModeChoice::Native, Native::Impossible(reason)) => ("none", reason.clone()),
        (ModeChoice::Auto, Native::Impossible(reason)) => ("generic", reason.clone()),
        (_, Native::Likely) => ("native", "the driver supports it".to_owned()),
        (ModeChoice::Native, Native::Unknown) => (
            "native",
            "asked for; only trying tells whether the driver can".to_owned(),
        ),
        (ModeChoice::Auto, Native::Unknown) => (
            "native",
            "only trying tells whether the driver can; else generic".to_owned(),
        ),
    }
}

/// About what the maps of a new instance take; `load` tells it exactly.
fn estimate(capacities: Capacities) -> u64 {
    use demux_common::{
        binding::{Binding, PortSlot},
        table::{self, Cold, Line},
    };
    let lines = u64::from(table::lines(capacities.connections));
    let table = lines * (size_of::<Line>() + size_of::<Cold>()) as u64;
    let ports = (PortSlot::COUNT * size_of::<PortSlot>()) as u64;
    // A binding, its counters, and the profiles its ports may need.
    let binding = (size_of::<Binding>() + 4 * 64) as u64 + 32;
    table + ports + u64::from(capacities.bindings) * binding
}
