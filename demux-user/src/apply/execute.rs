//! Doing what a plan says: all of it or nothing.
//!
//! Everything that can be refused is asked for first, under the lock, before anything is written. Then, on an
//! instance that runs: the settings of source ports, which may be refused still; new interfaces, with a
//! default of `pass`, because what a driver refuses is only known by trying; the bindings; the defaults and
//! the other settings; and last what is to be detached. What fails takes back what was done before it.
//!
//! A new instance gets its settings and bindings first and is then attached with its defaults, so that no
//! default acts without the bindings beside it; and it is published at the end, or removed.

use demux_common::{
    binding::Binding,
    config::{Config, Interface, Policy},
};

use super::{
    change::Change,
    plan::{self, Indexes, Plan, plan},
    signals::Held,
    state::{Names, State},
};
use crate::{
    Error, Result,
    bindings::{admission, replace::Replacement},
    bpffs::BpfFs,
    configuration::{Configuration, InterfaceWish},
    interface::{self, Interface as Device},
    load::{self, LoadOptions, Loaded, steps},
    locals,
    netns::NetworkNamespace,
    owned,
    ports::{self, PortSettings},
    settings::Assignment,
    state::{Instance, Lock, NewInstance, Opened},
    tables::{Access, Tables},
};

/// How a configuration is applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Bindings and interfaces that it does not name go.
    pub prune: bool,
    /// Defaults are set although they could hurt.
    pub force: bool,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Applied {
    /// What has changed; empty where everything was as asked for.
    pub changes: Vec<Change>,
    /// Interfaces that were attached.
    pub loaded: Vec<Loaded>,
    /// Why processes are not kept away from what bindings own, if they are not.
    pub shortcoming: Option<String>,
}

/// Says how many of how many steps are done.
pub type Progress<'p> = &'p mut dyn FnMut(usize, usize);

/// What applying the configuration would change; nothing is changed. Without a BPF file system nothing is
/// loaded.
///
/// # Errors
///
/// As [`plan()`], [`Error::NotLoaded`] where there is no instance and the file names no interface, and where
/// the state may not be read.
pub fn diff(
    bpffs: Option<&BpfFs>,
    configuration: &Configuration,
    prune: bool,
) -> Result<Vec<Change>> {
    let (names, indexes) = interfaces()?;
    let state = State::read_present(bpffs, &names)?;
    if !state.is_loaded && configuration.interfaces.is_empty() {
        return Err(Error::NotLoaded);
    }
    Ok(plan(configuration, &state, &indexes, prune)?.changes)
}

/// Makes the running state what the configuration asks for. Where it is so already, nothing is touched.
///
/// Signals that would end the process are held back while anything is being written.
///
/// # Errors
///
/// As [`diff`], [`load`](crate::load::load), [`bind_all`](crate::bindings::bind_all) and
/// [`set`](crate::settings::set). Nothing has changed then.
pub fn apply(
    bpffs: &BpfFs,
    configuration: &Configuration,
    options: Options,
    progress: Progress<'_>,
) -> Result<Applied> {
    if diff(Some(bpffs), configuration, options.prune)?.is_empty() {
        return Ok(Applied::default());
    }
    load::require_system()?;
    let cookie = NetworkNamespace::current()?.cookie();
    let opened = if configuration.interfaces.is_empty() {
        Opened::Existing(Instance::open(bpffs, cookie, Lock::Exclusive)?)
    } else {
        Instance::open_or_create(bpffs, cookie)?
    };
    let _held = Held::new();
    match opened {
        Opened::Existing(instance) => change(&instance, configuration, options, progress),
        Opened::New(new) => create(new, configuration, options, progress),
    }
}

/// The interfaces of this namespace, both ways.
fn interfaces() -> Result<(Names, Indexes)> {
    let (mut names, mut indexes) = (Names::new(), Indexes::new());
    for device in interface::all()? {
        for name in device.alternative_names {
            indexes.insert(name, device.index);
        }
        indexes.insert(device.name.clone(), device.index);
        names.insert(device.index, device.name);
    }
    Ok((names, indexes))
}

/// The interfaces to attach to, with what is asked of each.
fn devices(wishes: &[InterfaceWish]) -> Result<Vec<(Device, &InterfaceWish)>> {
    let names: Vec<String> = wishes.iter().map(|wish| wish.name.clone()).collect();
    Ok(steps::resolve(&names)?.into_iter().zip(wishes).collect())
}

