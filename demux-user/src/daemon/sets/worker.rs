//! The thread on which sets are opened and closed.
//!
//! Both wait for the lock of the instance, which a command may hold for seconds. Meanwhile the main thread
//! serves everybody else. Jobs are done one after the other, in the order in which they were given.

use std::{
    ops::Deref,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::Sets;
use crate::{Error, Result, daemon::Event};

type Job = Box<dyn FnOnce(&mut Sets) + Send>;

/// See the module. When it is dropped, and every set with it, what was given is done, and the thread has
/// ended.
#[derive(Debug)]
pub(in crate::daemon) struct Worker {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// A set that is closed on the thread when this is dropped.
#[derive(Debug)]
pub(in crate::daemon) struct Kept<S: Close> {
    set: Option<S>,
    jobs: Sender<Job>,
    /// Told once it is closed.
    end: Option<(UnboundedSender<Event>, Event)>,
}

/// What a set needs to end.
pub(in crate::daemon) trait Close: Send + 'static {
    fn close(self, sets: &mut Sets);
}

impl Worker {
    /// Starts the thread, in the network namespace of the caller.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub(in crate::daemon) fn start(sets: Sets) -> Result<Self> {
        let (jobs, given) = channel();
        let thread = thread::Builder::new()
            .name("sets".to_owned())
            .spawn(move || work(sets, &given))
            .map_err(|source| Error::io("start a thread", source))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Whether the thread lives. It ends early only by a panic.
    pub(in crate::daemon) fn is_alive(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Has something done, without waiting for it.
    pub(in crate::daemon) fn later(&self, job: impl FnOnce(&mut Sets) + Send + 'static) {
        if let Some(jobs) = &self.jobs {
            // Without the thread nothing is open.
            let _ = jobs.send(Box::new(job));
        }
    }

    /// Has something done, and waits for what comes of it. A caller that gives up drops it.
    ///
    /// # Errors
    ///
    /// Where the thread has ended.
    pub(in crate::daemon) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Sets) -> T + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.later(move |sets| drop(answer.send(job(sets))));
        answered
            .await
            .map_err(|_gone| Error::unexpected("open the set", "the thread for sets has ended"))
    }

    /// Waits until everything is done that was given so far.
    pub(in crate::daemon) fn flush(&self) {
        let (done, is_done) = channel::<()>();
        self.later(move |_| drop(done));
        // It ends with the sender.
        let _ = is_done.recv();
    }

    /// What makes sets that are closed by being dropped.
    pub(in crate::daemon) fn keeper<S: Close>(&self) -> impl FnOnce(S) -> Kept<S> + Send + use<S> {
        let jobs = self.jobs.clone().expect("it is there until the end");
        move |set| Kept {
            set: Some(set),
            jobs,
            end: None,
        }
    }
}

impl<S: Close> Kept<S> {
    /// Has an event told when the set is closed.
    pub(in crate::daemon) fn tell_when_closed(
        &mut self,
        events: UnboundedSender<Event>,
        event: Event,
    ) {
        self.end = Some((events, event));
    }
}

impl<S: Close> Deref for Kept<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.set.as_ref().expect("only dropping takes it")
    }
}

impl<S: Close> Drop for Kept<S> {
    fn drop(&mut self) {
        let (set, end) = (self.set.take(), self.end.take());
        let close = move |sets: &mut Sets| {
            if let Some(set) = set {
                set.close(sets);
            }
            if let Some((events, event)) = end {
                // The receiver lives as long as the daemon.
                let _ = events.send(event);
            }
        };
        // Without the thread nothing is open.
        let _ = self.jobs.send(Box::new(close));
    }
}

fn work(mut sets: Sets, given: &Receiver<Job>) {
    while let Ok(job) = given.recv() {
        job(&mut sets);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
