//! Every program of the object, loaded and weighed.

use std::os::fd::AsFd as _;

use demux_user::{bpf, kernel, object};

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
    });
}
