//! Loading: making an instance, attaching it to interfaces, and taking it off again.

mod attached;
mod check;
mod follow;
mod import;
mod instance;
pub(crate) mod interfaces;
pub(crate) mod reply;
mod unload;

use std::time::Duration;

use demux_common::config::{Config, Interface, Mode, Policy, Reply, Track};

pub use self::{
    check::{Check, check},
    follow::{Followed, follow, import_connections},
    instance::{create_instance, initial_config},
    unload::{confirm, unload, unload_all},
};
use crate::{
    Error, Result,
    attach::{EgressChoice, Hook, ModeChoice, egress, xdp},
    bpffs::BpfFs,
    capability::{Capability, require},
    interface::Interface as Device,
    kernel, locals,
    netns::NetworkNamespace,
    object::Capacities,
    owned, preflight,
    state::{self, Instance, Opened, Paths},
    tables::{Access, Tables, now},
};

/// What a user asks for; `None` leaves a running value as it is.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// How to attach.
    pub mode: Option<ModeChoice>,
    /// Where to attach for what leaves.
    pub egress: Option<EgressChoice>,
    /// What happens to packets that nothing claims.
    pub default: Option<Policy>,
    /// Which endpoints get rows.
    pub track: Option<Track>,
    /// Rows of the connection table.
    pub max_connections: Option<u32>,
    /// Bindings.
    pub max_bindings: Option<u32>,
    /// Whether the kernel's own sockets are asked.
    pub kernel_sockets: Option<bool>,
    /// Put the default on probation for so long.
    pub probation: Option<Duration>,
    /// Load although a default could hurt.
    pub force: bool,
}

/// What became of one interface.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// How it is attached.
    pub mode: Mode,
    /// Why it is not attached in the driver, where that was left open.
    pub mode_note: Option<String>,
    /// Where it is attached for what leaves, if it is.
    pub egress: Option<Hook>,
    /// Why it is not, and what that costs.
    pub egress_note: Option<String>,
    /// Whether it was loaded already, and nothing was changed.
    pub already: bool,
    /// Connections that the kernel had already, and that were entered. They are of all interfaces:
    /// where several are loaded at once, the first one says it.
    pub connections: u64,
    /// Why some or all of them are missing.
    pub connections_note: Option<String>,
    /// The memory of the instance's maps in bytes.
    pub memory_bytes: u64,
    /// How many connections its table is for.
    pub max_connections: u32,
}

/// Refuses what no state could make right: the machine, the options, interfaces that do not exist.
/// Nothing is needed for it, not even a BPF file system.
///
/// # Errors
///
/// [`Error::KernelTooOld`], [`Error::MissingCapability`], [`Error::InvalidArgument`],
/// [`Error::UnknownInterface`].
pub fn admit(names: &[String], options: &LoadOptions) -> Result<()> {
    admitted(names, options).map(|_devices| ())
}

fn admitted(names: &[String], options: &LoadOptions) -> Result<Vec<Device>> {
    require_system()?;
    options.check()?;
    interfaces::resolve(names)
}

