//! Listening to what the programs tell: what becomes of connections ([`Events`]), and packets
//! ([`Traces`]).
//!
//! The programs tell nothing while nobody listens. A listener says until when he will, for
//! [`LEASE`] at a time, and says so again long before that is over; so one who was killed is forgotten.
//! Each channel is a ring buffer and has one listener; a second one is refused while the first lives.
//! What finds the ring full is lost, and counted.

mod events;
mod ring;
mod traces;
mod wall;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use demux_common::{
    layout::map,
    listen::{Channel, Listener, ListenerCounts, moment},
    trace::Selection,
};

use self::ring::Ring;
pub use self::{
    events::{EventRow, Events, Kind},
    traces::{Endpoints, Limits, Outcome, TraceRow, Traces},
};
use crate::{
    Error, Result,
    bpffs::BpfFs,
    netns::NetworkNamespace,
    process::Process,
    state::{Instance, Lock},
    tables::{Access, Tables, now},
};

/// How long the programs go on telling without hearing from the listener.
pub const LEASE: Duration = Duration::from_secs(30);

/// How often the listener is heard of.
const RENEWAL: Duration = Duration::from_secs(10);

/// How often to look into the ring: nobody is woken by the programs, so that a flood of records costs
/// them no interrupts.
pub const LOOK: Duration = Duration::from_millis(20);

/// What was told since a listener began, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were put into the ring.
    pub told: u64,
    /// Records that found the ring full.
    pub lost: u64,
    /// Records beyond the rate that was asked for.
    pub held_back: u64,
}

/// One listener's place at a channel; given up when this is dropped.
#[derive(Debug)]
struct Session {
    bpffs: BpfFs,
    instance: u64,
    channel: Channel,
    this: Process,
    tables: Tables,
    began: Counts,
    renewed: Instant,
}

impl Session {
    /// Takes a channel, if nobody has it, and lets the programs tell.
    fn open(
        bpffs: &BpfFs,
        channel: Channel,
        selection: Option<&Selection>,
    ) -> Result<(Self, Ring)> {
        let namespace = NetworkNamespace::current()?;
        let instance = Instance::open(bpffs, namespace.cookie(), Lock::Exclusive)?;
        let tables = Tables::open(&instance, Access::ReadWrite)?;
        let this =
            Process::current().map_err(|source| Error::io("find this process in /proc", source))?;
        let holder = tables.listener(channel)?;
        let other = Process {
            pid: holder.pid,
            started: holder.started,
        };
        if holder.pid != 0 && other != this && other.is_alive() {
            return Err(Error::ListenerTaken {
                channel: channel.name(),
                pid: other.pid,
                process: other.name().unwrap_or_else(|| "unknown".to_owned()),
            });
        }
        let mut ring = Ring::open(&ring_path(&instance, channel))?;
        // What was told to somebody who is gone.
        ring.for_each(&mut |_| ());
        tables.set_listener(
            channel,
            &Listener {
                started: this.started,
                pid: this.pid,
                reserved: 0,
            },
        )?;
        if let Some(selection) = selection {
            tables.set_selection(selection)?;
        }
        let began = counts(&tables, channel)?;
        lease(&tables, channel, Some(LEASE))?;
        let session = Self {
            bpffs: bpffs.clone(),
            instance: instance.id(),
            channel,
            this,
            tables,
            began,
            renewed: Instant::now(),
        };
        Ok((session, ring))
    }

    /// Says, where it is time to, that the listener is still there.
    fn renew(&mut self) -> Result<()> {
        if self.renewed.elapsed() < RENEWAL {
            return Ok(());
        }
        let _instance = Instance::open(&self.bpffs, self.instance, Lock::Exclusive)?;
        if self.tables.listener(self.channel)?.pid == self.this.pid {
            lease(&self.tables, self.channel, Some(LEASE))?;
        }
        self.renewed = Instant::now();
        Ok(())
    }

    fn counts(&self) -> Result<Counts> {
        let now = counts(&self.tables, self.channel)?;
        Ok(Counts {
            told: now.told.wrapping_sub(self.began.told),
            lost: now.lost.wrapping_sub(self.began.lost),
            held_back: now.held_back.wrapping_sub(self.began.held_back),
        })
    }

    fn give_up(&self) -> Result<()> {
        let _instance = Instance::open(&self.bpffs, self.instance, Lock::Exclusive)?;
        let holder = self.tables.listener(self.channel)?;
        if holder.pid == self.this.pid && holder.started == self.this.started {
            lease(&self.tables, self.channel, None)?;
            self.tables
                .set_listener(self.channel, &Listener::default())?;
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What cannot be given up runs out.
        let _ = self.give_up();
    }
}

fn ring_path(instance: &Instance, channel: Channel) -> PathBuf {
    instance.paths().map(match channel {
        Channel::Events => map::EVENTS,
        Channel::Traces => map::TRACES,
    })
}

/// Lets the programs tell for some time from now, or no more.
fn lease(tables: &Tables, channel: Channel, time: Option<Duration>) -> Result<()> {
    let mut config = tables.config()?;
    let until = time.map_or(0, |time| {
        let units = time.as_nanos() as u64 / config.clock.unit_ns().max(1);
        moment(config.clock.at(now()), units as u32)
    });
    match channel {
        Channel::Events => config.events_until = until,
        Channel::Traces => config.trace_until = until,
    }
    tables.set_config(&config)
}

fn counts(tables: &Tables, channel: Channel) -> Result<Counts> {
    let mut sum = Counts::default();
    for ListenerCounts {
        told,
        lost,
        held_back,
        ..
    } in tables.listener_counts(channel)?
    {
        sum.told += told;
        sum.lost += lost;
        sum.held_back += held_back;
    }
    Ok(sum)
}