/// Refuses interfaces that carry another program, and defaults that could drop wanted packets.
fn refuse(
    devices: &[(Device, &InterfaceWish)],
    defaults: &[(String, Policy, bool)],
    options: Options,
) -> Result<()> {
    let all: Vec<Device> = devices.iter().map(|(device, _)| device.clone()).collect();
    steps::refuse_busy(&all)?;
    let refuse_risk = |device: &Device, default: Policy, force: bool| {
        if default == Policy::Pass || force || options.force {
            return Ok(());
        }
        load::refuse_risk(device, default)
    };
    for (device, wish) in devices {
        refuse_risk(device, wish.default.unwrap_or(Policy::Pass), wish.force)?;
    }
    for (name, default, force) in defaults {
        refuse_risk(&interface::by_name(name)?, *default, *force)?;
    }
    Ok(())
}

fn load_options(wish: &InterfaceWish, default: Policy) -> LoadOptions {
    LoadOptions {
        mode: wish.mode,
        egress: wish.egress,
        default: Some(default),
        ..LoadOptions::default()
    }
}

/// Makes an instance.
fn create(
    new: NewInstance,
    configuration: &Configuration,
    options: Options,
    progress: Progress<'_>,
) -> Result<Applied> {
    let (_, indexes) = interfaces()?;
    let state = State::nothing()?;
    let plan = plan(configuration, &state, &indexes, options.prune)?;
    // What a killed command had attached has just come off.
    let devices = devices(&plan.attach)?;
    refuse(&devices, &plan.defaults, options)?;
    let capacities = LoadOptions {
        max_connections: configuration.instance.max_connections,
        max_bindings: Some(plan::max_bindings(configuration, &state)),
        ..LoadOptions::default()
    };
    let config = configured(load::initial_config(), &plan.settings);
    let tables = load::create_instance(&new, capacities.capacities()?, &config)?;
    ports::change(&tables, &port_changes(&plan.settings))?;
    locals::refresh(&tables)?;
    let paths = new.paths();
    Replacement::admit(&tables, &plan.bindings)?.enter(paths, &tables, progress)?;
    let wishes = devices.into_iter().map(|(device, wish)| {
        let options = load_options(wish, wish.default.unwrap_or(Policy::Pass));
        (device, options)
    });
    let undone = |error| Error::Undone(Box::new(error));
    let loaded = steps::attach_each(paths, &tables, &wishes.collect::<Vec<_>>()).map_err(undone)?;
    let bindings = tables.bindings()?;
    let shortcoming = owned::renew(paths, &tables, &bindings)?;
    check_owners(&bindings).map_err(undone)?;
    new.publish()?;
    Ok(Applied {
        changes: plan.changes,
        loaded,
        shortcoming,
    })
}

/// Changes an instance that runs.
fn change(
    instance: &Instance,
    configuration: &Configuration,
    options: Options,
    progress: Progress<'_>,
) -> Result<Applied> {
    let paths = instance.paths();
    let tables = Tables::open(instance, Access::ReadWrite)?;
    let (names, indexes) = interfaces()?;
    let state = State::read(paths, &tables, &names)?;
    let plan = plan(configuration, &state, &indexes, options.prune)?;
    if plan.is_empty() {
        // Somebody else has done it meanwhile.
        return Ok(Applied::default());
    }
    if !plan.attach.is_empty() {
        // An interface that was away and is back has another index, and still our program.
        let names: Vec<String> = plan.attach.iter().map(|wish| wish.name.clone()).collect();
        steps::make_room(paths, &tables, &names)?;
    }
    let devices = devices(&plan.attach)?;
    refuse(&devices, &plan.defaults, options)?;
    let replacement = Replacement::admit(&tables, &plan.bindings)?;

    let port_changes = port_changes(&plan.settings);
    let before = going_back(&ports::settings(&tables)?, &port_changes);
    instance.begin_change()?;
    if let Err(error) = ports::change(&tables, &port_changes) {
        // It refuses before it writes.
        instance.end_change()?;
        return Err(error);
    }
    let wishes = devices
        .iter()
        .map(|(device, wish)| (device.clone(), load_options(wish, Policy::Pass)));
    let wishes: Vec<(Device, LoadOptions)> = wishes.collect();
    let mut loaded = Vec::new();
    let mut steps = || -> Result<()> {
        loaded = steps::attach_each(paths, &tables, &wishes)?;
        locals::refresh(&tables)?;
        replacement.enter(paths, &tables, progress)
    };
    if let Err(error) = steps() {
        let is_first = loaded.is_empty() && before.is_empty();
        for done in &loaded {
            steps::take_off(paths, &tables, done.ifindex)?;
        }
        ports::change(&tables, &before)?;
        owned::renew(paths, &tables, &tables.bindings()?)?;
        instance.end_change()?;
        return Err(if is_first {
            error
        } else {
            Error::Undone(Box::new(error))
        });
    }
    set(&tables, &plan)?;
    for index in &plan.detach {
        steps::take_off(paths, &tables, *index)?;
    }
    let bindings = tables.bindings()?;
    let shortcoming = owned::renew(paths, &tables, &bindings)?;
    instance.end_change()?;
    Ok(Applied {
        changes: plan.changes,
        loaded,
        shortcoming,
    })
}

