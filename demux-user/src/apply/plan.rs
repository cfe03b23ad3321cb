//! From what runs and what is asked for to what is to be done. Nothing here asks the machine.

use std::collections::{HashMap, HashSet, VecDeque};

use demux_common::{
    binding::Binding,
    config::{Mode, Policy},
};

use super::{
    change::{Change, Kind},
    state::{Attached, Bound, State},
};
use crate::{
    Error, Result,
    attach::{EgressChoice, Hook, ModeChoice},
    bindings::{
        BindRequest, Fallback, Pattern, Ports,
        change::stored,
        conflict::{PatternKey, same_pattern_key},
        replace::{Made, Wanted},
    },
    configuration::{BindingWish, Configuration, InterfaceWish},
    settings::Assignment,
};

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// What changes, in words.
    pub changes: Vec<Change>,
    /// Interfaces to attach to.
    pub(crate) attach: Vec<InterfaceWish>,
    /// Interfaces to detach from, by index.
    pub(crate) detach: Vec<u32>,
    /// Defaults to set: the name of the interface, the default, and whether although it could hurt.
    pub(crate) defaults: Vec<(String, Policy, bool)>,
    /// Settings to change.
    pub(crate) settings: Vec<Assignment>,
    /// Bindings to make and to end.
    pub(crate) bindings: Wanted,
}

/// The indexes of the interfaces of a namespace, by name.
pub type Indexes = HashMap<String, u32>;

/// Compares what runs with what is asked for. With `prune`, bindings and interfaces that are not asked for
/// are to go.
///
/// # Errors
///
/// [`Error::OptionsDiffer`] where only a new load could do it, [`Error::UnknownInterface`].
pub fn plan(
    configuration: &Configuration,
    state: &State,
    indexes: &Indexes,
    prune: bool,
) -> Result<Plan> {
    refuse_differences(configuration, state, indexes)?;
    let mut plan = Plan::default();
    if !state.is_loaded && !configuration.interfaces.is_empty() {
        let text = format!(
            "{} connections, {} bindings",
            configuration
                .instance
                .max_connections
                .unwrap_or(state.max_connections),
            max_bindings(configuration, state)
        );
        plan.changes.push(Change::add(Kind::Instance, "new", text));
    }
    plan.interfaces(configuration, state, indexes, prune)?;
    plan.settings(configuration, state);
    plan.bindings(configuration, state, indexes, prune)?;
    Ok(plan)
}

/// How many bindings a new instance has room for: twice those of the file, since one that is replaced
/// takes two for a moment.
pub(crate) fn max_bindings(configuration: &Configuration, state: &State) -> u32 {
    let wanted = 2 * configuration.bindings.len() as u64;
    let most = u64::from(crate::object::Capacities::MAX_BINDINGS);
    configuration
        .instance
        .max_bindings
        .unwrap_or(state.max_bindings.max(wanted.min(most) as u32))
}

/// Refuses what runs otherwise and cannot be changed while it runs.
fn refuse_differences(
    configuration: &Configuration,
    state: &State,
    indexes: &Indexes,
) -> Result<()> {
    if !state.is_loaded {
        return Ok(());
    }
    let mut differences = Vec::new();
    let instance = &configuration.instance;
    for (key, running, asked) in [
        (
            "max_connections",
            state.max_connections,
            instance.max_connections,
        ),
        ("max_bindings", state.max_bindings, instance.max_bindings),
    ] {
        if let Some(asked) = asked.filter(|asked| *asked != running) {
            differences.push(format!("{key} is {running}, not {asked}"));
        }
    }
    let mut remedy = "demux unload --all, then demux apply".to_owned();
    let is_instance = !differences.is_empty();
    let mut interface = "demux".to_owned();
    for wish in &configuration.interfaces {
        let Some(running) = attached(state, indexes, &wish.name) else {
            continue;
        };
        let found = interface_differences(wish, running);
        if !found.is_empty() && !is_instance {
            remedy = format!("demux unload {}, then demux apply", wish.name);
            interface.clone_from(&wish.name);
        }
        differences.extend(found);
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::OptionsDiffer {
        interface,
        differences,
        remedy,
    })
}

