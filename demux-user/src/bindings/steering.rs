//! What bindings to CPUs and to AF_XDP sockets need besides their own entries: the list of CPUs, the
//! kernel's threads on them, and the set of sockets that they name.

use std::collections::{BTreeSet, HashMap, HashSet};

use demux_common::{
    binding::Target,
    steering::{CpuList, Ownership, XskSet},
};

use super::{BindRequest, Destination, destination::SetName};
use crate::{Error, Result, tables::Tables};

/// The indexes of the sets that bindings to come name.
#[derive(Debug, Default)]
pub(super) struct SetIndexes {
    known: HashMap<SetName, u16>,
    new: Vec<(u16, SetName)>,
}

impl SetIndexes {
    /// Looks them up, and chooses free ones for those that have no entry yet. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`Error::SocketSetsFull`], and where the map cannot be read.
    pub(super) fn choose<'r>(
        tables: &Tables,
        requests: impl Iterator<Item = &'r BindRequest>,
    ) -> Result<Self> {
        let mut wanted = requests
            .filter_map(|request| match &request.target {
                Destination::Sockets(name) => Some(name),
                _ => None,
            })
            .peekable();
        if wanted.peek().is_none() {
            return Ok(Self::default());
        }
        let sets = tables.xsk_sets()?;
        let mut chosen = Self {
            known: sets
                .iter()
                .map(|(index, set)| (SetName::of(set), *index))
                .collect(),
            new: Vec::new(),
        };
        let used: HashSet<u16> = sets.iter().map(|(index, _)| *index).collect();
        let max = tables.max_xsk_sets()? as u16;
        let mut free = (1..max).filter(|index| !used.contains(index));
        for name in wanted {
            if !chosen.known.contains_key(name) {
                let index = free.next().ok_or(Error::SocketSetsFull(max - 1))?;
                chosen.known.insert(name.clone(), index);
                chosen.new.push((index, name.clone()));
            }
        }
        Ok(chosen)
    }

    /// The index of the set that a target names; 0 where it names none.
    pub(super) fn of(&self, target: &Destination) -> u16 {
        match target {
            Destination::Sockets(name) => self.known.get(name).copied().unwrap_or_default(),
            _ => 0,
        }
    }
}

/// Writes what new bindings need, before they are written themselves: `lists` has the CPUs of each.
///
/// # Errors
///
/// Where a map cannot be written, and where the kernel refuses a CPU; [`tidy`] then removes the rest.
pub(super) fn prepare<'l>(
    tables: &Tables,
    lists: impl Iterator<Item = (u16, &'l CpuList)>,
    sets: &SetIndexes,
) -> Result<()> {
    for (index, name) in &sets.new {
        let set = XskSet {
            name: name.stored(),
            generation: tables.xsk_set(*index)?.generation,
            ..XskSet::FREE
        };
        tables.set_xsk_set(*index, &set)?;
    }
    let mut lists = lists.filter(|(_, list)| list.count != 0).peekable();
    if lists.peek().is_none() {
        return Ok(());
    }
    let mut taking: HashSet<u16> = cpus_of(tables)?;
    for (index, list) in lists {
        for &cpu in list.as_slice() {
            if taking.insert(cpu) {
                tables.add_cpu(cpu)?;
            }
        }
        tables.set_cpu_list(index, list)?;
    }
    Ok(())
}

/// The CPUs that packets can be handed to.
fn cpus_of(tables: &Tables) -> Result<HashSet<u16>> {
    let cpus = tables.cpus()?;
    Ok(cpus.into_iter().map(|(cpu, _)| cpu as u16).collect())
}

/// Removes what no binding needs: lists and threads of CPUs, and names of sets without sockets.
///
/// # Errors
///
/// Where a map cannot be read or written.
pub(crate) fn tidy(tables: &Tables) -> Result<()> {
    let bindings = tables.bindings()?;
    let mut cpus = BTreeSet::new();
    for (index, binding) in &bindings {
        if binding.target == Target::Cpu {
            cpus.extend(tables.cpu_list(*index)?.as_slice().iter().copied());
        }
    }
    for cpu in cpus_of(tables)? {
        if !cpus.contains(&cpu) {
            tables.remove_cpu(cpu)?;
        }
    }
    let bound: HashSet<u16> = bindings.iter().map(|(index, _)| *index).collect();
    for index in tables.cpu_lists()? {
        if !bound.contains(&index) {
            tables.set_cpu_list(index, &CpuList::EMPTY)?;
        }
    }
    let named: HashSet<u16> = bindings.iter().map(|(_, binding)| binding.set).collect();
    for (index, set) in tables.xsk_sets()? {
        if set.ownership == Ownership::None && !named.contains(&index) {
            let free = XskSet {
                generation: set.generation,
                ..XskSet::FREE
            };
            tables.set_xsk_set(index, &free)?;
        }
    }
    Ok(())
}
