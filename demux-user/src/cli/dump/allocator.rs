//! The entries of the port allocator's maps.

use demux_common::{
    address::Address,
    layout::LocalPrefix,
    ports::{Barred, Ephemeral, ExecCgroup, HINT_SETS, SET_WORDS},
    protocol::Protocol,
};
use serde_json::Value;

use super::fields::local_prefix;
use crate::{bindings::pattern::to_ip, render::Record};

pub(super) fn ephemeral(settings: &Ephemeral) -> Record {
    Record(vec![
        ("first_port", settings.first_port.into()),
        ("last_port", settings.last_port.into()),
        ("algorithm", settings.algorithm.name().into()),
        ("is_range_set", (settings.is_range_set != 0).into()),
        ("is_reserved_set", (settings.is_reserved_set != 0).into()),
        ("next", settings.next.into()),
        ("position", settings.position.into()),
        ("draws", settings.draws.into()),
    ])
}

pub(super) fn perturbation(index: u32, counter: u32) -> Record {
    Record(vec![("index", index.into()), ("counter", counter.into())])
}

/// A word of a set of hints, or the moment at which a set was last verified.
pub(super) fn hints(index: u32, word: u64) -> Record {
    let (set, place) = (index / SET_WORDS as u32, index % SET_WORDS as u32);
    if set < HINT_SETS as u32 {
        return Record(vec![("set", set.into()), ("ports", members(place, word))]);
    }
    Record(vec![("set", place.into()), ("verified", word.into())])
}

pub(super) fn barred(index: u32, word: u64) -> Record {
    let set = index / SET_WORDS as u32;
    let why = match set & 3 {
        why if why == Barred::Reserved as u32 => "reserved",
        why if why == Barred::Bound as u32 => "bound",
        _ => "held",
    };
    let protocol = Protocol::ALL
        .into_iter()
        .find(|protocol| *protocol as u32 == set >> 2);
    Record(vec![
        ("protocol", protocol.map(Protocol::name).into()),
        ("why", why.into()),
        ("ports", members(index % SET_WORDS as u32, word)),
    ])
}

/// The ports that are in a word of a set.
fn members(place: u32, word: u64) -> Value {
    (0..64)
        .filter(|bit| word >> bit & 1 != 0)
        .map(|bit| place * 64 + bit)
        .collect()
}

pub(super) fn exec_cgroup(id: u64, group: &ExecCgroup) -> Record {
    Record(vec![
        ("cgroup_id", id.into()),
        ("algorithm", group.algorithm.name().into()),
    ])
}

pub(super) fn source(to: &LocalPrefix, from: &Address) -> Record {
    let mut record = local_prefix(to);
    record.0.push(("address", to_ip(from).to_string().into()));
    record
}