fn interface_differences(wish: &InterfaceWish, running: &Attached) -> Vec<String> {
    let name = &wish.name;
    let mode = match wish.mode {
        None | Some(ModeChoice::Auto) => None,
        Some(ModeChoice::Native) => Some(Mode::Native),
        Some(ModeChoice::Generic) => Some(Mode::Generic),
    };
    let egress = match wish.egress {
        None | Some(EgressChoice::Auto) => None,
        Some(EgressChoice::Only(hook)) => Some(hook.name()),
        Some(EgressChoice::Nothing) => Some(Hook::name_of(None)),
    };
    let mode = mode.filter(|mode| *mode != running.entry.mode).map(|mode| {
        let running = running.entry.mode.name();
        format!("mode of {name} is {running}, not {}", mode.name())
    });
    let egress = running.egress.zip(egress);
    let egress = egress
        .filter(|(running, asked)| running != asked)
        .map(|(running, asked)| format!("egress of {name} is {running}, not {asked}"));
    mode.into_iter().chain(egress).collect()
}

fn attached<'s>(state: &'s State, indexes: &Indexes, name: &str) -> Option<&'s Attached> {
    let index = indexes.get(name)?;
    let mut interfaces = state.interfaces.iter();
    interfaces.find(|attached| attached.entry.ifindex == *index)
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn interfaces(
        &mut self,
        configuration: &Configuration,
        state: &State,
        indexes: &Indexes,
        prune: bool,
    ) -> Result<()> {
        for wish in &configuration.interfaces {
            let name = &wish.name;
            match attached(state, indexes, name) {
                None if !indexes.contains_key(name) => {
                    return Err(Error::UnknownInterface(name.clone()));
                }
                None => {
                    let default = wish.default.unwrap_or(Policy::Pass).name();
                    let text = format!("default {default}");
                    self.changes.push(Change::add(Kind::Interface, name, text));
                    self.attach.push(wish.clone());
                }
                Some(running) => {
                    let default = wish.default.filter(|default| *default != running.default);
                    if let Some(default) = default {
                        let (before, after) = (running.default.name(), default.name());
                        self.changes.push(Change::turn(
                            Kind::Interface,
                            name,
                            format!("default {before}"),
                            format!("default {after}"),
                        ));
                        self.defaults.push((name.clone(), default, wish.force));
                    }
                }
            }
        }
        if !prune {
            return Ok(());
        }
        let named: HashSet<u32> = configuration
            .interfaces
            .iter()
            .filter_map(|wish| indexes.get(&wish.name).copied())
            .collect();
        for running in &state.interfaces {
            if !named.contains(&running.entry.ifindex) {
                let text = format!("default {}", running.default.name());
                let change = Change::remove(Kind::Interface, &running.name, text);
                self.changes.push(change);
                self.detach.push(running.entry.ifindex);
            }
        }
        Ok(())
    }

    fn settings(&mut self, configuration: &Configuration, state: &State) {
        for assignment in &configuration.settings {
            let (key, after) = (assignment.key(), assignment.value());
            let before = state.settings.get(&key).cloned().unwrap_or_default();
            if before != after {
                let change = Change::turn(Kind::Setting, &key, before, after);
                self.changes.push(change);
                self.settings.push(assignment.clone());
            }
        }
    }

    fn bindings(
        &mut self,
        configuration: &Configuration,
        state: &State,
        indexes: &Indexes,
        prune: bool,
    ) -> Result<()> {
        let mut matches = Matches::new(configuration, state);
        for wish in &configuration.bindings {
            let ifindex = match &wish.device {
                None => 0,
                Some(name) => *indexes
                    .get(name)
                    .ok_or_else(|| Error::UnknownInterface(name.clone()))?,
            };
            let request = wish.request(ifindex);
            let running = matches.find(wish, &request);
            let name = match (running, &wish.name) {
                (_, Some(name)) => name.clone(),
                (Some(bound), None) => bound.name.clone(),
                (None, None) => matches.generate_name(&wish.pattern),
            };
            let after = || described(wish);
            match running {
                Some(bound) if is_same(bound, &request) => continue,
                Some(bound) => self.changes.push(Change::turn(
                    Kind::Binding,
                    &name,
                    described_running(bound),
                    after(),
                )),
                None => self
                    .changes
                    .push(Change::add(Kind::Binding, &name, after())),
            }
            self.bindings.made.push(Made {
                name,
                request,
                replaces: running.map(|bound| bound.index),
            });
        }
        if prune {
            for bound in matches.unmatched() {
                let text = described_running(bound);
                let change = Change::remove(Kind::Binding, &bound.name, text);
                self.changes.push(change);
                self.bindings.ended.push(bound.index);
            }
        }
        Ok(())
    }
}

