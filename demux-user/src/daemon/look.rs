//! Looking, now and then, which instance is there: a BPF file system tells nobody when it changes.

use std::{collections::BTreeSet, path::Path, rc::Rc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::{Event, blocking::blocking, session::Shared};
use crate::{
    Result,
    bpffs::BpfFs,
    netns::NetworkNamespace,
    state::{self, Paths},
    tables::{Access, Tables},
};

/// How often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks until it is dropped, publishes what has changed, and tells it.
pub(super) async fn run(shared: Rc<Shared>) {
    let mut told = None;
    let mut interfaces = BTreeSet::new();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Nothing else runs on this thread between looking and publishing.
        let present = identity(shared.bpffs.as_deref());
        shared.seen(present);
        let bpffs = shared.bpffs.clone();
        let found = match present {
            Some(_) => blocking(move || attached(bpffs.as_deref())).await,
            None => Ok(BTreeSet::new()),
        };
        // What cannot be read is gone, or will be read the next time.
        let Ok(found) = found else { continue };
        if present != told || found != interfaces {
            shared.follow.notify_one();
            shared.tell(match present {
                Some(_) => Event::Loaded {
                    is_new: present != told,
                    interfaces: found.len(),
                },
                None => Event::Unloaded,
            });
        }
        (told, interfaces) = (present, found);
    }
}

/// Which instance this network namespace has: a number that no other one has had since the machine
/// started; `None` where there is none.
pub(super) fn identity(bpffs: Option<&Path>) -> Option<u32> {
    let bpffs = BpfFs::find(bpffs).ok()?;
    let namespace = NetworkNamespace::current().ok()?;
    state::identity(&Paths::of(&bpffs, namespace.cookie()))
}

/// The indexes of the interfaces that the instance has entries for.
fn attached(bpffs: Option<&Path>) -> Result<BTreeSet<u32>> {
    let namespace = NetworkNamespace::current()?;
    let paths = Paths::of(&BpfFs::find(bpffs)?, namespace.cookie());
    let tables = Tables::open_unchecked(&paths, Access::ReadOnly)?;
    let entries = tables.interfaces()?;
    Ok(entries
        .into_iter()
        .map(|(_, entry)| entry.ifindex)
        .collect())
}
