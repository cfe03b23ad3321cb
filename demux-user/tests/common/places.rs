//! Which programs run in the places of an instance, and which are pinned, by their kernel ids.

use std::{collections::BTreeMap, fs, os::fd::AsFd as _, path::Path};

use demux_common::layout::program;
use demux_user::bpf;

use super::demux::Demux;

/// The id of each pinned program and of the program of each link, by the name of the pin.
pub fn programs_by_pin(demux: &Demux<'_>) -> BTreeMap<String, u32> {
    let directory = demux.directory();
    let mut programs = BTreeMap::new();
    for part in ["progs", "links"] {
        for entry in fs::read_dir(directory.join(part)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            programs.insert(format!("{part}/{name}"), program_of(&path));
        }
    }
    programs
}

/// The id of a program that is pinned, or that a pinned link has.
fn program_of(pin: &Path) -> u32 {
    let object = bpf::object_get(pin, false).unwrap();
    let name = pin.file_name().unwrap().to_str().unwrap();
    let is_link = ["xdp_", "egress_", "bind_"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    if is_link {
        bpf::link_info(object.as_fd()).unwrap().program_id
    } else {
        bpf::program_info(object.as_fd()).unwrap().id
    }
}

/// Checks that every place has the program that is pinned for it, and that nothing else is left of an
/// upgrade. The programs for bind(2) are pinned nowhere else.
#[track_caller]
pub fn all_places_agree(demux: &Demux<'_>) {
    let directory = demux.directory();
    let programs = programs_by_pin(demux);
    let pinned = |name: &str| programs[&format!("progs/{name}")];
    for (pin, id) in &programs {
        let name = pin.split_once('/').unwrap().1;
        if name.starts_with("xdp_") {
            assert_eq!(*id, pinned(program::INGRESS), "{pin}: {programs:?}");
        } else if name.starts_with("egress_") || name.starts_with("clsact_") {
            assert_eq!(*id, pinned(program::EGRESS), "{pin}: {programs:?}");
        }
    }
    for name in ["progs-next", "unfinished"] {
        assert!(!directory.join(name).exists(), "{name} is left");
    }
}
