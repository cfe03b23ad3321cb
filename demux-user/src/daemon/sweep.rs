//! Sweeping rows that have expired out of the connection table, now and then.
//!
//! They are absent anyway, and their lines are taken when they are needed; but a table that is swept is read
//! faster, and its fill says something.

use std::{
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{Event, blocking::blocking, session::Shared};
use crate::{
    Error, Result,
    bpffs::BpfFs,
    netns::NetworkNamespace,
    state::{Instance, Lock},
    tables::{Access, Control, Swept, Tables},
};

/// How long the lock of the instance is waited for, to open the maps.
const LOCK: Duration = Duration::from_secs(1);

/// A sweep rests for so many times the time that a turn has taken.
const REST: u32 = 3;

/// Sweeps until it is dropped.
pub(super) async fn run(shared: Rc<Shared>) {
    let mut configured = shared.configured.subscribe();
    let is_over = OnDrop::default();
    let mut trouble = None;
    loop {
        let period = shared.config.borrow().service.sweep;
        let due = async {
            match period {
                Some(period) => sleep(period).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            _ = configured.changed() => continue,
        }
        if shared.instance.borrow().is_none() {
            continue;
        }
        let (bpffs, is_over) = (shared.bpffs.clone(), Arc::clone(&is_over.0));
        match blocking(move || sweep(bpffs.as_deref(), &is_over)).await {
            Ok(swept) => {
                trouble = None;
                shared.tell(Event::Swept(swept));
            }
            // It has just been unloaded, or somebody changes something for long.
            Err(Error::NotLoaded | Error::Locked { .. }) => {}
            Err(error) => {
                let text = error.to_string();
                if trouble.replace(text) != Some(error.to_string()) {
                    shared.tell(Event::Trouble(error));
                }
            }
        }
    }
}

/// A flag that is set when it is dropped.
#[derive(Debug, Default)]
struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One sweep. The lock is held only while the maps are opened.
fn sweep(bpffs: Option<&Path>, is_over: &AtomicBool) -> Result<Swept> {
    let bpffs = BpfFs::find(bpffs)?;
    let cookie = NetworkNamespace::current()?.cookie();
    let instance = Instance::open_within(&bpffs, cookie, Lock::Shared, LOCK)?;
    let tables = Tables::open(&instance, Access::ReadWrite)?;
    let control = Control::open(instance.paths())?;
    drop(instance);
    let mut begun = Instant::now();
    control.sweep_in_turns(&tables, || {
        if !is_over.load(Ordering::Relaxed) {
            thread::sleep(begun.elapsed() * REST);
        }
        begun = Instant::now();
        !is_over.load(Ordering::Relaxed)
    })
}
