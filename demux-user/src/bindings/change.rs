//! Making and ending bindings.

use std::{collections::HashSet, slice};

use demux_common::{
    binding::{Binding, NAME_LEN},
    config::Config,
    protocol::Protocol,
};

use super::{
    Compiled, Destination, Pattern,
    admission::{self, Host, written},
    compile, conflict,
    publish::{publish, withdraw},
    steering::{self, SetIndexes},
};
use crate::{
    Error, Result, bpf,
    bpffs::BpfFs,
    load::reply,
    locals,
    netns::NetworkNamespace,
    owned, ports,
    state::{Instance, Lock, Paths},
    tables::{Access, Tables},
};

/// What a user asks for.
#[derive(Clone, Debug)]
pub struct BindRequest {
    /// The local endpoints.
    pub pattern: Pattern,
    /// Where their packets go.
    pub target: Destination,
    /// What becomes of packets that the target cannot take; `None` for what is usual: they go up the
    /// stack instead of to a CPU, and are dropped instead of going to sockets.
    pub fallback: Option<Fallback>,
    /// The name; generated where there is none.
    pub name: Option<String>,
    /// The index of the device; 0 for every device.
    pub ifindex: u32,
    /// [`Binding::REUSE_ADDR`] and its siblings; [`Binding::V6_ONLY`] follows from the pattern.
    pub flags: u8,
    /// Whether the address may be none of this host's, as IP_FREEBIND allows.
    pub freebind: bool,
}

/// What becomes of packets that a CPU or a socket cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// They are dropped: the kernel would refuse what it does not know, and so end the connections.
    Drop,
    /// They go up the stack.
    Stack,
}

impl Fallback {
    /// The word that users write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Stack => "stack",
        }
    }

    /// That of a binding; `None` where its target takes everything.
    #[must_use]
    pub const fn of(binding: &Binding) -> Option<Self> {
        if !binding.target.is_steered() {
            return None;
        }
        Some(if binding.has(Binding::FALLBACK_STACK) {
            Self::Stack
        } else {
            Self::Drop
        })
    }
}

impl BindRequest {
    /// A binding of local endpoints, written as for `demux bind`, with nothing else asked for.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`].
    pub fn new(protocol: Protocol, local: &str, target: Destination) -> Result<Self> {
        Ok(Self {
            pattern: Pattern::parse(protocol, local, false)?,
            target,
            fallback: None,
            name: None,
            ifindex: 0,
            flags: 0,
            freebind: false,
        })
    }
}

/// Which binding a user means.
#[derive(Clone, Debug)]
pub enum Selector {
    /// The one with this name.
    Name(String),
    /// The one with this pattern.
    Pattern(Pattern),
}

/// The name of a binding.
#[must_use]
pub fn name_of(binding: &Binding) -> String {
    let end = binding
        .name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(NAME_LEN);
    String::from_utf8_lossy(&binding.name[..end]).into_owned()
}

/// Makes a binding, which holds from the next packet on, and returns its name.
///
/// # Errors
///
/// As [`bind_all`].
pub fn bind(bpffs: &BpfFs, request: &BindRequest) -> Result<String> {
    let mut names = bind_all(bpffs, slice::from_ref(request))?;
    Ok(names.remove(0))
}

