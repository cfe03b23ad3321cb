//! `demux maps`: the maps of the instance and how full they are.

use aya_obj::generated::bpf_map_type;
use demux_common::layout::map;

use super::{
    Outcome,
    context::{Context, cannot_write},
};
use crate::{Result, render::MapRow};

/// List the maps: type, sizes, fill, memory and pin
///
/// Of arrays, the entries in use are those that are not all zero.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "EXAMPLES:\n  demux maps\n  bpftool map dump pinned $(demux maps -j | jq -r '.items[0].pin')"
)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let Self {} = self;
        let opened = context.open()?;
        let mut list = context.list::<MapRow>();
        for &name in map::ALL {
            let info = opened.tables.info(name)?;
            list.push(&MapRow {
                name,
                r#type: type_name(info.map_type),
                key_size: info.key_size,
                value_size: info.value_size,
                max_entries: info.max_entries,
                entries: opened.tables.entries_in_use(name)?,
                memory_bytes: opened.tables.memory_of(name)?,
                id: info.id,
                pin: opened.paths.map(name).display().to_string(),
            })
            .map_err(cannot_write)?;
        }
        list.finish().map_err(cannot_write)?;
        Ok(Outcome::Done)
    }
}

/// The kernel's word for a type of maps, as bpftool writes it.
fn type_name(map_type: u32) -> String {
    let known = [
        (bpf_map_type::BPF_MAP_TYPE_ARRAY, "array"),
        (bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY, "percpu_array"),
        (bpf_map_type::BPF_MAP_TYPE_HASH, "hash"),
        (bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH, "percpu_hash"),
        (bpf_map_type::BPF_MAP_TYPE_LRU_HASH, "lru_hash"),
        (bpf_map_type::BPF_MAP_TYPE_LPM_TRIE, "lpm_trie"),
        (bpf_map_type::BPF_MAP_TYPE_CPUMAP, "cpumap"),
        (bpf_map_type::BPF_MAP_TYPE_XSKMAP, "xskmap"),
    ];
    known
        .into_iter()
        .find(|(number, _)| *number as u32 == map_type)
        .map_or_else(|| format!("type {map_type}"), |(_, name)| name.to_owned())
}
