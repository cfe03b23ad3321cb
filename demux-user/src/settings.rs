//! Settings that can be changed while demux runs: reading them, and changing several at once.

use std::time::Duration;

use demux_common::{
    config::{Config, Interface, Policy, Track},
    connection::State,
};

use crate::{
    Error, Result,
    bpffs::BpfFs,
    interface, load, locals,
    netns::NetworkNamespace,
    ports::{self, PortSettings},
    state::{Instance, Lock},
    tables::{Access, Tables, now},
};

/// The longest timeout: a year.
pub(crate) const MAX_TIMEOUT: u32 = 365 * 24 * 60 * 60;

/// A change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// The default of an interface; of all of them where none is named.
    Default {
        /// The interface.
        interface: Option<String>,
        /// The default.
        policy: Policy,
    },
    /// Which endpoints get rows.
    Track(Track),
    /// Whether the kernel's own sockets are asked before a default applies.
    KernelSockets(bool),
    /// Seconds after which a row of a state expires.
    Timeout(State, u32),
    /// How source ports are chosen.
    Ephemeral(ports::Change),
}

impl Assignment {
    /// The key that `demux set` knows it by.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Default {
                interface: Some(interface),
                ..
            } => format!("default@{interface}"),
            Self::Default {
                interface: None, ..
            } => "default".to_owned(),
            Self::Track(_) => "track".to_owned(),
            Self::KernelSockets(_) => "kernel-sockets".to_owned(),
            Self::Timeout(state, _) => format!("timeout.{}", state.name().to_lowercase()),
            Self::Ephemeral(change) => format!("ephemeral.{}", change.key()),
        }
    }

    /// Its value, as `demux settings` shows it.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::Default { policy, .. } => policy.name().to_owned(),
            Self::Track(track) => track.name().to_owned(),
            Self::KernelSockets(true) => "on".to_owned(),
            Self::KernelSockets(false) => "off".to_owned(),
            Self::Timeout(_, seconds) => seconds.to_string(),
            Self::Ephemeral(change) => change.value(),
        }
    }

    /// Reads `KEY=VALUE`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] that lists the keys, or the values of the key.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason: String| Error::invalid("setting", text, reason);
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| invalid("write KEY=VALUE".to_owned()))?;
        let (key, interface) = match key.split_once('@') {
            Some((key, interface)) => (key, Some(interface.to_owned())),
            None => (key, None),
        };
        if interface.is_some() && key != "default" {
            return Err(invalid(
                "only default@IFACE is for one interface".to_owned(),
            ));
        }
        match key {
            "default" => parse_policy(value)
                .map(|policy| Self::Default { interface, policy })
                .map_err(invalid),
            "track" => match value {
                "local" => Ok(Self::Track(Track::Local)),
                "bound" => Ok(Self::Track(Track::Bound)),
                _ => Err(invalid("track is local or bound".to_owned())),
            },
            "kernel-sockets" => match value {
                "on" => Ok(Self::KernelSockets(true)),
                "off" => Ok(Self::KernelSockets(false)),
                _ => Err(invalid("kernel-sockets is on or off".to_owned())),
            },
            _ if key.starts_with("ephemeral.") => {
                ports::Change::parse(&key["ephemeral.".len()..], value)
                    .map(Self::Ephemeral)
                    .map_err(invalid)
            }
            _ => {
                let name = key.strip_prefix("timeout.").ok_or_else(|| {
                    invalid(
                        "the keys are default[@IFACE], track, kernel-sockets, timeout.STATE, ephemeral.range, ephemeral.algorithm and ephemeral.reserved"
                            .to_owned(),
                    )
                })?;
                let state = State::ALL
                    .iter()
                    .find(|state| state.name().eq_ignore_ascii_case(name))
                    .ok_or_else(|| {
                        let names: Vec<String> = State::ALL
                            .iter()
                            .map(|state| state.name().to_lowercase())
                            .collect();
                        invalid(format!("the states are {}", names.join(", ")))
                    })?;
                let seconds = value
                    .parse()
                    .ok()
                    .filter(|seconds| (1..=MAX_TIMEOUT).contains(seconds))
                    .ok_or_else(|| invalid(format!("a timeout is 1 to {MAX_TIMEOUT} seconds")))?;
                Ok(Self::Timeout(*state, seconds))
            }
        }
    }
}

/// Reads the name of a default.
///
/// # Errors
///
/// A sentence with the names that there are.
pub fn parse_policy(text: &str) -> Result<Policy, String> {
    match text {
        "pass" => Ok(Policy::Pass),
        "drop" => Ok(Policy::Drop),
        "reject" => Ok(Policy::Reject),
        _ => Err("a default is pass, drop or reject".to_owned()),
    }
}