/// Makes several bindings, each beside those before it, or none; returns their names.
///
/// # Errors
///
/// [`Error::NotLoaded`], [`Error::NameTaken`], [`Error::BindingTableFull`], [`Error::InvalidArgument`]
/// for a CPU that is not there, [`Error::SocketSetsFull`], and what bind(2) would
/// refuse: [`Error::AddressInUse`] beside another binding, [`Error::SocketInUse`] beside a socket of
/// the kernel unless the target is the stack, [`Error::AddressNotAvailable`], and
/// [`Error::MissingCapability`] for a privileged port. [`Error::GroupFull`].
pub fn bind_all(bpffs: &BpfFs, requests: &[BindRequest]) -> Result<Vec<String>> {
    for request in requests {
        if let Some(name) = &request.name {
            check_name(name)?;
        }
        if let Destination::Cpus(cpus) = &request.target {
            cpus.check_online()?;
        }
    }
    let instance = open(bpffs)?;
    let tables = Tables::open(&instance, Access::ReadWrite)?;
    let mut bindings = tables.bindings()?;
    let old = bindings.len();
    let Config { mut epoch, .. } = tables.config()?;
    let mut taken: HashSet<String> = bindings
        .iter()
        .map(|(_, binding)| name_of(binding))
        .collect();
    let used: HashSet<u16> = bindings.iter().map(|(index, _)| *index).collect();
    let max = tables.max_bindings()?;
    let mut free = (1..=max)
        .filter_map(|index| u16::try_from(index).ok())
        .filter(|index| !used.contains(index));
    let host = Host::read()?;
    let sets = SetIndexes::choose(&tables, requests)?;
    let mut names = Vec::new();
    for request in requests {
        let name = choose_name(request, &taken)?;
        let index = free.next().ok_or(Error::BindingTableFull(max))?;
        epoch = Config::next_epoch(epoch);
        let binding = Binding {
            set: sets.of(&request.target),
            steered_until: tables.steered_until(index)?,
            ..stored(request, &name, epoch)
        };
        host.admit(&request.pattern, request.freebind)?;
        if let Some(holder) = conflict::holder(&binding, bindings.iter().map(|(_, other)| other)) {
            return Err(Error::AddressInUse {
                pattern: written(&request.pattern),
                holder: format!("binding {:?}", name_of(holder)),
            });
        }
        admission::check_sockets(&binding)?;
        bindings.push((index, binding));
        taken.insert(name.clone());
        names.push(name);
    }
    let compiled = compile(&bindings)?;

    instance.begin_change()?;
    locals::refresh(&tables)?;
    if requests.iter().any(|r| r.target == Destination::Reject) {
        renew_replies(&tables)?;
    }
    let new = bindings.split_off(old);
    let prepared = steering::prepare(&tables, requests, &new, &sets);
    if let Err(error) =
        prepared.and_then(|()| enter(instance.paths(), &tables, &bindings, &new, &compiled))
    {
        // What was published of them is found by nobody once all else is as it was.
        let mut before = compile(&bindings)?;
        owned::renew(instance.paths(), &tables, &bindings)?;
        before.relinked = bindings;
        withdraw(&tables, &before)?;
        for (index, binding) in &new {
            tables.clear_binding(*index, binding.steered_until)?;
        }
        steering::tidy(&tables)?;
        instance.end_change()?;
        return Err(error);
    }
    let config = Config {
        epoch,
        ..tables.config()?
    };
    tables.set_config(&config)?;
    ports::bar_bound(&tables, &[bindings, new].concat())?;
    instance.end_change()?;
    Ok(names)
}

/// Writes new bindings beside old ones, linked to each other and to those, and then what leads to
/// them. Whoever dies here leaves a binding that the next command puts into effect.
fn enter(
    paths: &Paths,
    tables: &Tables,
    old: &[(u16, Binding)],
    new: &[(u16, Binding)],
    compiled: &Compiled,
) -> Result<()> {
    for (index, binding) in new {
        let linked = compiled.relinked.iter().find(|(other, _)| other == index);
        let binding = linked.map_or(binding, |(_, linked)| linked);
        tables.clear_binding_count(*index)?;
        tables.set_binding(*index, binding)?;
    }
    owned::renew(paths, tables, &[old, new].concat())?;
    // A process may have been faster since it was looked for, and none can be from here on.
    for (_, binding) in new.iter().filter(|(_, binding)| owned::is_owner(binding)) {
        admission::check_sockets(binding)?;
    }
    publish(tables, compiled)
}

/// Ends a binding, and returns its name.
///
/// # Errors
///
/// [`Error::NotLoaded`], [`Error::BindingNotFound`], [`Error::AmbiguousBinding`].
pub fn unbind(bpffs: &BpfFs, selector: &Selector) -> Result<String> {
    let instance = open(bpffs)?;
    let tables = Tables::open(&instance, Access::ReadWrite)?;
    let mut bindings = tables.bindings()?;
    let (index, binding) = find(&bindings, selector)?;
    bindings.retain(|(other, _)| *other != index);
    let mut config = tables.config()?;
    config.move_epoch_on();
    let compiled = compile(&bindings)?;
    instance.begin_change()?;
    withdraw(&tables, &compiled)?;
    tables.set_config(&config)?;
    if binding.next_member != 0 {
        // Who is walking around the group may be about to look at it. Where the kernel cannot wait
        // for them, they find a free entry, which leads nowhere.
        let _ = bpf::synchronize();
    }
    owned::renew(instance.paths(), &tables, &bindings)?;
    let steered_until = if binding.target.is_steered() {
        config.epoch
    } else {
        binding.steered_until
    };
    tables.clear_binding(index, steered_until)?;
    steering::tidy(&tables)?;
    ports::bar_bound(&tables, &bindings)?;
    instance.end_change()?;
    Ok(name_of(&binding))
}

