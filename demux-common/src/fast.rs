//! The shortest way of a packet: of a connection that is under way, and stays as it is.
//!
//! Whatever is not plain — an option in the IP header, another state, another epoch, a carry of a
//! counter, a writer that was faster, a checksum that is still to come on the way to another CPU —
//! takes the long way, which starts from the beginning.

use network_types::eth::EtherType;

use crate::{
    binding::{Binding, Target},
    config::Config,
    connection::{State, since},
    decide::{Decision, PackedDecision, interface_of},
    listen::is_heard,
    packet::Packet,
    parse::Parsed,
    plain::{self, Plain},
    protocol::Protocol,
    reason::{Reason, Stage, Verdict},
    rows, steering,
    table::{self, Flags, Found, Line, Memory, Probe},
    tables::{Kernel, Tables},
    tcp::{self, Side},
    udp,
    wire::ethernet::Station,
};

/// Decides about a frame that arrived, if it is a TCP segment or a datagram without anything unusual that
/// changes nothing but counters, the time and what the remote has said.
#[inline(always)]
pub fn arrives<P, T>(packet: &P, ifindex: u32, tables: &T) -> Option<PackedDecision>
where
    P: Packet + ?Sized,
    T: Kernel,
{
    let (slot, interface) = interface_of(tables, ifindex)?;
    let (station, ether_type) = plain::ethernet(packet)?;
    if station != Station::new(interface.station) {
        return None;
    }
    let config = tables.config()?;
    if is_heard(config.trace_until, &config.clock, tables.ticks()) {
        // Whoever traces packets wants to see this one, too.
        return None;
    }
    let (index, owner, plain, probe) = if ether_type == EtherType::Ipv4 as u16 {
        let (addresses, plain) = plain::ipv4(packet)?;
        let protocol = plain.protocol();
        let probe = Probe::v4(addresses, plain.ports, protocol, tables, tables.homes());
        let found = table::find_v4(tables, &probe)?;
        let index = found.head.binding();
        let owner = owner(tables, index)?;
        if is_of_cpus(owner)
            && (!steering::reaches_cpus(interface) || plain::is_partial_v4(packet, protocol))
        {
            return None;
        }
        steady(tables, &found, &plain, config)?;
        (index, owner, plain, probe)
    } else if ether_type == EtherType::Ipv6 as u16 {
        let (addresses, plain) = plain::ipv6(packet)?;
        let protocol = plain.protocol();
        let probe = Probe::v6(&addresses, plain.ports, protocol, tables, tables.homes());
        let found = table::find_v6(tables, &probe, &addresses)?;
        let index = found.head.binding();
        let owner = owner(tables, index)?;
        if is_of_cpus(owner)
            && (!steering::reaches_cpus(interface) || plain::is_partial_v6(packet, protocol))
        {
            return None;
        }
        steady(tables, &found, &plain, config)?;
        (index, owner, plain, probe)
    } else {
        return None;
    };
    let bytes = plain.bytes;
    let mut decision = Decision::pass(Stage::Connection, Reason::Connection)
        .of_binding(index)
        .pack();
    let Some(binding) = owner else {
        tables.count(slot, Verdict::Pass, Reason::Connection, u64::from(bytes));
        return Some(decision);
    };
    match binding.target {
        Target::Xsk => {
            decision = decision.to(Target::Xsk);
            decision = steering::to_socket_of(tables, binding, ifindex, bytes, decision);
        }
        Target::Cpu => {
            let hash = (probe.hash(tables) >> 32) as u32;
            decision = steering::to_cpu_of(tables, binding, hash, decision.to(Target::Cpu));
        }
        // A row of the present epoch is believed: another target has made another epoch.
        Target::Stack | Target::Drop | Target::Reject => {}
    }
    tables.count_packed(slot, decision, u64::from(bytes));
    tables.count_binding(index, u64::from(bytes));
    Some(decision)
}

/// The binding that owns a row, if any; `None` where it cannot be read.
#[inline(always)]
fn owner<T: Tables>(tables: &T, index: u16) -> Option<Option<&Binding>> {
    if index == 0 {
        return Some(None);
    }
    Some(Some(tables.binding(index)?))
}

/// Whether packets go to other CPUs: there a checksum that is still to come must have been filled in.
#[inline(always)]
const fn is_of_cpus(owner: Option<&Binding>) -> bool {
    matches!(
        owner,
        Some(Binding {
            target: Target::Cpu,
            ..
        })
    )
}

