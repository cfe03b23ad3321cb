//! Every program of the object, loaded and weighed.

use std::os::fd::AsFd as _;

use demux_common::layout::program;
use demux_user::{
    bpf, kernel, object,
    tables::{Access, Tables},
};

use crate::live::Live;

/// Far below the million that the kernel grants, so that growth is seen in time.
const MOST_INSTRUCTIONS: u32 = 500_000;

#[test]
fn every_program_loads_and_stays_far_below_the_limit_of_the_verifier() {
    Live::run(|live| {
        for name in object::programs() {
            let path = live.instance().paths().program(name);
            let program = bpf::object_get(&path, false).unwrap();
            let info = bpf::program_info(program.as_fd()).unwrap();
            weigh(name, &info);
        }
    });
}

#[test]
fn the_programs_for_connect_load_upon_the_maps_of_an_instance() {
    Live::run(|live| {
        let paths = live.instance().paths();
        let tables = Tables::open_unchecked(paths, Access::ReadOnly).unwrap();
        let mut ebpf = object::open(paths, &tables).unwrap();
        for name in [program::CONNECT_V4, program::CONNECT_V6] {
            let program = object::load_unpinned(&mut ebpf, name).unwrap();
            let info = bpf::program_info(program.fd().unwrap().as_fd()).unwrap();
            weigh(name, &info);
        }
    });
}

fn weigh(name: &str, info: &bpf::ProgramInfo) {
    println!(
        "program {name}: {} verified instructions, {}/{} xlated/jited bytes (kernel {})",
        info.verified_instructions,
        info.translated_size,
        info.jited_size,
        kernel::release(),
    );
    assert!(info.verified_instructions > 0);
    assert!(info.verified_instructions < MOST_INSTRUCTIONS);
}