/// Finds out how refusals leave by each interface, now that some will.
fn renew_replies(tables: &Tables) -> Result<()> {
    for (slot, old) in tables.interfaces()? {
        let mut new = old;
        reply::renew([&mut new])?;
        if new != old {
            tables.set_interface(slot, &new)?;
        }
    }
    Ok(())
}

/// The name that was asked for, or one that is free.
fn choose_name(request: &BindRequest, taken: &HashSet<String>) -> Result<String> {
    match &request.name {
        Some(name) if taken.contains(name) => Err(Error::NameTaken(name.clone())),
        Some(name) => Ok(name.clone()),
        None => Ok(generate_name(&request.pattern, taken)),
    }
}

fn open(bpffs: &BpfFs) -> Result<Instance> {
    let namespace = NetworkNamespace::current()?;
    Instance::open(bpffs, namespace.cookie(), Lock::Exclusive)
}

fn find(bindings: &[(u16, Binding)], selector: &Selector) -> Result<(u16, Binding)> {
    let matching: Vec<&(u16, Binding)> = bindings
        .iter()
        .filter(|(_, binding)| match selector {
            Selector::Name(name) => name_of(binding) == *name,
            Selector::Pattern(pattern) => Pattern::of(binding) == *pattern,
        })
        .collect();
    let written = match selector {
        Selector::Name(name) => name.clone(),
        Selector::Pattern(pattern) => format!("{} {pattern}", pattern.protocol.name()),
    };
    match matching.as_slice() {
        [] => Err(Error::BindingNotFound(written)),
        [only] => Ok(**only),
        several => Err(Error::AmbiguousBinding {
            pattern: written,
            names: several
                .iter()
                .map(|(_, binding)| name_of(binding))
                .collect(),
        }),
    }
}

fn stored(request: &BindRequest, name: &str, epoch: u32) -> Binding {
    let (address, family, prefix_len, v6_only) = request.pattern.stored_address();
    let mut bytes = [0; NAME_LEN];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    let falls_back = match request.fallback {
        Some(fallback) => fallback == Fallback::Stack,
        None => matches!(request.target, Destination::Cpus(_)),
    };
    Binding {
        address,
        name: bytes,
        created: epoch,
        ifindex: request.ifindex,
        first_port: request.pattern.ports.first,
        last_port: request.pattern.ports.last,
        family,
        protocol: request.pattern.protocol,
        prefix_len,
        target: request.target.target(),
        flags: request.flags
            | if v6_only { Binding::V6_ONLY } else { 0 }
            | if falls_back {
                Binding::FALLBACK_STACK
            } else {
                0
            },
        ..Binding::FREE
    }
}

/// Names are shown in tables and typed in shells: a letter or digit, then up to 30 more of those,
/// dots, dashes and underscores.
fn check_name(name: &str) -> Result<()> {
    let invalid = |reason: &str| Err(Error::invalid("binding name", name, reason));
    if name.len() >= NAME_LEN {
        return invalid("it is longer than 31 bytes");
    }
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return invalid("it does not begin with a letter or a digit");
    }
    if name
        .chars()
        .any(|other| !other.is_ascii_alphanumeric() && !"._-".contains(other))
    {
        return invalid(
            "it has other characters than letters, digits, dots, dashes and underscores",
        );
    }
    if name == "tcp" || name == "udp" {
        return invalid("it is the name of a protocol");
    }
    Ok(())
}

/// `tcp-80`, or `tcp-80-2` where that is taken.
fn generate_name(pattern: &Pattern, taken: &HashSet<String>) -> String {
    let ports = match pattern.ports {
        super::Ports::ANY => "any".to_owned(),
        ports => ports.to_string(),
    };
    let base = format!("{}-{ports}", pattern.protocol.name());
    if !taken.contains(&base) {
        return base;
    }
    (2..)
        .map(|number: u32| format!("{base}-{number}"))
        .find(|name| !taken.contains(name))
        .expect("there are more numbers than bindings")
}
