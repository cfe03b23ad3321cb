//! `demux bindings`: list bindings.

use demux_common::binding::Binding;

use super::{
    Outcome,
    context::{Context, cannot_write},
    names::Names,
};
use crate::{
    Result,
    bindings::{Fallback, Labels, Pattern, change::name_of},
    connections::Reader,
    render::BindingRow,
};

/// List bindings, the most specific first
///
/// PACKETS and BYTES count what the binding decided itself or through a row that it owns.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:\n  demux bindings\n  demux bindings --jsonl | jq -r .name")]
pub(super) struct Args {}

/// What a binding can be made with, and how to ask for it.
pub(super) const FLAGS: [(u8, &str); 4] = [
    (Binding::REUSE_ADDR, "reuse-addr"),
    (Binding::REUSE_PORT, "reuse-port"),
    (Binding::V6_ONLY, "v6-only"),
    (Binding::UNTRACKED, "untracked"),
];

/// The names of the flags of a binding.
pub(super) fn flags(binding: &Binding) -> Vec<&'static str> {
    FLAGS
        .into_iter()
        .filter(|(flag, _)| binding.has(*flag))
        .map(|(_, name)| name)
        .collect()
}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let Self {} = self;
        let opened = context.open()?;
        let names = Names::read()?;
        let mut bindings = opened.tables.bindings()?;
        let epoch = opened.tables.config()?.epoch;
        // Of equal patterns, one with a device comes first, as it does for packets, and then the one
        // that was bound last, with its group.
        bindings.sort_by_cached_key(|(_, binding)| {
            let pattern = Pattern::of(binding);
            (
                pattern.precedence(),
                (binding.ifindex == 0, binding.ifindex),
                binding.next_member == 0,
                epoch.wrapping_sub(binding.created),
            )
        });
        let counts = opened.tables.binding_counts()?;
        let totals = Reader::new(&opened.tables)?.totals()?;
        let labels = Labels::read(&opened.tables, &bindings)?;
        let mut list = context.list::<BindingRow>();
        for (index, binding) in &bindings {
            let count = counts.get(usize::from(*index)).copied().unwrap_or_default();
            list.push(&BindingRow {
                name: name_of(binding),
                protocol: binding.protocol.name(),
                local: Pattern::of(binding).to_string(),
                dev: (binding.ifindex != 0).then(|| names.show(binding.ifindex)),
                target: labels.of(*index, binding),
                fallback: Fallback::of(binding).map(Fallback::name),
                flags: flags(binding),
                packets: count.packets,
                bytes: count.bytes,
                connections: totals.by_binding.get(index).copied().unwrap_or_default(),
            })
            .map_err(cannot_write)?;
        }
        list.finish().map_err(cannot_write)?;
        Ok(Outcome::Done)
    }
}
