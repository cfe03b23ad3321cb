//! Following this host: its interfaces and addresses, as rtnetlink tells of them.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::unix::AsyncFd,
    time::{sleep, sleep_until},
};

use super::{
    Event,
    blocking::blocking,
    changes::{Changes, GROUPS},
    session::Shared,
    watch::watch,
};
use crate::{
    Error, Result,
    bpffs::BpfFs,
    interface,
    load::{self, Followed},
    locals,
    netlink::Notifications,
    netns::NetworkNamespace,
    sources,
    state::{Instance, Lock},
    tables::{Access, Tables},
};

/// Changes come in crowds: what follows within this time is done at once.
const SETTLE: Duration = Duration::from_millis(20);

/// How long the lock of the instance is waited for, and how soon it is tried again.
const LOCK: Duration = Duration::from_millis(200);

/// How soon it is tried again what has failed.
const RETRY: Duration = Duration::from_secs(5);

/// It rests for so many times the time that it took: a router may have very many routes.
const REST: u32 = 2;

/// But for no longer than this.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// Hears of changes from the time it was made.
#[derive(Debug)]
pub(super) struct Ear {
    notifications: Notifications,
    ready: AsyncFd<OwnedFd>,
}

impl Ear {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// Where the socket cannot be opened.
    pub(super) fn open() -> Result<Self> {
        let open = || -> io::Result<Self> {
            let notifications = Notifications::of(&GROUPS)?;
            let ready = watch(notifications.as_fd().try_clone_to_owned()?)?;
            Ok(Self {
                notifications,
                ready,
            })
        };
        open().map_err(|source| Error::io("listen for changes of interfaces", source))
    }

    async fn changed(&self) {
        match self.ready.readable().await {
            Ok(mut ready) => ready.clear_ready(),
            // The reactor ends.
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes what has come.
    fn take(&mut self, changes: &mut Changes) {
        let result = self
            .notifications
            .read(|notification| changes.add(&notification));
        if result.is_err() {
            *changes = Changes::ALL;
        }
    }
}

/// Follows until it is dropped.
pub(super) async fn run(shared: Rc<Shared>, mut ear: Ear) {
    let mut changes = Changes::ALL;
    let mut follower = Follower {
        shared,
        refused: HashMap::new(),
        trouble: None,
    };
    loop {
        let begun = Instant::now();
        let retry = follower.bring_up_to_date(&mut changes).await;
        let rest = match retry {
            // It has waited, and done nothing.
            Some(LOCK) => SETTLE,
            _ => begun.elapsed() * REST,
        };
        sleep(rest.min(LONGEST_REST)).await;
        let retry = async {
            match retry {
                Some(after) => sleep_until((Instant::now() + after).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ear.changed() => sleep(SETTLE).await,
            () = follower.shared.follow.notified() => changes = Changes::ALL,
            () = retry => {}
        }
        ear.take(&mut changes);
    }
}

struct Follower {
    shared: Rc<Shared>,
    /// Why interfaces could not be attached again, by index, as it was told.
    refused: HashMap<u32, String>,
    /// What was told last of what went wrong.
    trouble: Option<String>,
}

/// What has come of bringing everything up to date.
#[derive(Default)]
struct Done {
    followed: Vec<Followed>,
    /// The tables could be written.
    is_written: bool,
}

impl Follower {
    /// Does what is due, takes it from `changes`, and says when to try again what is left.
    async fn bring_up_to_date(&mut self, changes: &mut Changes) -> Option<Duration> {
        if changes.links
            && let Ok(devices) = blocking(interface::all).await
        {
            let present: Vec<u32> = devices.iter().map(|device| device.index).collect();
            self.shared
                .sets
                .later(move |sets| sets.lose_all_but(&present));
        }
        if !changes.is_any() {
            return None;
        }
        let (bpffs, due) = (self.shared.bpffs.clone(), *changes);
        match blocking(move || bring_up_to_date(bpffs.as_deref(), due)).await {
            Ok(done) => {
                *changes = Changes::default();
                self.trouble = None;
                self.tell(done, changes)
            }
            // All is due when there is one again.
            Err(Error::NotLoaded | Error::NoBpfFs(_)) => {
                *changes = Changes::default();
                self.refused.clear();
                None
            }
            // Somebody changes something, and that goes first.
            Err(Error::Locked { .. }) => Some(LOCK),
            Err(error) => {
                let text = error.to_string();
                if self.trouble.as_ref() != Some(&text) {
                    self.shared.tell(Event::Trouble(error));
                    self.trouble = Some(text);
                }
                Some(RETRY)
            }
        }
    }

    fn tell(&mut self, done: Done, changes: &mut Changes) -> Option<Duration> {
        if !done.is_written {
            return None;
        }
        let mut refused = HashMap::new();
        for followed in done.followed {
            if let Followed::Refused { ifindex, error, .. } = &followed {
                let text = error.to_string();
                let is_known = self.refused.get(ifindex) == Some(&text);
                refused.insert(*ifindex, text);
                // Whatever is in its way may go without a word.
                changes.links = true;
                if is_known {
                    continue;
                }
            }
            self.shared.tell(Event::Followed(followed));
        }
        self.refused = refused;
        changes.links.then_some(RETRY)
    }
}

/// Brings the instance up to date in what has changed.
fn bring_up_to_date(bpffs: Option<&Path>, changes: Changes) -> Result<Done> {
    let bpffs = BpfFs::find(bpffs)?;
    let cookie = NetworkNamespace::current()?.cookie();
    // Before the lock: it may take long.
    let sources = if changes.sources {
        Some(sources::Wanted::read()?)
    } else {
        None
    };
    let mut done = Done::default();
    let open = |lock| -> Result<(Instance, Tables)> {
        let instance = Instance::open_within(&bpffs, cookie, lock, LOCK)?;
        let tables = Tables::open(&instance, Access::ReadWrite)?;
        Ok((instance, tables))
    };
    {
        let (instance, tables) = open(Lock::Exclusive)?;
        if changes.locals {
            locals::refresh(&tables)?;
        }
        if let Some(sources) = sources {
            sources.write(&tables)?;
        }
        if changes.links {
            done.followed = load::follow(&instance, &tables)?;
        }
        done.is_written = true;
    }
    let is_any_attached = done
        .followed
        .iter()
        .any(|followed| matches!(followed, Followed::Attached { .. }));
    if is_any_attached {
        // Others may read meanwhile. Packets enter them too, one by one, so that is not tried again.
        let _ = open(Lock::Shared)
            .and_then(|(instance, tables)| load::import_connections(&instance, &tables));
    }
    Ok(done)
}
