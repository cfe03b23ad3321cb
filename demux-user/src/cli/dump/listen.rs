//! Listeners as fields.

use demux_common::{
    address::Address,
    listen::{Channel, Listener, ListenerCounts},
    trace::Selection,
};

use crate::{Result, bindings::pattern::to_ip, render::Record};

pub(super) fn listener(channel: u32, listener: &Listener) -> Record {
    Record(vec![
        ("channel", name(channel).into()),
        ("pid", listener.pid.into()),
        ("started", listener.started.into()),
    ])
}

pub(super) fn listener_counts(
    channel: u32,
    values: &[u8],
    cpu_stride: usize,
    read: impl Fn(&[u8]) -> Result<ListenerCounts>,
) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for (cpu, bytes) in values.chunks_exact(cpu_stride).enumerate() {
        let counts = read(&bytes[..size_of::<ListenerCounts>()])?;
        if counts != ListenerCounts::default() {
            records.push(Record(vec![
                ("channel", name(channel).into()),
                ("cpu", cpu.into()),
                ("told", counts.told.into()),
                ("lost", counts.lost.into()),
                ("held_back", counts.held_back.into()),
            ]));
        }
    }
    Ok(records)
}

pub(super) fn selection(selection: &Selection) -> Record {
    let address = |address: &Address| to_ip(address).to_string();
    let mask = |mask: &Address| {
        let [high, low] = mask.words();
        high.count_ones() + low.count_ones()
    };
    Record(vec![
        ("local", address(&selection.local_address).into()),
        ("local_bits", mask(&selection.local_mask).into()),
        ("local_first", selection.local_first.into()),
        ("local_last", selection.local_last.into()),
        ("remote", address(&selection.remote_address).into()),
        ("remote_bits", mask(&selection.remote_mask).into()),
        ("remote_first", selection.remote_first.into()),
        ("remote_last", selection.remote_last.into()),
        ("reasons", selection.reasons.into()),
        ("verdicts", selection.verdicts.into()),
        ("directions", selection.directions.into()),
        ("protocols", selection.protocols.into()),
        ("unparsed", (selection.unparsed != 0).into()),
        ("ifindex", selection.ifindex.into()),
        ("one_in", selection.one_in.into()),
        ("per_unit", selection.per_unit.into()),
    ])
}

fn name(channel: u32) -> &'static str {
    Channel::ALL
        .get(channel as usize)
        .map_or("unknown", |channel| channel.name())
}
