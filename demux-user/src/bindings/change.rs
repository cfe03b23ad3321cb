//! Making and ending bindings.

use std::collections::HashSet;

use demux_common::binding::{Binding, NAME_LEN, Target};

use super::{Pattern, compile, publish::publish};
use crate::{
    Error, Result,
    bpffs::BpfFs,
    load::reply,
    locals,
    netns::NetworkNamespace,
    state::{Instance, Lock},
    tables::{Access, Tables},
};

/// What a user asks for.
#[derive(Clone, Debug)]
pub struct BindRequest {
    /// The local endpoints.
    pub pattern: Pattern,
    /// Where their packets go.
    pub target: Target,
    /// The name; generated where there is none.
    pub name: Option<String>,
    /// The index of the device; 0 for every device.
    pub ifindex: u32,
    /// [`Binding::REUSE_ADDR`] and its siblings; [`Binding::V6_ONLY`] follows from the pattern.
    pub flags: u8,
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
/// [`Error::NotLoaded`], [`Error::NameTaken`], [`Error::AddressInUse`], [`Error::BindingTableFull`].
pub fn bind(bpffs: &BpfFs, request: &BindRequest) -> Result<String> {
    if let Some(name) = &request.name {
        check_name(name)?;
    }
    let instance = open(bpffs)?;
    let tables = Tables::open(&instance, Access::ReadWrite)?;
    let mut bindings = tables.bindings()?;
    let names: HashSet<String> = bindings
        .iter()
        .map(|(_, binding)| name_of(binding))
        .collect();
    let name = match &request.name {
        Some(name) if names.contains(name) => return Err(Error::NameTaken(name.clone())),
        Some(name) => name.clone(),
        None => generate_name(&request.pattern, &names),
    };
    let used: HashSet<u16> = bindings.iter().map(|(index, _)| *index).collect();
    let max = tables.max_bindings()?;
    let index = (1..=max)
        .filter_map(|index| u16::try_from(index).ok())
        .find(|index| !used.contains(index))
        .ok_or(Error::BindingTableFull(max))?;

    locals::refresh(&tables)?;
    if request.target == Target::Reject {
        renew_replies(&tables)?;
    }
    let mut config = tables.config()?;
    config.move_epoch_on();
    let binding = stored(request, &name, config.epoch);
    bindings.push((index, binding));
    let compiled = compile(&bindings)?;

    tables.clear_binding_count(index)?;
    tables.set_binding(index, &binding)?;
    if let Err(error) = publish(&tables, &compiled) {
        // What was published of it is found by nobody once the tables are as they were.
        bindings.pop();
        publish(&tables, &compile(&bindings)?)?;
        tables.clear_binding(index)?;
        return Err(error);
    }
    tables.set_config(&config)?;
    Ok(name)
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
    publish(&tables, &compile(&bindings)?)?;
    tables.set_config(&config)?;
    tables.clear_binding(index)?;
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
        target: request.target,
        flags: request.flags | if v6_only { Binding::V6_ONLY } else { 0 },
        reserved: 0,
        next_member: 0,
        reserved_2: [0; 3],
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