/// Attaches demux to interfaces, all of them or none, and makes the instance where there is none yet.
///
/// # Errors
///
/// [`Error::UnknownInterface`], [`Error::HookBusy`], [`Error::UnsafeDefault`], [`Error::OptionsDiffer`],
/// [`Error::MissingCapability`], [`Error::KernelTooOld`]; nothing is changed then.
pub fn load(bpffs: &BpfFs, names: &[String], options: &LoadOptions) -> Result<Vec<Loaded>> {
    admitted(names, options)?;
    let namespace = NetworkNamespace::current()?;
    match Instance::open_or_create(bpffs, namespace.cookie())? {
        Opened::Existing(instance) => {
            let tables = Tables::open(&instance, Access::ReadWrite)?;
            // An interface that was away and is back has another index, and still our program.
            interfaces::free_vanished(instance.paths(), &tables, names)?;
            let devices = interfaces::resolve(names)?;
            let (present, absent) = attached::split(&instance, &tables, devices)?;
            let mut differences = attached::differences(&tables, options)?;
            for device in &present {
                differences.extend(attached::interface_differences(
                    &instance, &tables, device, options,
                )?);
            }
            attached::refuse(&present, differences, options)?;
            interfaces::refuse_busy(&absent)?;
            refuse_risks(&absent, options)?;
            let mut loaded: Vec<Loaded> = Vec::new();
            for device in &present {
                loaded.push(attached::describe(&instance, &tables, device)?);
            }
            instance.begin_change()?;
            match attach_all(instance.paths(), &tables, &absent, options) {
                Ok(attached) => loaded.extend(attached),
                Err(error) => {
                    // What it had attached is off again.
                    instance.end_change()?;
                    return Err(error);
                }
            }
            if !absent.is_empty() {
                // Rows from before are to be judged by the defaults of now.
                let mut config = tables.config()?;
                config.move_epoch_on();
                tables.set_config(&config)?;
            }
            // While nothing was loaded, processes could have what bindings own.
            owned::renew(instance.paths(), &tables, &tables.bindings()?)?;
            instance.end_change()?;
            Ok(loaded)
        }
        Opened::New(new) => {
            // What a killed command had attached has just come off.
            let devices = interfaces::resolve(names)?;
            interfaces::refuse_busy(&devices)?;
            refuse_risks(&devices, options)?;
            let tables = create_instance(&new, options.capacities()?, &options.config())?;
            let loaded = attach_all(new.paths(), &tables, &devices, options)?;
            new.publish()?;
            Ok(loaded)
        }
    }
}

/// What every command that loads or attaches needs of the machine. Without CAP_PERFMON the verifier
/// admits only programs whose bounds it can prove against speculation, too, and not these.
pub(crate) fn require_system() -> Result<()> {
    kernel::require_minimum()?;
    require(
        "load BPF programs",
        &[Capability::Bpf, Capability::NetAdmin, Capability::Perfmon],
    )
}

/// What every command that detaches needs of the machine.
fn require_system_to_unload() -> Result<()> {
    kernel::require_minimum()?;
    require(
        "detach BPF programs",
        &[Capability::Bpf, Capability::NetAdmin],
    )
}

/// Refuses a default that could drop packets which have no socket here.
pub(crate) fn refuse_risks(devices: &[Device], options: &LoadOptions) -> Result<()> {
    let default = options.default.unwrap_or(Policy::Pass);
    if default == Policy::Pass || options.force {
        return Ok(());
    }
    for device in devices {
        refuse_risk(device, default)?;
    }
    Ok(())
}

/// As [`refuse_risks`], for one interface.
pub(crate) fn refuse_risk(device: &Device, default: Policy) -> Result<()> {
    let risks = preflight::risks(device)?;
    if risks.is_empty() {
        return Ok(());
    }
    Err(Error::UnsafeDefault {
        default: default.name().to_owned(),
        interface: device.name.clone(),
        risks: risks.iter().map(ToString::to_string).collect(),
        remedies: preflight::remedies(&risks),
    })
}

/// Attaches to every interface; where one refuses, those before it are taken off again.
fn attach_all(
    paths: &Paths,
    tables: &Tables,
    devices: &[Device],
    options: &LoadOptions,
) -> Result<Vec<Loaded>> {
    locals::refresh(tables)?;
    let memory_bytes = tables.memory_bytes()?;
    let max_connections = tables.max_connections()?;
    let how = How {
        default: options.default.unwrap_or(Policy::Pass),
        probation_ends: options.probation.map_or(0, deadline),
        mode: options.mode.unwrap_or_default(),
        egress: options.egress.unwrap_or_default(),
    };
    let mut loaded = Vec::new();
    for device in devices {
        match attach_one(paths, tables, device, how) {
            Ok(attached) => loaded.push(Loaded {
                interface: device.name.clone(),
                ifindex: device.index,
                mode: attached.ingress.mode,
                mode_note: attached.ingress.note,
                egress: attached.egress.hook,
                egress_note: attached.egress.note,
                already: false,
                connections: 0,
                connections_note: None,
                memory_bytes,
                max_connections,
            }),
            Err(error) => {
                for done in &loaded {
                    interfaces::take_off(paths, tables, done.ifindex)?;
                }
                return Err(error);
            }
        }
    }
    if let Some(first) = loaded.first_mut() {
        match import::import(paths, tables) {
            Ok(imported) => {
                first.connections = imported.entered;
                first.connections_note = (imported.full > 0).then(|| {
                    format!(
                        "{} connections found no room in the table; see --max-connections",
                        imported.full
                    )
                });
            }
            // Packets enter them too, one by one.
            Err(error) => first.connections_note = Some(error.to_string()),
        }
    }
    Ok(loaded)
}

