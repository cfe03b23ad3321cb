//! What runs: read once, to be compared and to be written as a configuration.

use std::collections::HashMap;

use demux_common::{
    binding::Binding,
    config::{Config, Interface, Policy},
};

use crate::{
    Error, Result,
    bindings::{Labels, change::name_of},
    bpffs::BpfFs,
    interface,
    load::{self, steps},
    netns::NetworkNamespace,
    ports::{self, PortSettings},
    settings,
    state::{Instance, Lock, Paths},
    tables::{Access, Tables, now},
};

/// What runs in a network namespace.
#[derive(Debug)]
pub struct State {
    /// Whether there is an instance; if not, the rest is what a new one would have.
    pub is_loaded: bool,
    /// Rows of the connection table.
    pub max_connections: u32,
    /// Bindings that there is room for.
    pub max_bindings: u32,
    /// The settings, by the keys of `demux set`.
    pub settings: HashMap<String, String>,
    /// The interfaces that are attached, in the order of their names.
    pub interfaces: Vec<Attached>,
    /// The bindings, in the order in which they were bound.
    pub bindings: Vec<Bound>,
}

/// An interface that demux is attached to.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Its name; `#7` where it has none here.
    pub name: String,
    /// Its entry.
    pub entry: Interface,
    /// The default that applies now.
    pub default: Policy,
    /// `tcx`, `clsact` or `none`; `None` where the caller may not know.
    pub egress: Option<&'static str>,
}

/// A binding.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Its entry.
    pub index: u16,
    /// What is stored of it.
    pub binding: Binding,
    /// Its name.
    pub name: String,
    /// Its target, as users write it.
    pub target: String,
    /// The name of its device.
    pub device: Option<String>,
}

/// The names of interfaces, by index.
pub type Names = HashMap<u32, String>;

/// The names of the interfaces of this namespace.
///
/// # Errors
///
/// Where rtnetlink cannot be asked.
pub fn names() -> Result<Names> {
    let all = interface::all()?.into_iter();
    Ok(all.map(|device| (device.index, device.name)).collect())
}

impl State {
    /// What a new instance would have, before anything is asked of it.
    ///
    /// # Errors
    ///
    /// Where the kernel's settings cannot be read.
    pub fn nothing() -> Result<Self> {
        let capacities = crate::object::Capacities::default();
        Ok(Self {
            is_loaded: false,
            max_connections: capacities.connections,
            max_bindings: capacities.bindings,
            settings: pairs(&load::initial_config(), &PortSettings::kernel()?),
            interfaces: Vec::new(),
            bindings: Vec::new(),
        })
    }

    /// What runs here, read under a shared lock; what a new instance would have where nothing does.
    ///
    /// # Errors
    ///
    /// Where it may not be read, and as [`Tables::open`].
    pub fn read_present(bpffs: Option<&BpfFs>, names: &Names) -> Result<Self> {
        let Some(bpffs) = bpffs else {
            return Self::nothing();
        };
        let namespace = NetworkNamespace::current()?;
        match Instance::open(bpffs, namespace.cookie(), Lock::Shared) {
            Ok(instance) => {
                let tables = Tables::open(&instance, Access::ReadOnly)?;
                Self::read(instance.paths(), &tables, names)
            }
            Err(Error::NotLoaded) => Self::nothing(),
            Err(error) => Err(error),
        }
    }

    /// What an instance has, whose lock is held.
    ///
    /// # Errors
    ///
    /// Where maps or pins cannot be read.
    pub fn read(paths: &Paths, tables: &Tables, names: &Names) -> Result<Self> {
        let config = tables.config()?;
        let show = |index: u32| match names.get(&index) {
            Some(name) => name.clone(),
            None => format!("#{index}"),
        };
        let now = now();
        let mut interfaces = Vec::new();
        for (_, entry) in tables.interfaces()? {
            if !steps::is_attached(paths, entry.ifindex)? {
                continue;
            }
            interfaces.push(Attached {
                name: show(entry.ifindex),
                default: if entry.is_probation_over(now) {
                    Policy::Pass
                } else {
                    entry.default
                },
                egress: steps::egress_name(paths, entry.ifindex)?,
                entry,
            });
        }
        interfaces.sort_by(|one, other| one.name.cmp(&other.name));
        let mut bindings = tables.bindings()?;
        // Epochs wrap; none is from the future.
        bindings.sort_by_key(|(index, binding)| {
            (
                std::cmp::Reverse(config.epoch.wrapping_sub(binding.created)),
                *index,
            )
        });
        let labels = Labels::read(tables, &bindings)?;
        let bound = bindings.into_iter().map(|(index, binding)| Bound {
            index,
            name: name_of(&binding),
            target: labels.of(index, &binding).into_owned(),
            device: (binding.ifindex != 0).then(|| show(binding.ifindex)),
            binding,
        });
        Ok(Self {
            is_loaded: true,
            max_connections: tables.max_connections()?,
            max_bindings: tables.max_bindings()?,
            settings: pairs(&config, &ports::settings(tables)?),
            interfaces,
            bindings: bound.collect(),
        })
    }
}

fn pairs(config: &Config, ports: &PortSettings) -> HashMap<String, String> {
    let pairs = settings::settings(config, &[], ports, |_| String::new());
    pairs.into_iter().collect()
}
