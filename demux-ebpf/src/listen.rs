//! What the programs tell to listeners: what becomes of connections, and packets.
//!
use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_ns},
};
use demux_common::{
    connection::{ConnectionKey, Direction, State},
    decide::PackedDecision,
    event::{self, Event, Happening},
    listen::{Channel, ListenerCounts, is_heard},
    parse::Parsed,
    table::Head,
    trace::{Seen, Trace},
};

use crate::{maps, tables::Maps};

/// [`demux_common::table::Memory::tell`]; `what` is [`event::word`]. It asks by itself whether somebody
/// listens, so that its callers have no more branches for the verifier to follow.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_tell(index: u32, head: u64, what: u32) -> u64 {
    let state = Head(head).state() as u32;
    if what == event::word(Happening::State, State::SynSent) | state << 8 {
        return 0;
    }
    let Some(event) = reserve_event(what) else {
        return 0;
    };
    event.head = head;
    event::copy(&Maps::<_, false>::new(()), index, event);
    maps::EVENTS.submit(event);
    1
}

/// [`demux_common::tables::Tables::tell_untracked`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_tell_untracked(key: *const ConnectionKey) -> u64 {
    // SAFETY: the verifier holds callers to a readable key, or null.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return 0;
    };
    let Some(event) = reserve_event(event::word(Happening::Untracked, State::Listen)) else {
        return 0;
    };
    event::copy_untracked(key, event);
    maps::EVENTS.submit(event);
    1
}

/// A record for an event, if somebody listens and there is room.
#[inline(always)]
fn reserve_event<'a>(what: u32) -> Option<&'a mut Event> {
    let config = maps::CONFIG.get(0)?;
    // SAFETY: the helper has no arguments.
    let ticks = unsafe { bpf_jiffies64() };
    if !is_heard(config.events_until, &config.clock, ticks) {
        return None;
    }
    let counts = maps::LISTENER_COUNTS.get_ptr_mut(Channel::Events as u32)?;
    let Some(event) = maps::EVENTS.reserve::<Event>() else {
        // SAFETY: the map has the value, and this CPU is the only writer of its own copy.
        unsafe { (*counts).lost += 1 };
        return None;
    };
    // SAFETY: as above.
    unsafe { (*counts).told += 1 };
    event.what = u64::from(what);
    event.ticks = ticks;
    // SAFETY: the helper has no arguments.
    event.time_ns = unsafe { bpf_ktime_get_ns() };
    Some(event)
}

/// [`demux_common::tables::Tables::trace`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_trace(
    ctx: *mut xdp_md,
    parsed: *const Parsed,
    decision: u64,
) -> u64 {
    // SAFETY: the verifier holds callers to readable headers, or null.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else {
        return 0;
    };
    let decision = PackedDecision(decision);
    put_trace(
        &Seen {
            parsed,
            is_parsed: decision.is_of_parsed(),
            decision,
            direction: Direction::In,
            // SAFETY: the context is the program's own.
            ifindex: unsafe { (*ctx).ingress_ifindex },
        },
        1,
    )
}

/// [`demux_common::tables::Tables::trace_departing`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_trace_departing(
    parsed: *const Parsed,
    ifindex: u32,
    segments: u32,
) -> u64 {
    // SAFETY: the verifier holds callers to readable headers, or null.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else {
        return 0;
    };
    put_trace(
        &Seen {
            parsed,
            is_parsed: true,
            decision: PackedDecision(0),
            direction: Direction::Out,
            ifindex,
        },
        segments,
    )
}

/// Puts a packet into the ring, if somebody wants it.
#[inline(always)]
fn put_trace(seen: &Seen<'_>, segments: u32) -> u64 {
    // SAFETY: the helper has no arguments.
    let ticks = unsafe { bpf_jiffies64() };
    // First whether anybody listens: mostly nobody does, and then this is all that a packet pays for.
    let Some(config) = maps::CONFIG.get(0) else {
        return 0;
    };
    if !is_heard(config.trace_until, &config.clock, ticks) {
        return 0;
    }
    let (Some(selection), Some(counts)) = (
        maps::SELECTION.get(0),
        maps::LISTENER_COUNTS.get_ptr_mut(Channel::Traces as u32),
    ) else {
        return 0;
    };
    if !selection.wants(seen) {
        return 0;
    }
    // SAFETY: the helper has no arguments.
    if selection.one_in > 1 && unsafe { bpf_get_prandom_u32() } % selection.one_in != 0 {
        return 0;
    }
    // SAFETY: the map has the value, and this CPU is the only writer of its own copy.
    let counts: &mut ListenerCounts = unsafe { &mut *counts };
    if !counts.take(config.clock.at_ticks(ticks), selection.per_unit) {
        return 0;
    }
    let Some(trace) = maps::TRACES.reserve::<Trace>() else {
        counts.lost += 1;
        return 0;
    };
    // SAFETY: the helper has no arguments.
    trace.time_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: as above.
    trace.cpu = unsafe { bpf_get_smp_processor_id() };
    seen.describe(segments, trace);
    maps::TRACES.submit(trace);
    counts.told += 1;
    1
}