/// How an interface is to be attached.
#[derive(Clone, Copy, Debug)]
struct How {
    default: Policy,
    /// As in [`Interface`].
    probation_ends: u64,
    mode: ModeChoice,
    egress: EgressChoice,
}

/// How an interface came to be attached.
struct Attached {
    ingress: xdp::Attached,
    egress: egress::Attached,
}

/// Attaches egress and then ingress, so that no answer is missed to what ingress lets in.
fn attach_one(paths: &Paths, tables: &Tables, device: &Device, how: How) -> Result<Attached> {
    let slot = interfaces::free_slot(paths, tables, device)?;
    let mut entry = Interface {
        probation_ends: how.probation_ends,
        ifindex: device.index,
        station: device.mac.unwrap_or_default(),
        default: how.default,
        mode: Mode::Native,
        egress: 0,
        reply: Reply::None,
        reserved: [0; 2],
    };
    tables.clear_counters(slot)?;
    // The entry comes first: a packet of an interface without one passes, whatever the default.
    tables.set_interface(slot, &entry)?;
    state::keep_name(paths, device.index, &device.name)?;
    let egress = egress::attach(paths, device, how.egress);
    entry = with_egress(entry, egress.hook);
    tables.set_interface(slot, &entry)?;
    match xdp::attach(paths, device, how.mode) {
        Ok(ingress) => {
            entry.mode = ingress.mode;
            // Until this is written, what is to be refused passes, and the kernel refuses it.
            match reply::reply(device, entry.mode) {
                Ok(reply) => {
                    entry.reply = reply;
                    tables.set_interface(slot, &entry)?;
                    Ok(Attached { ingress, egress })
                }
                Err(error) => {
                    interfaces::take_off(paths, tables, device.index)?;
                    Err(error)
                }
            }
        }
        Err(error) => {
            egress::detach(paths, device.index)?;
            tables.clear_interface(slot)?;
            state::forget_name(paths, device.index)?;
            Err(error)
        }
    }
}

/// The entry of an interface, saying to the datapath whether egress is seen.
fn with_egress(entry: Interface, hook: Option<Hook>) -> Interface {
    Interface {
        egress: u8::from(hook.is_some()),
        ..entry
    }
}

/// The moment, on the datapath's clock, at which a probation that begins now ends.
pub(crate) fn deadline(probation: Duration) -> u64 {
    // 0 would mean that there is none.
    now().wrapping_add(probation.as_nanos() as u64).max(1)
}

impl LoadOptions {
    fn check(&self) -> Result<()> {
        if self.probation.is_some() && self.default.unwrap_or(Policy::Pass) == Policy::Pass {
            return Err(Error::invalid(
                "option",
                "--try",
                "it goes with a --default other than pass",
            ));
        }
        self.capacities().map(|_capacities| ())
    }

    /// The capacities of a new instance.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where one is out of range.
    pub fn capacities(&self) -> Result<Capacities> {
        let mut capacities = Capacities::default();
        let in_range = |what: &'static str, value: u32, max: u32| {
            if (1..=max).contains(&value) {
                return Ok(value);
            }
            Err(Error::invalid(
                what,
                value.to_string(),
                format!("it must be from 1 to {max}"),
            ))
        };
        if let Some(connections) = self.max_connections {
            let max = Capacities::MAX_CONNECTIONS;
            capacities.connections = in_range("--max-connections", connections, max)?;
        }
        if let Some(bindings) = self.max_bindings {
            capacities.bindings = in_range("--max-bindings", bindings, Capacities::MAX_BINDINGS)?;
        }
        Ok(capacities)
    }

    /// The settings of a new instance.
    #[must_use]
    pub fn config(&self) -> Config {
        Config {
            track: self.track.unwrap_or(Track::Local),
            kernel_sockets: u8::from(self.kernel_sockets.unwrap_or(true)),
            ..initial_config()
        }
    }
}