/// Sets defaults and the other settings.
fn set(tables: &Tables, plan: &Plan) -> Result<()> {
    let before = tables.config()?;
    let mut config = configured(before, &plan.settings);
    let entries = tables.interfaces()?;
    let mut changed = entries.clone();
    let attached = plan
        .attach
        .iter()
        .filter_map(|wish| Some((&wish.name, wish.default?)));
    let changes = plan
        .defaults
        .iter()
        .map(|(name, default, _)| (name, *default));
    for (name, default) in changes.chain(attached) {
        let index = interface::by_name(name)?.index;
        for (_, entry) in changed.iter_mut().filter(|(_, e)| e.ifindex == index) {
            *entry = Interface {
                default,
                probation_ends: 0,
                ..*entry
            };
        }
    }
    if load::reply::is_in_use(&changed, &tables.bindings()?) {
        load::reply::renew(changed.iter_mut().map(|(_, entry)| entry))?;
    }
    for ((_, old), (slot, new)) in entries.iter().zip(&changed) {
        if old != new {
            tables.set_interface(*slot, new)?;
        }
    }
    let is_judged_anew = changed != entries
        || config.kernel_sockets != before.kernel_sockets
        || !plan.attach.is_empty();
    if is_judged_anew {
        // Rows that the old settings let in are to be judged by the new ones.
        config.move_epoch_on();
    }
    if config != before {
        tables.set_config(&config)?;
    }
    Ok(())
}

/// A configuration of the datapath with settings changed.
fn configured(mut config: Config, settings: &[Assignment]) -> Config {
    for assignment in settings {
        match assignment {
            Assignment::Track(track) => config.track = *track,
            Assignment::KernelSockets(on) => config.kernel_sockets = u8::from(*on),
            Assignment::Timeout(state, seconds) => *config.timeouts.of_mut(*state) = *seconds,
            Assignment::Default { .. } | Assignment::Ephemeral(_) => {}
        }
    }
    config
}

fn port_changes(settings: &[Assignment]) -> Vec<ports::Change> {
    let changes = settings.iter().filter_map(|assignment| match assignment {
        Assignment::Ephemeral(change) => Some(change.clone()),
        _ => None,
    });
    changes.collect()
}

/// What undoes changes of settings.
fn going_back(before: &PortSettings, changes: &[ports::Change]) -> Vec<ports::Change> {
    let back = |change: &ports::Change| match change {
        ports::Change::Range(_) => {
            ports::Change::Range((!before.is_kernel_range).then_some(before.range))
        }
        ports::Change::Algorithm(_) => ports::Change::Algorithm(before.algorithm),
        ports::Change::Reserved(_) => {
            let reserved = (!before.is_kernel_reserved).then(|| before.reserved.clone());
            ports::Change::Reserved(reserved)
        }
    };
    changes.iter().map(back).collect()
}

/// Refuses bindings whose endpoints a process has been faster to bind.
fn check_owners(bindings: &[(u16, Binding)]) -> Result<()> {
    let owners = bindings.iter().map(|(_, binding)| binding);
    admission::check_all_sockets(owners.filter(|binding| owned::is_owner(binding)))
}
