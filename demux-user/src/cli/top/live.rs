//! The loop between keys, samples, signals and the screen.

use std::{
    io,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use nix::sys::signal::{SigSet, Signal, raise};
use ratatui::crossterm::event::{self, Event as Input};

use super::{Source, keys::key, terminal::Screen};
use crate::{
    Error, Result,
    cli::Outcome,
    top::{Action, Key, Model, Snapshot, Worker},
};

/// What the loop waits for.
enum Event {
    Sample(Box<Result<Snapshot>>),
    Key(Key),
    Resized,
    Signal(Signal),
    /// There will be no more keys.
    Deaf(io::Error),
    /// There will be no more samples.
    Blind,
}

/// Those that would leave the terminal as it is, or that others may have written on meanwhile.
const SIGNALS: [Signal; 5] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// Shows the view until the user ends it, or it was shown with `count` samples.
pub(super) fn run(
    mut model: Model,
    source: Source,
    count: Option<u64>,
    is_coloured: bool,
) -> Result<Outcome> {
    let (sender, events) = mpsc::channel();
    // Before there are threads, since they inherit what is blocked.
    let signals: SigSet = SIGNALS.into_iter().collect();
    signals
        .thread_block()
        .map_err(|error| Error::io("block signals", io::Error::from(error)))?;
    let mut screen = Screen::take()?;
    listen_for_signals(signals, sender.clone())?;
    listen_for_keys(sender.clone())?;
    let worker = sample(&model, source, sender)?;
    let outcome = follow(
        &mut screen,
        &mut model,
        &events,
        &worker,
        count,
        is_coloured,
    );
    let left = screen.leave();
    let outcome = outcome?;
    left.map(|()| outcome)
}

fn follow(
    screen: &mut Screen,
    model: &mut Model,
    events: &Receiver<Event>,
    worker: &Worker,
    count: Option<u64>,
    is_coloured: bool,
) -> Result<Outcome> {
    let mut samples = 0;
    loop {
        screen.draw(model, is_coloured)?;
        if count.is_some_and(|count| samples >= count) {
            return Ok(Outcome::Done);
        }
        let Ok(event) = events.recv() else {
            return Err(blind());
        };
        // Whatever has come together is shown together, so that held keys are not queued.
        let mut next = Some(event);
        while let Some(event) = next {
            match event {
                Event::Sample(sample) => {
                    samples += u64::from(sample.is_ok());
                    model.take(*sample)?;
                }
                Event::Key(key) => match model.press(key) {
                    Action::Draw => {}
                    Action::Want => worker.want(model.wanted())?,
                    Action::Redraw => screen.forget()?,
                    Action::Suspend => suspend(screen)?,
                    Action::Quit => return Ok(Outcome::Done),
                },
                Event::Resized => {}
                Event::Signal(Signal::SIGTSTP) => suspend(screen)?,
                Event::Signal(Signal::SIGCONT) => screen.renew()?,
                Event::Signal(signal) => return Ok(Outcome::Ended(128 + signal as u8)),
                Event::Deaf(error) => return Err(Error::io("read the terminal", error)),
                Event::Blind => return Err(blind()),
            }
            next = match count {
                // Each of those that are counted is to be seen.
                Some(_) => None,
                None => events.try_recv().ok(),
            };
        }
    }
}

/// Gives the terminal back and stops this process, until it is continued.
fn suspend(screen: &mut Screen) -> Result<()> {
    screen.leave()?;
    let stop = SigSet::from(Signal::SIGTSTP);
    let failed = |error: nix::Error| Error::io("stop this process", io::Error::from(error));
    stop.thread_unblock().map_err(failed)?;
    // By the signal that shells expect. Where no shell could continue it, the kernel does not stop it.
    raise(Signal::SIGTSTP).map_err(failed)?;
    stop.thread_block().map_err(failed)?;
    screen.enter()
}

fn listen_for_signals(signals: SigSet, sender: Sender<Event>) -> Result<()> {
    start("signals", move || {
        while let Ok(signal) = signals.wait() {
            if sender.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })
}

fn listen_for_keys(sender: Sender<Event>) -> Result<()> {
    start("keys", move || {
        loop {
            let event = match event::read() {
                Ok(Input::Key(pressed)) => key(pressed).map(Event::Key),
                Ok(Input::Resize(..)) => Some(Event::Resized),
                Ok(_) => None,
                Err(error) => Some(Event::Deaf(error)),
            };
            let is_last = matches!(event, Some(Event::Deaf(_)));
            if event.is_some_and(|event| sender.send(event).is_err()) || is_last {
                return;
            }
        }
    })
}

fn sample(model: &Model, source: Source, sender: Sender<Event>) -> Result<Worker> {
    // Told even where the thread panics, which drops it.
    let last = Last(sender);
    Worker::start(
        model.wanted(),
        move || source.open(),
        move |sample| last.0.send(Event::Sample(sample.into())).is_ok(),
    )
}

struct Last(Sender<Event>);

impl Drop for Last {
    fn drop(&mut self) {
        // Where nobody listens any more, nobody needs to know.
        let _ = self.0.send(Event::Blind);
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map(|_thread| ())
        .map_err(|source| Error::io("start a thread", source))
}

fn blind() -> Error {
    Error::unexpected("read the tables", "the thread that did so has ended")
}