/// Applies what arrived to its row, if that is steady.
#[inline(always)]
fn steady<T: Tables>(
    tables: &T,
    found: &Found<<T as Memory>::Line>,
    plain: &Plain,
    config: &Config,
) -> Option<()> {
    let Some(seen) = &plain.seen else {
        return repeats(tables, found, plain.bytes, config);
    };
    passes::<{ Line::RX }, { Line::REMOTE }, { Line::LOCAL }, T>(
        tables,
        found,
        seen,
        Side::Remote,
        (1, plain.bytes),
        config,
    )
}

/// The heads of rows that a datagram of the remote does not change: this host has answered, and the
/// remote has gone on after that.
const ASSURED_MASK: u64 = 0xff << 8 | ((Flags::CONFIRMED | udp::ANSWERED) as u64) << 16;
const ASSURED: u64 =
    (State::Assured as u64) << 8 | ((Flags::CONFIRMED | udp::ANSWERED) as u64) << 16;

/// Applies a datagram of the remote to its row, if that is steady; `None` where it is not.
#[inline(always)]
fn repeats<T: Tables>(
    tables: &T,
    found: &Found<<T as Memory>::Line>,
    bytes: u32,
    config: &Config,
) -> Option<()> {
    let (head, line) = (found.head, found.line);
    let now = config.clock.at_ticks(tables.ticks());
    let last_seen = table::last_seen(tables, line);
    if head.0 & ASSURED_MASK != ASSURED
        || table::epoch(tables, line) != config.epoch
        || since(last_seen, now) >= config.lifetimes[State::Assured as usize]
    {
        return None;
    }
    // Its generation vouches for what was read before.
    let counted =
        table::simple_count::<{ Line::RX }, T>(tables, line, head.generation(), 1, bytes)?;
    if !table::put_count::<{ Line::RX }, T>(tables, line, counted) {
        return None;
    }
    if last_seen != now {
        table::touch(tables, line, now);
    }
    Some(())
}

/// Applies a packet that leaves, as [`arrives`] does one that arrives; returns whether it did.
#[inline(always)]
pub fn leaves<T: Tables + ?Sized>(tables: &T, parsed: &Parsed, packets: u32, bytes: u32) -> bool {
    let is_plain =
        matches!(parsed.key.protocol, Protocol::Tcp) && tcp::is_plain(parsed.segment.flags);
    let Some(config) = tables.config() else {
        return false;
    };
    if !is_plain {
        return false;
    }
    let probe = Probe::new(&parsed.key, tables, tables.homes());
    let Some(found) = table::find(tables, &probe, &parsed.key) else {
        return false;
    };
    passes::<{ Line::TX }, { Line::LOCAL }, { Line::REMOTE }, T>(
        tables,
        &found,
        &rows::seen(parsed, tcp::Kind::Ack),
        Side::Local,
        (packets, bytes),
        config,
    )
    .is_some()
}

/// The heads of rows that a plain segment does not change: established and confirmed.
const STEADY_MASK: u64 = 0xff << 8 | (Flags::CONFIRMED as u64) << 16;
const STEADY: u64 = (State::Established as u64) << 8 | (Flags::CONFIRMED as u64) << 16;

/// Applies a plain segment that `side` sent to its row, if that is steady; `None` where it is not.
/// `TALLY`, `SENDER` and `RECEIVER` are the words of the line for that side.
#[inline(always)]
fn passes<const TALLY: usize, const SENDER: usize, const RECEIVER: usize, T: Tables + ?Sized>(
    tables: &T,
    found: &Found<<T as Memory>::Line>,
    seen: &tcp::Seen,
    side: Side,
    (packets, bytes): (u32, u32),
    config: &Config,
) -> Option<()> {
    let (head, line) = (found.head, found.line);
    let now = config.clock.at_ticks(tables.ticks());
    let last_seen = table::last_seen(tables, line);
    if head.0 & STEADY_MASK != STEADY
        || table::epoch(tables, line) != config.epoch
        || since(last_seen, now) >= config.lifetimes[State::Established as usize]
    {
        return None;
    }
    let sender = table::half::<SENDER, T>(tables, line);
    let receiver = table::half::<RECEIVER, T>(tables, line);
    let marks = tcp::Marks(head.flags().0 & Flags::MARKS);
    let next = tcp::advance(sender, receiver, marks, side, seen)?;
    // Read before anything is written: its generation vouches for both halves.
    let counted = table::simple_count::<TALLY, T>(tables, line, head.generation(), packets, bytes)?;
    if !table::put_half::<SENDER, T>(tables, line, sender.word(), next.word())
        || !table::put_count::<TALLY, T>(tables, line, counted)
    {
        return None;
    }
    if last_seen != now {
        table::touch(tables, line, now);
    }
    Some(())
}
