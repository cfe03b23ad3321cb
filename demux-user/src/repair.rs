//! Putting right what a command has left that was killed while it changed an instance.
//!
//! Such a command leaves a note ([`Instance::begin_change`]). The entries of bindings and of interfaces
//! are what counts; all else follows from them and is made once more: the tables that packets are
//! matched against, what is owned, the CPUs and sets that are in use, the barred ports, and the ways of
//! refusals. The epoch moves on, so that rows are judged anew. Doing it twice changes nothing, so
//! whoever is killed meanwhile leaves it to the next.

use crate::{
    Result,
    bindings::{compile, publish::publish, steering},
    load::{interfaces, reply},
    owned, ports,
    state::Instance,
    tables::Tables,
};

/// Makes everything follow from the entries of bindings and interfaces, and takes the note away.
///
/// # Errors
///
/// Where something cannot be written; the note stays.
pub(crate) fn repair(instance: &Instance, tables: &Tables) -> Result<()> {
    let paths = instance.paths();
    // Those that were not attached yet, or only half taken off.
    interfaces::free_vanished(paths, tables, &[])?;
    let bindings = tables.bindings()?;
    publish(tables, &compile(&bindings)?)?;
    owned::detach_dead(paths)?;
    owned::renew(paths, tables, &bindings)?;
    steering::tidy(tables)?;
    ports::bar_bound(tables, &bindings)?;
    let mut entries = tables.interfaces()?;
    if reply::is_in_use(&entries, &bindings) {
        reply::renew(entries.iter_mut().map(|(_, entry)| entry))?;
        for (slot, entry) in &entries {
            tables.set_interface(*slot, entry)?;
        }
    }
    let mut config = tables.config()?;
    config.move_epoch_on();
    tables.set_config(&config)?;
    instance.end_change()
}
