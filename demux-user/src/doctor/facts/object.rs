//! What the programs of demux's own object need of a kernel: helpers and types of maps.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aya::{maps::MapType, programs::ProgramType, sys::BpfHelper};
use aya_obj::{
    Object, ProgramSection,
    generated::{BPF_CALL, BPF_JMP, bpf_func_id, bpf_insn, bpf_map_type},
};

use super::Fact;
use crate::object;

/// What the object needs.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Each type of program, the word for it, and the helpers that programs of it call.
    pub helpers: Vec<(ProgramType, &'static str, Vec<BpfHelper>)>,
    /// Each type of map, and the name of one such map.
    pub maps: Vec<(MapType, String)>,
}

/// Reads what the object needs from its code.
///
/// # Errors
///
/// Where the binary has no object, or one that cannot be read.
pub fn needs() -> Fact<Needs> {
    let bytes = object::bytes().map_err(|error| error.to_string())?;
    let mut object = Object::parse(bytes).map_err(|error| error.to_string())?;
    let sections: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    // Thereby each program has the code of all functions that it calls.
    object
        .relocate_calls(&sections)
        .map_err(|error| object::chain(&error))?;
    Ok(Needs {
        helpers: helpers(&object),
        maps: maps(&object),
    })
}

fn helpers(object: &Object) -> Vec<(ProgramType, &'static str, Vec<BpfHelper>)> {
    let mut by_type: BTreeMap<&str, (ProgramType, BTreeSet<u32>)> = BTreeMap::new();
    for program in object.programs.values() {
        let Some((kind, name)) = program_type(&program.section) else {
            continue;
        };
        let Some(function) = object.functions.get(&program.function_key()) else {
            continue;
        };
        let called = function.instructions.iter().filter_map(called_helper);
        let entry = by_type.entry(name).or_insert((kind, BTreeSet::new()));
        entry.1.extend(called);
    }
    by_type
        .into_iter()
        .map(|(name, (kind, numbers))| {
            (kind, name, numbers.into_iter().filter_map(helper).collect())
        })
        .collect()
}

fn program_type(section: &ProgramSection) -> Option<(ProgramType, &'static str)> {
    Some(match section {
        ProgramSection::Xdp { .. } => (ProgramType::Xdp, "XDP"),
        ProgramSection::SchedClassifier => (ProgramType::SchedClassifier, "egress"),
        ProgramSection::CgroupSockAddr { .. } => (ProgramType::CgroupSockAddr, "bind and connect"),
        ProgramSection::CgroupSock { .. } => (ProgramType::CgroupSock, "bound"),
        _ => return None,
    })
}

/// The number of the helper that an instruction calls. Calls of functions have another source register.
fn called_helper(instruction: &bpf_insn) -> Option<u32> {
    let is_call = u32::from(instruction.code) == BPF_JMP | BPF_CALL && instruction.src_reg() == 0;
    is_call.then_some(instruction.imm as u32)
}

fn helper(number: u32) -> Option<BpfHelper> {
    // SAFETY: the enumeration is of 32 bits and has every number below its last one.
    (number < bpf_func_id::__BPF_FUNC_MAX_ID as u32)
        .then(|| unsafe { std::mem::transmute::<u32, bpf_func_id>(number) })
}

fn maps(object: &Object) -> Vec<(MapType, String)> {
    let mut names: Vec<_> = object.maps.iter().collect();
    names.sort_unstable_by_key(|(name, _)| name.as_str());
    let mut maps: Vec<(MapType, String)> = Vec::new();
    for (name, map) in names {
        let kind = bpf_map_type::try_from(map.map_type())
            .ok()
            .and_then(|kind| MapType::try_from(kind).ok());
        if let Some(kind) = kind
            && !maps.iter().any(|(known, _)| *known == kind)
        {
            maps.push((kind, name.clone()));
        }
    }
    maps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_says_which_helpers_and_maps_it_needs() {
        if object::bytes().is_err() {
            // A plain build has none.
            return;
        }
        let needs = needs().unwrap();
        let of = |name: &str| -> &[BpfHelper] {
            let found = needs.helpers.iter().find(|(_, other, _)| *other == name);
            &found.unwrap_or_else(|| panic!("{name}")).2
        };
        assert!(of("XDP").contains(&bpf_func_id::BPF_FUNC_skc_lookup_tcp));
        assert!(of("XDP").contains(&bpf_func_id::BPF_FUNC_redirect_map));
        assert!(of("egress").contains(&bpf_func_id::BPF_FUNC_map_lookup_elem));
        assert!(!of("egress").contains(&bpf_func_id::BPF_FUNC_redirect_map));
        assert!(of("bind and connect").contains(&bpf_func_id::BPF_FUNC_get_netns_cookie));
        for kind in [
            MapType::Array,
            MapType::CpuMap,
            MapType::XskMap,
            MapType::LpmTrie,
        ] {
            assert!(
                needs.maps.iter().any(|(other, _)| *other == kind),
                "{kind:?}"
            );
        }
    }
}
