//! Many changes of bindings as one: some are made, some are ended, some are replaced by others.
//!
//! All of it is asked for before anything is written ([`Replacement::admit`]), and then done
//! ([`Replacement::enter`]) so that every packet goes where the old bindings send it or where the new ones
//! do, and never anywhere else. A replaced binding gets an entry of its own, beside that of the old one:
//! no entry ever changes its target, and each table changes a key from one to the other in one step.
//! [`stages`](super::stages) has the order in which keys come and go.

use std::collections::{HashMap, HashSet};

use demux_common::{
    binding::{Binding, Target},
    config::Config,
    steering::CpuList,
};

use super::{
    BindRequest, Compiled, Destination, Pattern,
    admission::{self, Host, written},
    change::{name_of, renew_replies, stored},
    compile,
    conflict::{self, same_pattern_key},
    publish::write_tables,
    stages,
    steering::{self, SetIndexes},
};
use crate::{Error, Result, bpf, owned, ports, state::Paths, tables::Tables};

/// What is to be changed.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Bindings to make, in order; each has a name that will be free.
    pub(crate) made: Vec<Made>,
    /// Entries of bindings to end.
    pub(crate) ended: Vec<u16>,
}

/// A binding to make.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) request: BindRequest,
    /// The entry of the binding that it replaces.
    pub(crate) replaces: Option<u16>,
}

/// A change that nothing speaks against.
#[derive(Debug)]
pub(crate) struct Replacement {
    old: Vec<(u16, Binding)>,
    new: Vec<New>,
    /// Entries of `old` that go.
    gone: HashSet<u16>,
    /// The epoch in which new bindings are made.
    epoch: u32,
    sets: SetIndexes,
    has_reject: bool,
    final_tables: Compiled,
}

/// How many entries are written by one call.
const CHUNK: usize = 256;

/// A new entry.
#[derive(Debug)]
struct New {
    index: u16,
    binding: Binding,
    cpus: CpuList,
    /// The entry with the same pattern whose place it takes.
    swaps: Option<u16>,
}

impl Replacement {
    /// Asks whether everything can be done; nothing is written. The lock must be held exclusively.
    ///
    /// # Errors
    ///
    /// As [`bind_all`](super::bind_all).
    pub(crate) fn admit(tables: &Tables, wanted: &Wanted) -> Result<Self> {
        let entries = tables.binding_entries()?;
        let old: Vec<(u16, Binding)> = entries
            .iter()
            .filter(|(_, binding)| binding.created != 0)
            .copied()
            .collect();
        let epoch = Config::next_epoch(tables.config()?.epoch);
        let requests = wanted.made.iter().map(|made| &made.request);
        let sets = SetIndexes::choose(tables, requests)?;
        for made in &wanted.made {
            if let Destination::Cpus(cpus) = &made.request.target {
                cpus.check_online()?;
            }
        }

        let mut gone: HashSet<u16> = wanted.ended.iter().copied().collect();
        gone.extend(wanted.made.iter().filter_map(|made| made.replaces));
        let mut new: Vec<New> = wanted
            .made
            .iter()
            .map(|made| New {
                index: 0,
                binding: Binding {
                    set: sets.of(&made.request.target),
                    ..stored(&made.request, &made.name, epoch)
                },
                cpus: match &made.request.target {
                    Destination::Cpus(cpus) => cpus.list(),
                    _ => CpuList::EMPTY,
                },
                swaps: made.replaces,
            })
            .collect();
        keep_order(tables, &old, &mut gone, &mut new, epoch)?;
        let by_index: HashMap<u16, &Binding> = old.iter().map(|(i, b)| (*i, b)).collect();
        let max = tables.max_bindings()?;
        let mut free = entries
            .iter()
            .filter(|(index, binding)| *index != 0 && binding.created == 0);
        let room = free.clone().count();
        if room < new.len() {
            return Err(if gone.is_empty() {
                Error::BindingTableFull(max)
            } else {
                Error::NoRoomToReplace {
                    wanted: new.len(),
                    free: room,
                }
            });
        }
        for new in &mut new {
            let (index, entry) = free.next().ok_or(Error::BindingTableFull(max))?;
            new.index = *index;
            new.binding.steered_until = entry.steered_until;
            new.swaps = new.swaps.filter(|index| {
                by_index
                    .get(index)
                    .is_some_and(|old| same_pattern_key(old) == same_pattern_key(&new.binding))
            });
        }

        let host = Host::read()?;
        let kept = || old.iter().filter(|(index, _)| !gone.contains(index));
        let mut index = conflict::Index::of(kept().map(|(_, binding)| binding));
        for made in &wanted.made {
            host.admit(&made.request.pattern, made.request.freebind)?;
        }
        for new in &new {
            if let Some(holder) = index.holder(&new.binding) {
                return Err(Error::AddressInUse {
                    pattern: written(&Pattern::of(&new.binding)),
                    holder: format!("binding {:?}", name_of(index.get(holder))),
                });
            }
            index.push(&new.binding);
        }
        admission::check_all_sockets(new.iter().map(|new| &new.binding))?;
        let mut last: Vec<(u16, Binding)> = kept().copied().collect();
        last.extend(new.iter().map(|new| (new.index, new.binding)));
        Ok(Self {
            has_reject: new.iter().any(|new| new.binding.target == Target::Reject),
            final_tables: compile(&last)?,
            old,
            new,
            gone,
            epoch,
            sets,
        })
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.new.is_empty() && self.gone.is_empty()
    }