/// Which running binding each of the file is: the one with its name, or, where it has none, one with its
/// endpoints that no other of the file names.
struct Matches<'s> {
    state: &'s State,
    by_name: HashMap<&'s str, &'s Bound>,
    by_pattern: HashMap<PatternKey, VecDeque<&'s Bound>>,
    matched: HashSet<u16>,
    names: HashSet<String>,
    generated: HashMap<String, u32>,
}

impl<'s> Matches<'s> {
    fn new(configuration: &Configuration, state: &'s State) -> Self {
        let wanted: HashSet<&str> = configuration
            .bindings
            .iter()
            .filter_map(|wish| wish.name.as_deref())
            .collect();
        let mut by_pattern: HashMap<_, VecDeque<&Bound>> = HashMap::new();
        for bound in &state.bindings {
            if !wanted.contains(bound.name.as_str()) {
                let key = same_pattern_key(&bound.binding);
                by_pattern.entry(key).or_default().push_back(bound);
            }
        }
        let running = state.bindings.iter().map(|bound| bound.name.as_str());
        Self {
            state,
            by_name: running.clone().zip(&state.bindings).collect(),
            by_pattern,
            matched: HashSet::new(),
            names: running
                .map(str::to_owned)
                .chain(wanted.into_iter().map(str::to_owned))
                .collect(),
            generated: HashMap::new(),
        }
    }

    fn find(&mut self, wish: &BindingWish, request: &BindRequest) -> Option<&'s Bound> {
        let found = match &wish.name {
            Some(name) => self.by_name.get(name.as_str()).copied(),
            None => {
                let key = same_pattern_key(&stored(request, "", 1));
                let same = self.by_pattern.get_mut(&key)?;
                // Of several, the one that needs no change.
                let place = same.iter().position(|bound| is_same(bound, request));
                same.remove(place.unwrap_or(0))
            }
        };
        self.matched.extend(found.map(|bound| bound.index));
        found
    }

    fn unmatched(&self) -> impl Iterator<Item = &'s Bound> {
        let bindings = self.state.bindings.iter();
        bindings.filter(|bound| !self.matched.contains(&bound.index))
    }

    /// As for `demux bind`: `tcp-80`, or `tcp-80-2` where that is taken.
    fn generate_name(&mut self, pattern: &Pattern) -> String {
        let ports = match pattern.ports {
            Ports::ANY => "any".to_owned(),
            ports => ports.to_string(),
        };
        let base = format!("{}-{ports}", pattern.protocol.name());
        let next = self.generated.entry(base.clone()).or_insert(1);
        loop {
            let name = match *next {
                1 => base.clone(),
                number => format!("{base}-{number}"),
            };
            *next += 1;
            if self.names.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// The flags that users ask for.
const ASKED: u8 = Binding::REUSE_ADDR | Binding::REUSE_PORT | Binding::UNTRACKED;

/// Whether a running binding is what is asked for.
fn is_same(bound: &Bound, request: &BindRequest) -> bool {
    let asked = stored(request, "", 1);
    let running = &bound.binding;
    same_pattern_key(running) == same_pattern_key(&asked)
        && running.flags & ASKED == asked.flags & ASKED
        && running.target == asked.target
        && Fallback::of(running) == Fallback::of(&asked)
        && bound.target == request.target.to_string()
}

/// A binding of the file in words, those of `demux bind`.
fn described(wish: &BindingWish) -> String {
    let binding = stored(&wish.request(0), "", 1);
    words(&binding, &wish.target.to_string(), wish.device.as_deref())
}

/// A running binding in the same words.
fn described_running(bound: &Bound) -> String {
    words(&bound.binding, &bound.target, bound.device.as_deref())
}

fn words(binding: &Binding, target: &str, device: Option<&str>) -> String {
    let pattern = Pattern::of(binding);
    let mut text = format!("{} {pattern} to {target}", pattern.protocol.name());
    if let Some(device) = device {
        text.push_str(" dev ");
        text.push_str(device);
    }
    for (flag, word) in [
        (Binding::REUSE_ADDR, " reuse-addr"),
        (Binding::REUSE_PORT, " reuse-port"),
        (Binding::V6_ONLY, " v6-only"),
        (Binding::UNTRACKED, " untracked"),
    ] {
        if binding.has(flag) {
            text.push_str(word);
        }
    }
    if let Some(fallback) = Fallback::of(binding) {
        text.push_str(" fallback ");
        text.push_str(fallback.name());
    }
    text
}