/// Applies changes, all of them or none. A default other than `pass` is refused where it could drop
/// wanted packets, unless `force` is given, and is on probation for as long as `probation` says.
///
/// # Errors
///
/// [`Error::NotLoaded`], [`Error::NotAttached`], [`Error::UnsafeDefault`]; nothing is changed then.
pub fn set(
    bpffs: &BpfFs,
    assignments: &[Assignment],
    force: bool,
    probation: Option<Duration>,
) -> Result<()> {
    let namespace = NetworkNamespace::current()?;
    let instance = Instance::open(bpffs, namespace.cookie(), Lock::Exclusive)?;
    let tables = Tables::open(&instance, Access::ReadWrite)?;
    let before = tables.config()?;
    let mut config = before;
    let entries = tables.interfaces()?;
    let mut changed = entries.clone();
    let mut changes = Vec::new();
    for assignment in assignments {
        match assignment {
            Assignment::Default { interface, policy } => {
                change_default(&mut changed, interface.as_deref(), *policy, probation)?;
            }
            Assignment::Track(track) => config.track = *track,
            Assignment::KernelSockets(on) => config.kernel_sockets = u8::from(*on),
            Assignment::Timeout(state, seconds) => *config.timeouts.of_mut(*state) = *seconds,
            Assignment::Ephemeral(change) => changes.push(change.clone()),
        }
    }
    let is_default_set = assignments
        .iter()
        .any(|assignment| matches!(assignment, Assignment::Default { policy, .. } if *policy != Policy::Pass));
    if probation.is_some() && !is_default_set {
        return Err(Error::invalid(
            "option",
            "--try",
            "it goes with a default other than pass",
        ));
    }
    if !force {
        refuse_risks(&entries, &changed)?;
    }
    if load::reply::is_in_use(&changed, &tables.bindings()?) {
        load::reply::renew(changed.iter_mut().map(|(_, entry)| entry))?;
    }

    instance.begin_change()?;
    if let Err(error) = ports::change(&tables, &changes) {
        // It refuses before it writes.
        instance.end_change()?;
        return Err(error);
    }
    locals::refresh(&tables)?;
    // `refresh` has brought its own field up to date.
    config.local_prefixes = tables.config()?.local_prefixes;
    for ((_, old), (slot, new)) in entries.iter().zip(&changed) {
        if old != new {
            tables.set_interface(*slot, new)?;
        }
    }
    if changed != entries || config.kernel_sockets != before.kernel_sockets {
        // Rows that the old settings let in are to be judged by the new ones.
        config.move_epoch_on();
    }
    if config != before {
        tables.set_config(&config)?;
    }
    instance.end_change()
}

fn change_default(
    entries: &mut [(u32, Interface)],
    name: Option<&str>,
    policy: Policy,
    probation: Option<Duration>,
) -> Result<()> {
    let index = match name {
        Some(name) => {
            let index = interface::by_name(name)?.index;
            if !entries.iter().any(|(_, entry)| entry.ifindex == index) {
                return Err(Error::NotAttached(name.to_owned()));
            }
            Some(index)
        }
        None => None,
    };
    for (_, entry) in entries {
        if index.is_none_or(|index| index == entry.ifindex) {
            entry.default = policy;
            entry.probation_ends = match probation {
                Some(probation) if policy != Policy::Pass => load::deadline(probation),
                _ => 0,
            };
        }
    }
    Ok(())
}

fn refuse_risks(before: &[(u32, Interface)], after: &[(u32, Interface)]) -> Result<()> {
    let now = now();
    for ((_, old), (_, new)) in before.iter().zip(after) {
        let applied = old.default == new.default && !old.is_probation_over(now);
        if new.default == Policy::Pass || applied {
            continue;
        }
        if let Some(device) = interface::by_index(new.ifindex)? {
            load::refuse_risk(&device, new.default)?;
        }
    }
    Ok(())
}

/// The settings as they are, as keys and values of `demux set`. An interface is named by `name`.
#[must_use]
pub fn settings(
    config: &Config,
    interfaces: &[Interface],
    ports: &PortSettings,
    name: impl Fn(u32) -> String,
) -> Vec<(String, String)> {
    let mut settings: Vec<(String, String)> = interfaces
        .iter()
        .map(|entry| {
            let default = if entry.is_probation_over(now()) {
                Policy::Pass
            } else {
                entry.default
            };
            (
                format!("default@{}", name(entry.ifindex)),
                default.name().to_owned(),
            )
        })
        .collect();
    let sockets = if config.kernel_sockets == 0 {
        "off"
    } else {
        "on"
    };
    settings.push(("track".to_owned(), config.track.name().to_owned()));
    settings.push(("kernel-sockets".to_owned(), sockets.to_owned()));
    settings.extend(ports.pairs());
    for state in State::ALL {
        settings.push((
            format!("timeout.{}", state.name().to_lowercase()),
            config.timeouts.of(*state).to_string(),
        ));
    }
    settings
}