    /// Does it. `progress` is told how many of how many steps are done.
    ///
    /// # Errors
    ///
    /// [`Error::SocketInUse`] where a process was faster, and where a map cannot be written; everything is
    /// as it was then.
    pub(crate) fn enter(
        &self,
        paths: &Paths,
        tables: &Tables,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        if self.has_reject {
            renew_replies(tables)?;
        }
        if let Err(error) = self.publish(paths, tables, progress) {
            self.undo(paths, tables)?;
            return Err(error);
        }
        self.finish(paths, tables)
    }

    /// Everything that can be taken back.
    fn publish(
        &self,
        paths: &Paths,
        tables: &Tables,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        let lists = self.new.iter().map(|new| (new.index, &new.cpus));
        steering::prepare(tables, lists, &self.sets)?;
        let total = self.new.len() + self.gone.len();
        let mut done = 0;
        for chunk in self.new.chunks(CHUNK) {
            tables.clear_binding_counts(chunk.iter().map(|new| new.index))?;
            let entries = chunk.iter().map(|new| (new.index.into(), new.binding));
            tables.set_bindings(&entries.collect::<Vec<_>>())?;
            done += chunk.len();
            progress(done, total);
        }
        let new = self.new.iter().map(|new| (new.index, new.binding));
        let all: Vec<(u16, Binding)> = self.old.iter().copied().chain(new).collect();
        owned::renew(paths, tables, &all)?;
        // A process may have been faster since it was looked for, and none can be from here on.
        let owners = self.new.iter().map(|new| &new.binding);
        admission::check_all_sockets(owners.filter(|binding| owned::is_owner(binding)))?;

        let mut shown = Shown::new(tables, &self.old);
        if tables.interfaces()?.is_empty() {
            // Nobody is looking.
            for new in &self.new {
                shown.add(new);
            }
            shown.remove(&self.gone);
            return shown.publish_as(&self.final_tables);
        }
        for stage in stages::additions(self.new.iter().map(|new| &new.binding)) {
            for number in stage {
                shown.add(&self.new[number]);
            }
            shown.publish_if_possible()?;
        }
        let gone: Vec<(u16, Binding)> = shown.of(&self.gone);
        for stage in stages::removals(gone.iter().map(|(_, binding)| binding)) {
            shown.remove(&stage.iter().map(|number| gone[*number].0).collect());
            shown.publish_if_possible()?;
        }
        shown.publish_at_last()
    }

    /// Lets rows ask for their bindings again, and frees the entries of those that are gone.
    fn finish(&self, paths: &Paths, tables: &Tables) -> Result<()> {
        let is_attached = !tables.interfaces()?.is_empty();
        let wait = || {
            if is_attached && !self.gone.is_empty() {
                // Where the kernel cannot wait, a row that is entered in these nanoseconds under an entry
                // that is gone asks again with the next change.
                let _ = bpf::synchronize();
            }
        };
        // Rows that are being entered for the old bindings are so in the old epoch.
        wait();
        let gone = || {
            self.old
                .iter()
                .filter(|(index, _)| self.gone.contains(index))
        };
        for (index, binding) in gone().filter(|(_, binding)| binding.target.is_steered()) {
            // From the new epoch on its rows are those of one that has ended. Only words change that say
            // since when, and programs read them one at a time.
            let ended = Binding {
                created: self.epoch,
                steered_until: self.epoch,
                next_member: tables.binding(*index)?.next_member,
                ..*binding
            };
            tables.set_binding(*index, &ended)?;
        }
        let config = Config {
            epoch: self.epoch,
            ..tables.config()?
        };
        tables.set_config(&config)?;
        wait();
        let free = gone().map(|(index, binding)| {
            let steered_until = if binding.target.is_steered() {
                self.epoch
            } else {
                binding.steered_until
            };
            let free = Binding {
                steered_until,
                ..Binding::FREE
            };
            (u32::from(*index), free)
        });
        tables.set_bindings(&free.collect::<Vec<_>>())?;
        let last = tables.bindings()?;
        owned::renew(paths, tables, &last)?;
        steering::tidy(tables)?;
        ports::bar_bound(tables, &last)
    }

    /// Brings everything back to what it was.
    fn undo(&self, paths: &Paths, tables: &Tables) -> Result<()> {
        let before = compile(&self.old)?;
        owned::renew(paths, tables, &self.old)?;
        write_tables(tables, &before)?;
        for (index, binding) in &self.old {
            tables.set_binding(*index, binding)?;
        }
        let _ = bpf::synchronize();
        for new in &self.new {
            tables.clear_binding(new.index, new.binding.steered_until)?;
        }
        steering::tidy(tables)
    }
}

