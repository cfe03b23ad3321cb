//! Packets and what became of them, as users see it.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use demux_common::{
    connection::Direction,
    decide::PackedDecision,
    explanation::Explanation,
    listen::Channel,
    protocol::Protocol,
    reason::{Reason, Stage, Verdict},
    trace::{Selection, Trace},
};
use jiff::Timestamp;

use super::{Counts, Session, ring::Ring, wall::Wall};
use crate::{Result, bindings::pattern::to_ip, bpffs::BpfFs, connections::Joiner, interface};

/// How many packets are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of so many that match one, by chance.
    pub one_in: u32,
    /// How many a second on each CPU; 0 for no limit but the ring.
    pub per_second: u32,
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRow {
    /// When it was seen.
    pub time: Timestamp,
    /// The interface.
    pub interface: String,
    /// The CPU.
    pub cpu: u32,
    /// Whether it arrived or leaves.
    pub direction: Direction,
    /// The length of the frame in bytes.
    pub length: u32,
    /// Segments that it will be cut into; 1 for most.
    pub segments: u32,
    /// Its endpoints, where it was parsed.
    pub endpoints: Option<Endpoints>,
    /// What became of it; `None` for one that leaves, which demux never holds up.
    pub outcome: Option<Outcome>,
}

/// What was parsed of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// This host's side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
    /// Control bits, sequence and acknowledgement number of a TCP segment.
    pub segment: Option<(u8, u32, u32)>,
}

/// What became of a packet that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Which step decided.
    pub stage: Stage,
    /// The name of the binding that decided, or owns the connection.
    pub binding: Option<String>,
    /// Where it goes.
    pub target: String,
}

/// A listener to packets.
#[derive(Debug)]
pub struct Traces {
    session: Session,
    ring: Ring,
    joiner: Joiner,
    names: HashMap<u32, String>,
}

impl Traces {
    /// Begins to listen in this network namespace to the packets of a selection.
    ///
    /// While somebody does, every packet takes the long way through the program, which costs some tens
    /// of nanoseconds.
    ///
    /// # Errors
    ///
    /// As [`super::Events::open`].
    pub fn open(bpffs: &BpfFs, selection: &Selection, limits: Limits) -> Result<Self> {
        let unit = {
            // The clock's unit is the same for every instance of the machine.
            let clock = demux_common::clock::Clock::new(0, crate::clock::tick_ns());
            Duration::from_nanos(clock.unit_ns())
        };
        let selection = Selection {
            one_in: limits.one_in,
            per_unit: per_unit(limits.per_second, unit),
            ..*selection
        };
        let (session, ring) = Session::open(bpffs, Channel::Traces, Some(&selection))?;
        let joiner = Joiner::read(&session.tables)?;
        Ok(Self {
            session,
            ring,
            joiner,
            names: HashMap::new(),
        })
    }

    /// Calls `visit` with what was told since the last time, at most `most` packets, in order. Returns
    /// how many there were. To be called every [`super::LOOK`].
    ///
    /// # Errors
    ///
    /// As [`super::Events::read`].
    pub fn read(&mut self, most: usize, visit: &mut dyn FnMut(TraceRow)) -> Result<usize> {
        self.session.renew()?;
        let mut wall = None;
        let (joiner, names, tables) = (&mut self.joiner, &mut self.names, &self.session.tables);
        let mut result = Ok(());
        let count = self.ring.read(most, &mut |trace: Trace| {
            let wall = *wall.get_or_insert_with(|| {
                result = joiner.refresh(tables);
                Wall::now()
            });
            let interface = names
                .entry(trace.ifindex)
                .or_insert_with(|| name_of_interface(trace.ifindex));
            visit(row(&trace, joiner, interface, wall));
        });
        result.map(|()| count)
    }

    /// What was told since the beginning, what was lost, and what was beyond the rate.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        self.session.counts()
    }
}

/// The allowance of one CPU for one unit of the clock: rounded up, so that a rate is never nothing.
fn per_unit(per_second: u32, unit: Duration) -> u32 {
    (f64::from(per_second) * unit.as_secs_f64()).ceil() as u32
}

fn name_of_interface(ifindex: u32) -> String {
    match interface::by_index(ifindex) {
        Ok(Some(interface)) => interface.name,
        _ => format!("#{ifindex}"),
    }
}

fn row(trace: &Trace, joiner: &Joiner, interface: &str, wall: Wall) -> TraceRow {
    let endpoints = (trace.is_parsed != 0).then(|| Endpoints {
        protocol: trace.protocol(),
        local: SocketAddr::new(to_ip(&trace.local_address), trace.local_port),
        remote: SocketAddr::new(to_ip(&trace.remote_address), trace.remote_port),
        segment: (trace.protocol() == Protocol::Tcp).then_some((
            trace.flags,
            trace.sequence,
            trace.acknowledgement,
        )),
    });
    let outcome = (trace.direction() == Direction::In).then(|| {
        let decision = Explanation::from(PackedDecision(trace.decision));
        let (binding, target) = joiner.labels_of(decision.binding);
        Outcome {
            verdict: decision.verdict,
            reason: decision.reason().unwrap_or(Reason::Unconfigured),
            stage: decision.stage,
            binding,
            target: match decision.verdict {
                Verdict::Pass => "stack".to_owned(),
                Verdict::Drop => "drop".to_owned(),
                Verdict::Reject => "reject".to_owned(),
                Verdict::Redirect => target,
            },
        }
    });
    TraceRow {
        time: wall.at(trace.time_ns),
        interface: interface.to_owned(),
        cpu: trace.cpu,
        direction: trace.direction(),
        length: trace.length,
        segments: trace.segments,
        endpoints,
        outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_at_least_one() {
        let unit = Duration::from_millis(64);
        assert_eq!(per_unit(0, unit), 0);
        assert_eq!(per_unit(1, unit), 1);
        assert_eq!(per_unit(1000, unit), 64);
    }
}