/// Of bindings that share one pattern the latest wins. So those that replace others come in the order of
/// these, before those that replace none; and where one is replaced that is not the latest of its pattern,
/// those after it are entered anew, too. Members of a group need no order.
fn keep_order(
    tables: &Tables,
    old: &[(u16, Binding)],
    gone: &mut HashSet<u16>,
    new: &mut Vec<New>,
    epoch: u32,
) -> Result<()> {
    let age =
        |(index, binding): &(u16, Binding)| (binding.created.wrapping_sub(epoch) as i32, *index);
    let by_index: HashMap<u16, &(u16, Binding)> = old.iter().map(|old| (old.0, old)).collect();
    // Where several are replaced, the earliest decides.
    let mut earliest: HashMap<_, (i32, u16)> = HashMap::new();
    for made in &*new {
        let Some(old) = made.swaps.and_then(|index| by_index.get(&index)) else {
            continue;
        };
        let is_grouped = old.1.has(Binding::REUSE_PORT) && made.binding.has(Binding::REUSE_PORT);
        let key = same_pattern_key(&old.1);
        if key == same_pattern_key(&made.binding) && !is_grouped {
            let age = age(old);
            let first = earliest.entry(key).or_insert(age);
            *first = age.min(*first);
        }
    }
    let is_later = |old: &&(u16, Binding)| {
        let first = earliest.get(&same_pattern_key(&old.1));
        !gone.contains(&old.0) && first.is_some_and(|first| age(old) > *first)
    };
    let later: Vec<(u16, Binding)> = if earliest.is_empty() {
        Vec::new()
    } else {
        old.iter().filter(is_later).copied().collect()
    };
    for (index, binding) in later {
        gone.insert(index);
        new.push(New {
            index: 0,
            binding: Binding {
                created: epoch,
                next_member: 0,
                ..binding
            },
            cpus: if binding.target == Target::Cpu {
                tables.cpu_list(index)?
            } else {
                CpuList::EMPTY
            },
            swaps: Some(index),
        });
    }
    new.sort_by_key(|new| {
        let old = new.swaps.and_then(|index| by_index.get(&index));
        let old = old.filter(|old| same_pattern_key(&old.1) == same_pattern_key(&new.binding));
        old.map_or((i32::MAX, 0), |old| age(old))
    });
    Ok(())
}

/// The bindings that the tables show, from the old ones to the new ones.
struct Shown<'t> {
    tables: &'t Tables,
    bindings: Vec<(u16, Binding)>,
    places: HashMap<u16, usize>,
    is_behind: bool,
}

impl<'t> Shown<'t> {
    fn new(tables: &'t Tables, bindings: &[(u16, Binding)]) -> Self {
        let mut shown = Self {
            tables,
            bindings: Vec::new(),
            places: HashMap::new(),
            is_behind: false,
        };
        for (index, binding) in bindings {
            shown.insert(*index, *binding);
        }
        shown
    }

    fn insert(&mut self, index: u16, binding: Binding) {
        self.places.insert(index, self.bindings.len());
        self.bindings.push((index, binding));
    }

    fn take(&mut self, index: u16) {
        let Some(place) = self.places.remove(&index) else {
            return;
        };
        self.bindings.swap_remove(place);
        if let Some((moved, _)) = self.bindings.get(place) {
            self.places.insert(*moved, place);
        }
    }

    fn add(&mut self, new: &New) {
        if let Some(swapped) = new.swaps {
            self.take(swapped);
        }
        self.insert(new.index, new.binding);
        self.is_behind = true;
    }

    fn remove(&mut self, indexes: &HashSet<u16>) {
        for index in indexes {
            self.take(*index);
        }
        self.is_behind = true;
    }

    /// Those of the indexes that are shown.
    fn of(&self, indexes: &HashSet<u16>) -> Vec<(u16, Binding)> {
        let shown = self.bindings.iter();
        shown
            .filter(|(index, _)| indexes.contains(index))
            .copied()
            .collect()
    }

    /// Publishes them, unless old and new ones together are more than the tables can express.
    fn publish_if_possible(&mut self) -> Result<()> {
        match compile(&self.bindings) {
            Ok(compiled) => self.publish_as(&compiled),
            Err(Error::InvalidArgument { .. } | Error::GroupFull { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn publish_at_last(&mut self) -> Result<()> {
        if !self.is_behind {
            return Ok(());
        }
        let compiled = compile(&self.bindings)?;
        self.publish_as(&compiled)
    }

    /// Members that are new are linked before those lead to them that were there, and all before the
    /// tables change. Who has left leads on to those that stay, until it is freed.
    fn publish_as(&mut self, compiled: &Compiled) -> Result<()> {
        let mut linked: Vec<_> = compiled.relinked.iter().collect();
        linked.sort_by_key(|(index, _)| std::cmp::Reverse(self.places.get(index).copied()));
        for (index, binding) in linked {
            self.tables.set_binding(*index, binding)?;
            self.bindings[self.places[index]].1 = *binding;
        }
        write_tables(self.tables, compiled)?;
        self.is_behind = false;
        Ok(())
    }
}
